"""`expunge run`: from a YAML file to a dossier."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import expunge as ex
from expunge.io import file_digest
from shell import SMALL, Shell, numbers, read_csv, read_json, write_yaml

COLUMNS = ("method", "seed", "ua", "ra", "ta", "tfa", "mia", "avg_gap", "tow", "seconds", "verdict")

OWN = """
import numpy as np
import torch
from torch import nn
from sklearn.datasets import load_digits


def load():
    bunch = load_digits()
    x, y = (bunch.images / 16).astype(np.float32)[:, None], bunch.target
    return (x[:600], y[:600]), (x[600:900], y[600:900])


def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def train(rows, ids, seed):
    rows = rows.take(rows.positions(ids))
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(rows.x(torch.arange(len(rows)))), rows.y).backward()
        optimizer.step()
    return model
"""


def test_the_dossier_has_all_its_parts(expunge: Shell, small: Path, tmp_path: Path) -> None:
    outcome = expunge("run", small)
    assert outcome.code == 0, outcome.err
    out = tmp_path / "out"
    assert "Forget class 3" in outcome.out
    assert f"Report: {out / 'report.html'}" in outcome.out
    rows = read_csv(out)
    assert tuple(rows[0])[: len(COLUMNS)] == COLUMNS
    expected = {(m, s) for m in ("original", "retrain", "retrain_again", "finetune", "random_label") for s in "01"}
    assert {(row["method"], row["seed"]) for row in rows} == expected
    assert len(rows) == len(expected)
    results = read_json(out / "results.json")
    assert len(results["models"]) == len(expected)
    assert {v["method"] for v in results["verdicts"]} == {"original", "finetune", "random_label"}
    assert "retrain_again" in (out / "report.html").read_text()


def test_the_numbers_are_those_of_retraining(finished: Path) -> None:
    by = {(row["method"], row["seed"]): row for row in read_csv(finished)}
    for seed in "01":
        retrain, original, mine = (by[name, seed] for name in ("retrain", "original", "random_label"))
        assert float(retrain["ua"]) == 100  # it never saw a three, so it calls none so
        assert float(retrain["tfa"]) == 0
        assert float(retrain["avg_gap"]) == 0
        assert float(retrain["tow"]) == 1
        assert float(original["ua"]) < 50
        gaps = [abs(float(mine[n]) - float(retrain[n])) for n in ("ua", "ra", "ta", "mia")]
        assert float(mine["avg_gap"]) == pytest.approx(sum(gaps) / 4)
        assert float(mine["seconds"]) > 0
    assert {row["verdict"] for row in by.values() if row["method"] == "retrain"} == {"reference"}
    assert by["original", "0"]["verdict"] == "no effect"


def test_retraining_is_recomputed_from_the_public_parts(finished: Path, train: ex.Rows, test: ex.Rows) -> None:
    """The audit's retain and unseen accuracy, by hand with the public recipe and a plain count."""
    keep = [i for i, y in zip(train.ids.tolist(), train.y.tolist()) if y != 3]
    model = ex.Recipe(model=SMALL["model"], **SMALL["recipe"])(train, ids=keep, seed=1)
    row = next(r for r in read_csv(finished) if (r["method"], r["seed"]) == ("retrain", "1"))
    for column, rows in (("ra", train), ("ta", test)):
        index = (rows.y != 3).nonzero().flatten()
        with torch.no_grad():
            right = (model(rows.x(index)).argmax(1) == rows.y[index]).double().mean()
        assert float(row[column]) == pytest.approx(100 * float(right))


def test_the_manifest_tells_how_it_was_made_and_its_hashes_hold(finished: Path) -> None:
    manifest = read_json(finished / "manifest.json")
    assert manifest["command"] == "expunge run run.yaml"
    assert manifest["seeds"] == [0, 1]
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["versions"]["expunge"] == ex.__version__
    assert manifest["recipe"]["epochs"] == 3
    assert manifest["request"]["forget"] == 146
    assert set(manifest["files"]) == {"results.json", "results.csv"}
    for name, digest in manifest["files"].items():
        assert file_digest(finished / name) == digest


def test_the_models_load_and_answer_as_the_results_say(finished: Path, train: ex.Rows) -> None:
    by = {(row["method"], row["seed"]): row for row in read_csv(finished)}
    hashes = read_json(finished / "manifest.json")["models"]
    threes = (train.y == 3).nonzero().flatten()
    files = sorted((finished / "models").glob("*.safetensors"))
    assert [f.stem for f in files] == [f"{m}-seed{s}" for m in ("finetune", "original", "random_label") for s in "01"]
    for file in files:
        method, _, seed = file.stem.rpartition("-seed")
        model = ex.models.build("mlp", channels=1, size=8, classes=10, hidden=[32]).eval()
        model.load_state_dict(load_file(file))
        with torch.no_grad():
            wrong = (model(train.x(threes)).argmax(1) != 3).double().mean()
        assert float(by[method, seed]["ua"]) == pytest.approx(100 * float(wrong))
        assert ex.io.model_digest(model) == hashes[f"{method}/{seed}"]


