"""--set, --seeds, and numbers as people write them in YAML."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from expunge.errors import ExpungeError
from expunge.experiment.text import changed, parse_file, parse_seeds, parse_value

FILE: dict[str, Any] = {
    "recipe": {"epochs": 3},
    "methods": ["finetune", {"name": "salun", "keep": 0.3}],
    "audit": None,
    "out": "runs/a",
}


@pytest.mark.parametrize(
    ("change", "where", "value"),
    [
        ("recipe.epochs=5", ("recipe", "epochs"), 5),
        ("recipe.lr=1e-3", ("recipe", "lr"), 0.001),
        ("methods.1.keep=0.2", ("methods", 1, "keep"), 0.2),
        ("methods.0={name: scrub}", ("methods", 0), {"name": "scrub"}),
        ("methods.0.lr=0.1", ("methods", 0), {"name": "finetune", "lr": 0.1}),  # a name alone gets room for fields
        ("methods.-1.keep=0.1", ("methods", 1, "keep"), 0.1),
        ("audit.seeds=[1, 2]", ("audit", "seeds"), [1, 2]),
        ("request.classes=[3]", ("request", "classes"), [3]),  # nothing is there yet
        ("audit.relearn.max_epochs=2", ("audit", "relearn", "max_epochs"), 2),
        ("out=a=b", ("out",), "a=b"),
        ("recipe=null", ("recipe",), None),
    ],
)
def test_one_setting_is_replaced_and_nothing_else(change: str, where: tuple[Any, ...], value: Any) -> None:
    before = copy.deepcopy(FILE)
    found: Any = changed(FILE, change)
    assert before == FILE  # a copy was changed
    at = found
    for key in where:
        at = at[key]
    assert at == value
    others = set(FILE) - {where[0]}
    assert {k: found[k] for k in others} == {k: FILE[k] for k in others}


@pytest.mark.parametrize(
    "change", ["recipe.epochs", "=3", "methods.2.keep=1", "methods.a=1", "out.x=1", "recipe.epochs.a=1", "out=[1", "."]
)
def test_a_change_that_has_no_place_is_refused(change: str) -> None:
    with pytest.raises(ExpungeError, match="--set"):
        changed(FILE, change)


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-4", [0, 1, 2, 3, 4]), ("0,2,5", [0, 2, 5]), ("7", [7]), ("0-2, 2-3", [0, 1, 2, 3])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,", "-1", "0.5", "0 1"])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(ExpungeError, match="0-4 or 0,2,5"):
        parse_seeds(text)


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.e-3", "1.0e-3", "+1e-3", "0.001", ".1e-2"])
def test_numbers_with_an_exponent_are_numbers(text: str) -> None:
    value = parse_value(text, "here")
    assert isinstance(value, float)
    assert value == 0.001


@pytest.mark.parametrize("text", ["1e", "e-3", "1e-3x", "x1e-3", "vgg16e5", "1-e3", "12e4f"])
def test_words_stay_words(text: str) -> None:
    assert parse_value(text, "here") == text


def test_quotes_keep_an_id_that_looks_like_a_number() -> None:
    assert parse_value("['12e4', \"1e-3\"]", "here") == ["12e4", "1e-3"]


def test_plain_yaml_keeps_its_own_reading(tmp_path: Path) -> None:
    """PyYAML itself is left as it was for other code."""
    import yaml

    (tmp_path / "a.yaml").write_text("lr: 1e-3\nname: digits\non: [1, 2]\n")
    assert parse_file(tmp_path / "a.yaml")["lr"] == 0.001
    assert yaml.safe_load("lr: 1e-3") == {"lr": "1e-3"}


def test_a_file_cannot_run_code(tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text("data: !!python/object/apply:os.mkdir [made]")
    with pytest.raises(ExpungeError, match="not valid YAML"):
        parse_file(tmp_path / "evil.yaml")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("out: a\nrecipe:\n  epochs: 1\n\nout: b\n", "key 'out' twice, lines 1 and 5; keep one."),
        ("out: a\nrecipe:\n  lr: 1\n  epochs: 1\n  lr: 2\n", "key 'lr' twice, lines 3 and 5; keep one."),
        ("a: {b: 1, 'b': 2}\n", "key 'b' twice, lines 1 and 1; keep one."),
        ("a: 1\na: 2\na: 3\n", "key 'a' 3 times, lines 1 and 2 and 3; keep one."),
    ],
)
def test_a_key_may_not_be_given_twice(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ExpungeError) as refusal:
        parse_file(tmp_path / "a.yaml")
    assert str(refusal.value) == f"{tmp_path / 'a.yaml'}: {told}"


def test_all_keys_that_are_given_twice_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("out: a\nout: b\ndata: {}\ndata: {name: a, name: b}\n")
    with pytest.raises(ExpungeError) as refusal:
        parse_file(tmp_path / "a.yaml")
    assert len(str(refusal.value).splitlines()) == 3
    with pytest.raises(ExpungeError, match="--set recipe: key 'lr' twice"):
        changed(FILE, "recipe={lr: 1, lr: 2}")


def test_a_merged_key_may_be_given_anew(tmp_path: Path) -> None:
    """Settings taken over from an anchor are there to be replaced; the same key in another mapping is another key."""
    text = "a: &a {lr: 1, epochs: 2}\nb:\n  c: &c {<<: *a, lr: 3}\nd: {<<: *c, lr: 4}\n1: x\n'1': y\n"
    (tmp_path / "a.yaml").write_text(text)
    found: dict[Any, Any] = parse_file(tmp_path / "a.yaml")
    assert found["b"]["c"] == {"lr": 3, "epochs": 2}
    assert found["d"] == {"lr": 4, "epochs": 2}
    assert (found[1], found["1"]) == ("x", "y")
