"""`expunge audit`: judge models that exist."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from expunge.experiment import load_data
from shell import SMALL, Shell, numbers, read_csv, read_json, write_yaml


@pytest.fixture
def theirs(tmp_path: Path, finished: Path) -> Path:
    """Weights as another program would leave them, and a file that names them."""
    for seed in (0, 1):
        for row in ("finetune", "random_label"):
            save_file(
                load_file(finished / "models" / f"{row}-seed{seed}.safetensors"),
                tmp_path / f"{row}{seed}.safetensors",
            )
    config: dict[str, Any] = {key: value for key, value in SMALL.items() if key != "methods"}
    given = {"tuned": ["finetune0.safetensors", "finetune1.safetensors"], "one": "random_label0.safetensors"}
    return write_yaml(tmp_path / "audit.yaml", config, models=given, out=str(tmp_path / "out"))


def test_given_files_are_judged_as_the_run_that_made_them(
    expunge: Shell, theirs: Path, tmp_path: Path, finished: Path
) -> None:
    outcome = expunge("audit", theirs)
    assert outcome.code == 0, outcome.err
    by = {(row["method"], row["seed"]): row for row in read_csv(tmp_path / "out")}
    run = {(row["method"], row["seed"]): row for row in read_csv(finished)}
    assert set(by) == {(m, s) for m in ("original", "retrain", "retrain_again", "tuned") for s in "01"} | {("one", "0")}
    for column in ("ua", "ra", "ta", "tfa", "mia", "avg_gap", "tow", "verdict"):
        for seed in "01":
            assert by["tuned", seed][column] == run["finetune", seed][column]
    assert by["one", "0"]["ua"] == run["random_label", "0"]["ua"]
    assert by["one", "0"]["seconds"] == ""  # nobody said how long it took


def test_what_the_files_of_a_second_request_had_forgotten_before_is_gone(
    expunge: Shell, finished: Path, tmp_path: Path
) -> None:
    """Month after month from the command line: the weights say what went before, or the file of settings does."""
    config: dict[str, Any] = {key: value for key, value in SMALL.items() if key != "methods"}
    first = finished / "models" / "random_label-seed0.safetensors"
    told = ["--model", "mlp", "--model-set", "hidden=[32]", "--data", "digits", "--method", "random_label"]
    outcome = expunge("unlearn", *told, "--weights", first, "--classes", "5", "--out", tmp_path / "second")
    assert outcome.code == 0, outcome.err
    weights = str(tmp_path / "second" / "weights.safetensors")
    bare = str(tmp_path / "bare.safetensors")
    save_file(load_file(weights), bare)
    train, _ = load_data({"name": "digits"})
    ids = train.ids[(train.y == 3).numpy()].tolist()
    found = []
    for given, request in ((weights, {"classes": [5]}), (bare, {"classes": [5], "gone": ids})):
        changes: dict[str, Any] = {"request": request, "models": {"mine": given}, "out": str(tmp_path / "out")}
        outcome = expunge("audit", write_yaml(tmp_path / "audit.yaml", config, **changes), "--force")
        assert outcome.code == 0, outcome.err
        assert read_json(tmp_path / "out" / "results.json")["question"]["gone"] == len(ids)
        found.append([row for row in read_csv(tmp_path / "out") if row["method"] == "mine"])
    assert found[0] == found[1]
    config["request"] = {"classes": [5]}
    outcome = expunge("check", write_yaml(tmp_path / "audit.yaml", config, models={"mine": str(first)}))
    assert outcome.code == 2
    assert f"mine has forgotten {len(ids)} rows" in outcome.err
    (tmp_path / "gone.txt").write_text("\n".join(map(str, ids)))
    told += ["--weights", bare, "--gone", tmp_path / "gone.txt", "--out", tmp_path / "third"]
    assert f"{len(ids)} more are already gone" in expunge("unlearn", *told, "--classes", "7").out


def test_the_models_of_a_run_are_judged_to_the_same_numbers(
    expunge: Shell, small: Path, tmp_path: Path, finished: Path
) -> None:
    shutil.copytree(finished, tmp_path / "out")
    outcome = expunge("audit", small)
    assert outcome.code == 0, outcome.err
    assert numbers(tmp_path / "out") == numbers(finished)
    settings = {e["method"]: e["settings"] for e in read_json(tmp_path / "out" / "results.json")["models"]}
    assert settings["random_label"]["epochs"] == 1
    outcome = expunge("audit", small, "--seeds", "1")  # some of them
    assert outcome.code == 0, outcome.err
    assert {row["seed"] for row in read_csv(tmp_path / "out") if row["method"] == "finetune"} == {"1"}


def test_a_run_with_rows_whose_names_are_no_file_names(expunge: Shell, tmp_path: Path) -> None:
    methods = [{"name": "finetune", "row": "a/b: c", "epochs": 1}]
    methods += [{"name": "gradient_ascent", "row": "a_b: c", "lr": 0.1}, {"name": "random_label", "row": "A_b: C"}]
    file = write_yaml(tmp_path / "run.yaml", SMALL, methods=methods, out=str(tmp_path / "out"))
    assert expunge("run", file).code == 0
    before = numbers(tmp_path / "out")
    outcome = expunge("audit", file)
    assert outcome.code == 0, outcome.err
    assert numbers(tmp_path / "out") == before
    assert {"a/b: c", "a_b: c", "A_b: C"} <= {row["method"] for row in before}
    names = [path.name.lower() for path in (tmp_path / "out" / "models").iterdir()]
    assert len(set(names)) == len(names) == 2 * 4


def test_models_that_are_not_there(expunge: Shell, small: Path, tmp_path: Path, finished: Path) -> None:
    assert "There are no models to judge" in expunge.refuses("audit", small)
    assert not (tmp_path / "out").exists()
    shutil.copytree(finished, tmp_path / "out")
    said = expunge.refuses("audit", small, "--seeds", "0-2")
    assert "finetune-seed2.safetensors" in said
    assert "expunge run" in said


def test_another_request_does_not_overwrite_the_dossier_of_a_run(
    expunge: Shell, small: Path, tmp_path: Path, finished: Path
) -> None:
    shutil.copytree(finished, tmp_path / "out")
    for force in ([], ["--force"]):
        said = expunge.refuses("audit", small, "--set", "request.classes=[5]", *force)
        assert "holds another experiment: request differs" in said
        assert "begin again there, expunge run --force" in said  # which an audit cannot
    (tmp_path / "out" / "run.json").unlink()
    assert "no run.json to say what made them" in expunge.refuses("audit", small, "--force")
    assert (tmp_path / "out" / "results.csv").read_bytes() == (finished / "results.csv").read_bytes()
    assert (tmp_path / "out" / "models" / "finetune-seed0.safetensors").is_file()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("models.tuned=[finetune0.safetensors]", None),  # one may stand for all
        ("models.three=[finetune0.safetensors, finetune1.safetensors, finetune0.safetensors]", "3 models for 2 seeds"),
        ("models.retrain_again=finetune0.safetensors", "choose another"),
        ("models.absent=absent.safetensors", "There are no weights at absent.safetensors"),
        ("model.hidden=[16]", "has shape"),
    ],
)
def test_what_the_file_may_name(expunge: Shell, theirs: Path, change: str, told: str | None) -> None:
    if told is None:
        assert expunge("audit", theirs, "--set", change).code == 0
    else:
        assert told in expunge.refuses("audit", theirs, "--set", change)


def test_without_a_recipe_nothing_can_be_said(expunge: Shell, theirs: Path, tmp_path: Path) -> None:
    outcome = expunge("audit", theirs, "--set", "recipe=null")
    assert outcome.code == 0, outcome.err
    assert {row["verdict"] for row in read_csv(tmp_path / "out")} == {"cannot say"}