def test_settings_seeds_and_folder_on_the_command_line(expunge: Shell, small: Path, tmp_path: Path) -> None:
    other = tmp_path / "runs: 1 #2"  # no YAML, though it looks like it
    words = ["--set", "methods.0={name: finetune, row: long, epochs: 2}", "--seeds", "3", "--out", other]
    outcome = expunge("run", small, *words)
    assert outcome.code == 0, outcome.err
    rows = read_csv(other)
    assert {row["method"] for row in rows} >= {"long", "random_label"}
    assert {row["seed"] for row in rows if row["method"] == "long"} == {"3"}
    assert {row["seed"] for row in rows if row["method"] == "retrain"} == {"3", "4"}  # one alone has no spread
    settings = [e["settings"] for e in read_json(other / "results.json")["models"] if e["method"] == "long"]
    assert settings[0]["epochs"] == 2
    assert "--seeds 3" in read_json(other / "manifest.json")["command"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seeds", ["", "a", "1-", "3-1", "-1"])
def test_seeds_that_are_none(expunge: Shell, small: Path, seeds: str) -> None:
    assert "Seeds are given as 0-4 or 0,2,5" in expunge.refuses("run", small, f"--seeds={seeds}")


def test_two_processes_give_the_same_rows_as_one(
    expunge: Shell, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Path
) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))  # nothing is there yet
    outcome = expunge("run", small, "--jobs", "2")
    assert outcome.code == 0, outcome.err
    assert numbers(tmp_path / "out") == numbers(finished)


def test_own_data_model_and_training_from_a_module_beside_the_file(expunge: Shell, tmp_path: Path) -> None:
    (tmp_path / "own" / "mine.py").parent.mkdir()
    (tmp_path / "own" / "mine.py").write_text(OWN)
    config: dict[str, Any] = {
        **SMALL,
        "data": {"build": "mine:load"},
        "model": {"build": "mine:build"},
        "recipe": {"train": "mine:train"},
        "methods": ["finetune"],
        "out": str(tmp_path / "out"),
    }
    file = write_yaml(tmp_path / "own" / "run.yaml", config)
    outcome = expunge("run", file)
    assert outcome.code == 0, outcome.err
    by = {(row["method"], row["seed"]): row for row in read_csv(tmp_path / "out")}
    assert float(by["retrain", "0"]["ua"]) == 100
    assert float(by["original", "0"]["ua"]) < 50
    assert read_json(tmp_path / "out" / "manifest.json")["recipe"]["function"].startswith("mine:train#")

    standard = write_yaml(tmp_path / "own" / "run.yaml", {**config, "recipe": SMALL["recipe"]})
    outcome = expunge("run", standard, "--out", tmp_path / "standard", "--jobs", "2")  # a builder with our training
    assert outcome.code == 0, outcome.err
    assert read_json(tmp_path / "standard" / "manifest.json")["recipe"]["model"].startswith("mine:build#")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("data.build=mine", "module:function"),
        ("data.build=absent_module:load", "absent_module:load cannot be imported: ModuleNotFoundError"),
        ("data.build=broken:lead", "broken:lead cannot be imported: AttributeError"),
        ("data.build=broken:load", "broken:load failed: KeyError: 'nothing'"),
        ("data.build=broken:one", "must return a pair"),
        ("data.build=syntax:load", "SyntaxError"),
        ("model.build=broken:one", "must return a torch.nn.Module; it returned int"),
        ("recipe.train=broken:number", "must be a function; it is a int"),
    ],
)
def test_own_code_that_does_not_work(expunge: Shell, tmp_path: Path, setting: str, told: str) -> None:
    (tmp_path / "broken.py").write_text("number = 3\ndef one(): return 1\ndef load(): return {}['nothing']\n")
    (tmp_path / "syntax.py").write_text("def load(:\n")
    config = {**SMALL, setting.split(".")[0]: {}}
    said = expunge.refuses("check", write_yaml(tmp_path / "run.yaml", config), "--set", setting)
    assert told in said


