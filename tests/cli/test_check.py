"""`expunge check`: everything that will not work, at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from expunge import models
from shell import SMALL, Shell, write_yaml

BAD: dict[str, Any] = {
    "modle": {"name": "mlp"},
    "model": {"name": "lenett"},
    "data": {"name": "digits"},
    "request": {"classes": [12]},
    "recipe": {"epoch": 3, "lr": -1, "label_smoothing": 4},
    "methods": [{"name": "fintune"}, {"name": "random_label", "epohcs": 2}, {"name": "neggrad_plus", "epochs": -1}],
    "audit": {"seeds": "4-2", "attacks": ["los"], "relearn": {"max_epoch": 2}, "sede": 1},
    "out": 3,
}
# a piece of each message: what is wrong, and what would be right
TOLD = {
    "'modle'": "Did you mean 'model'",
    "'lenett'": "Did you mean 'lenet'",
    "no class 12": "labels run 0..9",
    "recipe: Unknown setting 'epoch'": "Did you mean 'epochs'",
    "got -1": "lr must be above 0",
    "got 4": "label_smoothing must be from 0 to below 1",
    "'fintune'": "Did you mean 'finetune'",
    "'epohcs'": "Did you mean 'epochs'",
    "neggrad_plus": "epochs must be a whole number, 0 or more",
    "'4-2'": "0-4 or 0,2,5",
    "attack 'los'": "Did you mean 'loss'",
    "'max_epoch'": "Did you mean 'max_epochs'",
    "'sede'": "Did you mean 'seeds'",
    "out: ": "give a folder",
}


def test_all_problems_of_a_file_are_listed_at_once(expunge: Shell, tmp_path: Path) -> None:
    said = expunge.refuses("check", write_yaml(tmp_path / "bad.yaml", BAD))
    lines = said.strip().splitlines()
    assert all(line.startswith("expunge: ") for line in lines)
    for wrong, right in TOLD.items():
        assert any(wrong in line and right in line for line in lines), (wrong, right, said)
    assert len(lines) == len(TOLD)


def test_unknown_data_does_not_hide_the_other_problems(expunge: Shell, tmp_path: Path) -> None:
    file = write_yaml(tmp_path / "bad.yaml", {**BAD, "data": {"name": "digist"}})
    said = expunge.refuses("check", file)
    assert "Did you mean 'digits'" in said
    assert all(wrong in said for wrong in TOLD if wrong != "no class 12")  # that one needs the data


def test_a_fine_file(expunge: Shell, small: Path, tmp_path: Path) -> None:
    outcome = expunge("check", small)
    assert outcome.code == 0
    assert "Forget class 3: 146 of 1,438 rows" in outcome.out
    assert "finetune, random_label" in outcome.out
    assert not (tmp_path / "out").exists()  # nothing is made


def test_changes_on_the_command_line_are_checked_too(expunge: Shell, small: Path) -> None:
    assert expunge("check", small, "--set", "methods.0.epochs=5").code == 0
    assert "above 0" in expunge.refuses("check", small, "--set", "methods.0.lr=0")
    assert "place=value" in expunge.refuses("check", small, "--set", "methods.0.lr")
    assert "no place 'methods.7.lr'" in expunge.refuses("check", small, "--set", "methods.7.lr=1")
    assert "not valid YAML" in expunge.refuses("check", small, "--set", "methods.0.lr=[1")


def test_a_file_that_is_none(expunge: Shell, tmp_path: Path) -> None:
    assert "No such file" in expunge.refuses("check", tmp_path / "absent.yaml")
    (tmp_path / "words.yaml").write_text("hello")
    assert "must hold settings" in expunge.refuses("check", tmp_path / "words.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert "it holds nothing" in expunge.refuses("check", tmp_path / "empty.yaml")
    (tmp_path / "broken.yaml").write_text("model: {name: mlp")
    assert "not valid YAML" in expunge.refuses("check", tmp_path / "broken.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    assert "binary.yaml" in expunge.refuses("check", tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("model", "lenet", "model: needed, as settings such as model: {name: lenet}; got 'lenet'"),
        ("model", None, "give name or build"),
        ("data", None, "data: needed"),
        ("data", {"name": "digits", "path": "x.npz"}, "give one of name, path and build"),
        ("data", {"name": "digits", "limit": 3}, "limit must be at least 10"),
        ("request", None, "request: needed, as settings such as request: {classes: [3]}."),
        ("request", {"classes": [3], "fraction": 0.1}, "exactly one way"),
        ("request", {"fraction": 1.5}, "between 0 and 1"),
        ("request", {"class": [3]}, "Did you mean 'classes'"),
        ("request", {"ids": [99999]}, "99999"),
        ("request", {"fraction": 0.1, "seed": "x"}, "request: A seed must be an integer in 0..2**32 - 1; got 'x'"),
        ("request", {"ids": 5}, "request: ids are a list of whole numbers or strings, or a file; got 5"),
        ("request", {"ids": [[1]]}, "request: ids are a list of whole numbers or strings, or a file; got [1] among"),
        ("data", {"name": "digits", "seed": "x"}, "data: A seed must be an integer in 0..2**32 - 1; got 'x'"),
        ("recipe", "fast", "recipe: needed, as settings such as recipe: {epochs: 10, lr: 0.05}; got 'fast'"),
        ("recipe", None, "needed to train the original; or give its weights"),
        ("recipe", {"optimizer": "sgdd"}, "Did you mean 'sgd'"),
        ("methods", [3], "give a method by name"),
        ("methods", [{"epochs": 3}], "given by name"),
        ("methods", [{"name": "finetune", "row": "retrain"}], "always there"),
        ("methods", [{"name": "finetune", "region": {"layers": "nothing*"}}], "nothing*"),
        ("audit", [1], "audit: needed, as settings"),
        ("audit", {"seeds": 0}, "one at least"),
        ("audit", {"seeds": -1}, "seeds must be how many, one at least, or a list of whole numbers from 0; got -1"),
        ("audit", {"seeds": [1, 1]}, "different"),
        ("audit", {"seeds": [0.5]}, "whole"),
        ("audit", {"attacks": []}, "at least one attack"),
        ("audit", {"relearn": 20}, "max_epochs: 20"),
        ("audit", {"relearn": {"lr": "fast"}}, "relearn: lr must be a number"),
        ("audit", {"relearn": {"cap": 1e2}}, "audit: relearn: cap must be a whole number; got 100.0"),
        ("models", ["a.safetensors"], "models: needed, as settings"),
    ],
)
def test_one_wrong_setting(expunge: Shell, tmp_path: Path, key: str, value: Any, told: str) -> None:
    said = expunge.refuses("check", write_yaml(tmp_path / "bad.yaml", {**SMALL, key: value}))
    assert told in said
    assert len(said.strip().splitlines()) == 1  # one mistake, one message


@pytest.mark.parametrize(
    ("request_section", "told"),
    [
        ({"clases": [3]}, "request: Unknown setting 'clases'. Did you mean 'classes'"),
        (3, "request: needed, as settings such as request: {classes: [3]}; got 3."),
        ({"classes": [3], "fraction": 0.1}, "request: A request names its rows in exactly one way"),
        ({"fraction": 0.1, "seed": "x"}, "request: A seed must be an integer"),
    ],
)
def test_the_form_of_a_request_is_checked_without_data(
    expunge: Shell, tmp_path: Path, request_section: Any, told: str
) -> None:
    file = write_yaml(tmp_path / "bad.yaml", {**SMALL, "data": {"name": "digist"}, "request": request_section})
    lines = expunge.refuses("check", file).strip().splitlines()
    assert len(lines) == 2
    assert "Did you mean 'digits'" in lines[0]
    assert told in lines[1]


def test_a_key_that_is_given_twice_is_refused(expunge: Shell, small: Path) -> None:
    text = small.read_text()
    first = next(n for n, line in enumerate(text.splitlines(), start=1) if line.startswith("request:"))
    small.write_text(f"{text.rstrip()}\nrequest: {{classes: [5]}}\n")
    last = len(small.read_text().splitlines())
    said = expunge.refuses("check", small)
    assert f"{small.name}: key 'request' twice, lines {first} and {last}; keep one." in said
    assert len(said.strip().splitlines()) == 1


def test_data_whose_test_rows_are_its_training_rows_is_refused(expunge: Shell, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 255, (40, 8, 8), np.uint8)
    y = np.arange(40) % 10
    np.savez(tmp_path / "same.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    file = write_yaml(tmp_path / "run.yaml", {**SMALL, "data": {"path": str(tmp_path / "same.npz")}})
    said = expunge.refuses("check", file)
    assert "data: unseen must be rows that no model was trained on" in said


def test_labels_that_are_words_are_refused_as_such(expunge: Shell, tmp_path: Path) -> None:
    x, y = np.zeros((40, 8, 8), np.uint8), np.array(["cat", "dog"] * 20)
    np.savez(tmp_path / "words.npz", x_train=x, y_train=y, x_test=x[:4], y_test=y[:4])
    file = write_yaml(tmp_path / "run.yaml", {**SMALL, "data": {"path": str(tmp_path / "words.npz")}})
    said = expunge.refuses("check", file)
    assert "data: Labels must be integers from 0; got <U3 values such as" in said
    words = ["--model", "mlp", "--weights", "w.safetensors", "--method", "finetune", "--classes", "1", "--out", "out"]
    assert "Labels must be integers from 0" in expunge.refuses("unlearn", "--data", tmp_path / "words.npz", *words)


def test_weights_that_do_not_fit_are_told_with_every_mismatch(expunge: Shell, tmp_path: Path) -> None:
    other = models.build("mlp", channels=1, size=8, classes=10, hidden=[16, 8])
    save_file(other.state_dict(), tmp_path / "w.safetensors")
    config = {**SMALL, "model": {**SMALL["model"], "weights": str(tmp_path / "w.safetensors")}}
    said = expunge.refuses("check", write_yaml(tmp_path / "bad.yaml", config))
    fitting = models.build("mlp", channels=1, size=8, classes=10, hidden=[32]).state_dict()
    for name, value in other.state_dict().items():
        if name not in fitting:
            assert f"has {name}, which the model does not have" in said
        elif value.shape != fitting[name].shape:
            assert f"{name} has shape {tuple(value.shape)}, the model's has {tuple(fitting[name].shape)}" in said


def test_weights_named_under_models_are_checked(expunge: Shell, tmp_path: Path) -> None:
    file = write_yaml(tmp_path / "bad.yaml", SMALL, models={"original": "absent.safetensors"})
    assert "models.original: There are no weights at absent.safetensors" in expunge.refuses("check", file)


def test_a_pickled_checkpoint_is_refused_with_advice_and_never_run(expunge: Shell, tmp_path: Path) -> None:
    torch.save(models.build("mlp", channels=1, size=8, classes=10, hidden=[32]), tmp_path / "whole.pt")
    config = {**SMALL, "model": {**SMALL["model"], "weights": str(tmp_path / "whole.pt")}}
    said = expunge.refuses("check", write_yaml(tmp_path / "bad.yaml", config))
    assert "not loaded" in said
    assert "safetensors.torch.save_file" in said


def test_a_folder_of_another_experiment_is_told_before_the_run(expunge: Shell, finished: Path, small: Path) -> None:
    changes = ["--set", f"out={finished}"]
    assert expunge("check", small, *changes).code == 0
    said = expunge.refuses("check", small, *changes, "--set", "recipe.epochs=4")
    assert "holds another experiment: recipe differs" in said


def test_a_folder_that_cannot_be_used(expunge: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    outs = {
        "full": "is not empty",
        "file": "is a file",
        "file/deep": "cannot be written",
        "/proc/zz": "cannot be written",
    }
    for out, why in outs.items():
        file = write_yaml(tmp_path / "run.yaml", SMALL, out=str(tmp_path / out))
        assert why in expunge.refuses("check", file)
        assert why in expunge.refuses("run", file)
    file = write_yaml(tmp_path / "run.yaml", SMALL, out=str(tmp_path / "new"))
    assert expunge("check", file).code == 0
    assert not (tmp_path / "new").exists()
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "file"))
    for verb in ("check", "run"):
        said = expunge.refuses(verb, file)
        assert "is a file" in said
        assert "set EXPUNGE_CACHE" in said