def test_weights_without_a_recipe_are_unlearned_but_not_judged(expunge: Shell, tmp_path: Path, train: ex.Rows) -> None:
    model = ex.Recipe(model=SMALL["model"], **SMALL["recipe"])(train)
    ex.io.save_weights(tmp_path / "w.safetensors", model)
    config = {**SMALL, "model": {**SMALL["model"], "weights": str(tmp_path / "w.safetensors")}, "recipe": None}
    outcome = expunge("run", write_yaml(tmp_path / "run.yaml", config, out=str(tmp_path / "out")))
    assert outcome.code == 0, outcome.err
    rows = read_csv(tmp_path / "out")
    assert {row["method"] for row in rows} == {"original", "finetune", "random_label"}
    assert {row["verdict"] for row in rows} == {"cannot say"}
    assert {(row["avg_gap"], row["tow"]) for row in rows} == {("", "")}
    assert all(float(row["ta"]) > 50 for row in rows)
    assert "cannot say" in (tmp_path / "out" / "report.html").read_text()
    kept = load_file(tmp_path / "out" / "models" / "original-seed0.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())


def test_another_experiment_in_the_folder_is_refused_unless_forced(
    expunge: Shell, small: Path, tmp_path: Path, finished: Path
) -> None:
    shutil.copytree(finished, tmp_path / "out")
    (tmp_path / "out" / "models" / "theirs.safetensors").write_bytes(b"not ours")
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    change = ["--set", "methods=[{name: finetune, row: brief, epochs: 1}]"]
    said = expunge.refuses("run", small, *change)
    assert "holds another experiment: methods differs" in said
    assert "--force" in said
    assert before == {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}

    assert expunge("run", small, *change, "--force").code == 0
    left = {p.name for p in (tmp_path / "out" / "models").iterdir() if not p.name.startswith("original-")}
    assert left == {"brief-seed0.safetensors", "brief-seed1.safetensors", "theirs.safetensors"}


def test_more_seeds_are_the_same_experiment(expunge: Shell, small: Path, tmp_path: Path, finished: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "models").iterdir()}
    outcome = expunge("run", small, "--seeds", "0-2")
    assert outcome.code == 0, outcome.err
    assert all(p.stat().st_mtime_ns == time for p, time in kept.items())
    assert {row["seed"] for row in read_csv(tmp_path / "out")} == {"0", "1", "2"}
    old = {(row["method"], row["seed"]): row["ua"] for row in read_csv(finished)}
    new = {(row["method"], row["seed"]): row["ua"] for row in read_csv(tmp_path / "out")}
    assert all(new[key] == value for key, value in old.items() if key[0] != "retrain_again")


def test_a_run_of_another_version_is_refused(expunge: Shell, small: Path, tmp_path: Path, finished: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    record = tmp_path / "out" / "run.json"
    record.write_text(record.read_text().replace(f'"{ex.__version__}"', '"0.0.1"'))
    said = expunge.refuses("run", small)
    assert "expunge 0.0.1" in said
    assert ex.__version__ in said
    record.write_text("[]")
    expunge.refuses("run", small)
    record.write_text("{")
    assert "run.json" in expunge.refuses("run", small)


def test_a_folder_of_somebody_else_is_refused_and_left_as_it_was(expunge: Shell, small: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "models").mkdir(parents=True)
    (tmp_path / "out" / "models" / "original-seed0.safetensors").write_text("precious")
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    said = expunge.refuses("run", small)
    assert "is not empty" in said
    assert {p.name for p in (tmp_path / "out").rglob("*")} == {"models", "original-seed0.safetensors", "thesis.txt"}
    said = expunge.refuses("run", small, "--set", "methods=[]", "--force")
    assert "holds original-seed0.safetensors, and" in said  # it would be taken for the run's own, or be overwritten
    assert (tmp_path / "out" / "models" / "original-seed0.safetensors").read_text() == "precious"
    (tmp_path / "out" / "models" / "original-seed0.safetensors").rename(
        tmp_path / "out" / "models" / "mine.safetensors"
    )
    outcome = expunge("run", small, "--set", "methods=[]", "--force")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "out" / "models" / "mine.safetensors").read_text() == "precious"
    assert (tmp_path / "out" / "models" / "original-seed0.safetensors").is_file()


def test_a_folder_that_cannot_be_written(expunge: Shell, small: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    assert "is a file; give a folder" in expunge.refuses("run", small, "--out", tmp_path / "file")
    assert "cannot be" in expunge.refuses("run", small, "--out", tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "a file"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_method_that_diverges_fails_alone(expunge: Shell, small: Path, tmp_path: Path, jobs: int) -> None:
    methods = "methods=[{name: finetune, row: wild, lr: 1e30}, {name: finetune, epochs: 1}]"
    outcome = expunge("run", small, "--set", methods, "--jobs", str(jobs))
    assert outcome.code == 0, outcome.err
    said = " ".join(outcome.out.split())
    assert "wild: model damaged. There is no model to judge: The loss became" in said
    results = read_json(tmp_path / "out" / "results.json")
    wild, other = ([m for m in results["models"] if m["method"] == row] for row in ("wild", "finetune"))
    assert [m["seed"] for m in wild] == [0, 1]
    for entry in wild:
        assert entry["measurements"].keys() == other[0]["measurements"].keys()
        for told in entry["measurements"].values():
            assert re.match(r"The loss became \S+ at step \d+ of phase 1\. Lower lr", told["failed"])
        assert entry["hash"] is None
        assert entry["settings"]["lr"] == 1e30
    assert all("value" in m["measurements"]["ua"] for m in other)
    assert not list((tmp_path / "out" / "models").glob("wild*.safetensors"))
    rows = read_csv(tmp_path / "out")
    assert {row["ua"] for row in rows if row["method"] == "wild"} == {""}
    assert "failed: The loss became" in (tmp_path / "out" / "report.html").read_text()
    before = numbers(tmp_path / "out")
    assert expunge("audit", small, "--set", methods).code == 0
    assert numbers(tmp_path / "out") == before


def test_a_recipe_that_diverges_ends_the_run(expunge: Shell, small: Path) -> None:
    assert "Lower lr (now 1e+30)" in expunge.refuses("run", small, "--set", "recipe.lr=1e30")
