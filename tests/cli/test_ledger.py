"""`expunge ledger`, and a run whose recipe has a ledger."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import expunge as ex
from shell import SMALL, Shell, read_json, write_yaml

RECORDED = {
    **SMALL,
    "request": {"ids": [0, 1]},
    "recipe": {**SMALL["recipe"], "ledger": {"keep": 1.0}},
    "methods": ["amnesiac", {"name": "partial_amnesiac", "keep": 0.05}],
}


@pytest.fixture(scope="module")
def ran(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a ledger."""
    from expunge.conduct import conduct
    from expunge.experiment import from_dict

    out = tmp_path_factory.mktemp("recorded") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPUNGE_CACHE", str(cache))
        conduct(from_dict({**RECORDED, "out": str(out)}), command="expunge run run.yaml")
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A ledger of one's own."""
    train, _ = ex.data.load("digits", limit=300)
    recipe = ex.Recipe(model={"name": "mlp", "hidden": [16]}, epochs=3, batch_size=32, ledger={"keep": 0.1})
    recipe(train, ledger=tmp_path / "ledger")
    return tmp_path / "ledger"


def test_a_second_request_is_told_the_verb_that_serves_it_and_is_served_by_it(
    expunge: Shell, ran: Path, tmp_path: Path
) -> None:
    weights = ran / "models" / "amnesiac-seed0.safetensors"
    config = {**RECORDED, "model": {**SMALL["model"], "weights": str(weights)}, "request": {"ids": [2]}}
    said = expunge.refuses("check", write_yaml(tmp_path / "run.yaml", config))
    assert said.count("from weights that exist, expunge unlearn --ledger FOLDER subtracts") == 2  # for each method
    ledger = tmp_path / "ledger"
    shutil.copytree(read_json(ran / "ledgers.json")["0"], ledger)  # which a deletion is written into
    (tmp_path / "ids.csv").write_text("id\n2\n")
    words = ["--model", "mlp", "--model-set", "hidden=[32]", "--weights", weights, "--data", "digits"]
    words += ["--ids", tmp_path / "ids.csv", "--method", "amnesiac", "--set", "allow_full=true", "--ledger", ledger]
    outcome = expunge("unlearn", *words, "--set", "control=false", "--out", tmp_path / "second")
    assert outcome.code == 0, outcome.err
    assert "(2 more are already gone)" in outcome.out


def test_it_says_what_a_class_would_touch(expunge: Shell, folder: Path) -> None:
    said = expunge("ledger", folder, "--classes", "3").out
    train, _ = ex.data.load("digits", limit=300)
    threes = train.ids[(train.y == 3).numpy()].tolist()
    touched = ex.Ledger(folder).touched(threes)
    assert len(touched.steps) >= 25
    share = 100 * len(touched.steps) / 30
    expected = 100 * (1 - np.prod([(270 - i) / (300 - i) for i in range(30)]))  # 30 of 300 rows, batches of 30
    touches = f"{len(touched.steps)} of 30 steps ({share:.1f} %; random batches: {expected:.1f}"
    assert f"30 rows took part in {touches}" in said
    assert "the model suffers" in said or "Every step is touched" in said
    assert "30 steps of SGD, 1,210 weights in 4 tensors; record: update, keep: 0.1, values: float32." in said


def test_it_states_how_far_values_are_rounded(expunge: Shell, folder: Path, tmp_path: Path) -> None:
    assert "Rounded" not in expunge("ledger", folder).out
    train, _ = ex.data.load("digits", limit=300)
    settings = {"keep": 0.1, "values": "bfloat16"}
    recipe = ex.Recipe(model={"name": "mlp", "hidden": [16]}, epochs=1, batch_size=32, ledger=settings)
    recipe(train, ledger=tmp_path / "rounded")
    ledger = ex.Ledger(tmp_path / "rounded")
    largest = max(float(total.abs().max()) for s in ledger.stored for total in ledger.reader().total([s]).values())
    assert 0 < ledger.error <= largest * 2**-8  # half a unit in the last of eight bits
    said = f"Rounded to bfloat16: no recorded value is off by more than {ledger.error:.2g}."
    assert said in expunge("ledger", tmp_path / "rounded").out


def test_rows_are_forgotten_and_purged_by_one_command(expunge: Shell, tmp_path: Path) -> None:
    train, _ = ex.data.load("digits")
    recipe = ex.Recipe(model={"name": "mlp", "hidden": [16]}, batch_size=64, epochs=1, ledger={"keep": 1.0})
    ex.io.save_weights(tmp_path / "mlp.safetensors", recipe(train, ledger=tmp_path / "ledger"))
    ids = train.ids[[0, 1]].tolist()
    (tmp_path / "ids.txt").write_text("\n".join(map(str, ids)))
    words: list[object] = ["unlearn", "--model", "mlp", "--model-set", "hidden=[16]", "--data", "digits", "--purge"]
    words += ["--weights", tmp_path / "mlp.safetensors", "--ids", tmp_path / "ids.txt", "--method", "amnesiac"]
    assert "give --ledger as well" in expunge.refuses(*words, "--out", tmp_path / "out")
    touched = ex.Ledger(tmp_path / "ledger").touched(ids)
    outcome = expunge(*words, "--out", tmp_path / "out", "--ledger", tmp_path / "ledger")
    assert outcome.code == 0, outcome.err
    ledger = ex.Ledger(tmp_path / "ledger")
    assert ledger.purges[-1] in outcome.out
    assert set(ledger.stored.tolist()).isdisjoint(touched.steps)
    with pytest.raises(ex.ExpungeError, match="2 of 2 ids took part in no step that the ledger holds"):
        ledger.touched(ids)
    assert (tmp_path / "out" / "weights.safetensors").exists()


def test_it_reads_ids_from_a_file_and_verifies(expunge: Shell, folder: Path, tmp_path: Path) -> None:
    train, _ = ex.data.load("digits", limit=300)
    wanted = train.ids[:2].tolist()
    (tmp_path / "gone.csv").write_text("id,why\n" + "".join(f"{i},asked\n" for i in wanted))
    outcome = expunge("ledger", folder, "--ids", tmp_path / "gone.csv", "--verify")
    assert outcome.code == 0
    assert "Every record is there and intact." in outcome.out
    touched = ex.Ledger(folder).touched(wanted)
    assert f"2 rows took part in {len(touched.steps)} of 30 steps" in outcome.out
    assert 3 <= len(touched.steps) <= 6


def test_a_flipped_byte_is_found_and_named(expunge: Shell, folder: Path) -> None:
    (shard,) = [p for p in folder.iterdir() if p.suffix not in (".json", ".safetensors") and "shard" in p.name]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    outcome = expunge("ledger", folder, "--verify")
    assert outcome.code == 1
    assert shard.name in outcome.out
    assert "step" in outcome.out


def test_classes_and_ids_are_taken_as_for_unlearning(expunge: Shell, folder: Path) -> None:
    both = expunge("ledger", folder, "--classes", "3,4").out
    for several in (["--classes", "3", "--classes", "4"], ["--classes", "[3, 4]"]):
        assert expunge("ledger", folder, *several).out == both
    assert "60 rows took part" in both
    assert "--ids takes one file; got a, b" in expunge.refuses("ledger", folder, "--ids", "a", "--ids", "b")


def test_what_it_refuses(expunge: Shell, folder: Path, tmp_path: Path) -> None:
    assert "There is no ledger in" in expunge.refuses("ledger", tmp_path)
    assert "Unknown class 'horse'" in expunge.refuses("ledger", folder, "--classes", "horse")
    (tmp_path / "ids.txt").write_text("77777\n")
    assert "1 of 1 ids took part in no step" in expunge.refuses("ledger", folder, "--ids", tmp_path / "ids.txt")
    shutil.copytree(folder, tmp_path / "old")
    (tmp_path / "old" / "ledger.json").write_text('{"format": 99}')
    assert "has format 99; this expunge reads format 1" in expunge.refuses("ledger", tmp_path / "old")


def test_a_run_keeps_its_ledgers_and_draws_them(expunge: Shell, ran: Path) -> None:
    said = expunge("ledger", ran, "--classes", "3").out
    assert said.count("Ledger /") == 2
    assert "Deletion of" in said
    told = read_json(ran / "results.json")["ledger"]
    assert told["steps"] == 69
    assert [p["step"] for p in told["training"]][::16] == [0, 69]
    assert set(told["unlearning"]) == set(told["affected"]) == {"amnesiac", "partial_amnesiac"}
    page = (ran / "report.html").read_text()
    for heading in ("Along training and unlearning", "How many steps a model can lose", "Is it the right steps?"):
        assert heading in page


def test_replayed_accuracy_is_that_of_the_models(ran: Path, cache: Path) -> None:
    """The last point of the training is the original, the last of a subtraction the unlearned model."""
    results = read_json(ran / "results.json")
    told, train = results["ledger"], ex.data.load("digits")[0]
    _, unseen = ex.data.load("digits")
    for row, points in (("original", told["training"]), ("amnesiac", told["unlearning"]["amnesiac"])):
        model = ex.Recipe(model=RECORDED["model"]).blank(train)
        ex.io.load_weights(ran / "models" / f"{row}-seed0.safetensors", model)
        right = (model.eval()(unseen.x(torch.arange(len(unseen)))).argmax(1) == unseen.y).float().mean()
        assert points[-1]["retained"] == pytest.approx(100 * float(right), abs=0.01)


def test_the_control_stands_in_the_results(ran: Path) -> None:
    for model in read_json(ran / "results.json")["models"]:
        if model["method"] in ("amnesiac", "partial_amnesiac"):
            control = model["facts"]["control"]
            assert control["steps"] == model["facts"]["touched"]["subtracted"]
            assert set(control["after"]) == {"forget", "retain"}


def test_check_tells_what_the_ledger_will_not_hold(expunge: Shell, tmp_path: Path) -> None:
    small = {**RECORDED, "recipe": {**SMALL["recipe"], "ledger": {"keep": 0.01}}, "out": str(tmp_path / "out")}
    said = expunge.refuses("check", write_yaml(tmp_path / "a.yaml", small))
    assert "amnesiac takes back whole updates" in said
    assert "keep is 0.05, and the ledger holds a share of 0.01" in said
    none = {**RECORDED, "recipe": SMALL["recipe"], "out": str(tmp_path / "out")}
    assert "needs the updates of the training" in expunge.refuses("check", write_yaml(tmp_path / "b.yaml", none))
    odd = {**RECORDED, "recipe": {**SMALL["recipe"], "ledger": {"kept": 1}}, "out": str(tmp_path / "out")}
    assert "Unknown setting of ledger 'kept'" in expunge.refuses("check", write_yaml(tmp_path / "c.yaml", odd))


def test_unlearning_with_a_ledger_says_what_it_touched(expunge: Shell, folder: Path, tmp_path: Path) -> None:
    train, _ = ex.data.load("digits")
    recipe = ex.Recipe(model={"name": "mlp", "hidden": [16]}, epochs=3, batch_size=32, ledger={"keep": 0.1})
    ex.io.save_weights(tmp_path / "model.safetensors", recipe(train, ledger=tmp_path / "all"))
    (tmp_path / "ids.txt").write_text(f"{train.ids[0]}\n")
    words = ["unlearn", "--model", "mlp", "--model-set", "hidden=[16]", "--weights", tmp_path / "model.safetensors"]
    words += ["--data", "digits", "--ids", tmp_path / "ids.txt", "--method", "partial_amnesiac"]
    outcome = expunge(*words, "--ledger", tmp_path / "all", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert "1 row took part in 3 of 135 steps (2.2 %" in outcome.out
    assert "Control, 3 other steps subtracted" in outcome.out
    assert read_json(tmp_path / "out" / "manifest.json")["facts"]["touched"]["steps"] == 3
    assert "give ledger=" in expunge.refuses(*words, "--out", tmp_path / "other")
    assert "belongs to another data" in expunge.refuses(*words, "--ledger", folder, "--out", tmp_path / "more")


def test_unlearning_takes_the_folder_of_a_run_as_well(expunge: Shell, folder: Path, tmp_path: Path) -> None:
    from expunge.cli.ledger import only_ledger

    (tmp_path / "run").mkdir()
    ex.io.write_json(tmp_path / "run" / "ledgers.json", {"0": str(folder)})
    assert only_ledger(tmp_path / "run") == only_ledger(folder) == folder
    ex.io.write_json(tmp_path / "run" / "ledgers.json", {"0": str(folder), "1": "elsewhere"})
    with pytest.raises(ex.ExpungeError, match="has 2 ledgers, one for each seed"):
        only_ledger(tmp_path / "run")
    with pytest.raises(ex.ExpungeError, match="There is no ledger in"):
        only_ledger(tmp_path)


def test_a_run_whose_ledger_was_purged_can_be_drawn_again(
    expunge: Shell, ran: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, out = tmp_path / "cache", tmp_path / "out"
    shutil.copytree(cache, mine)
    shutil.copytree(ran, out)
    monkeypatch.setenv("EXPUNGE_CACHE", str(mine))
    place = Path(read_json(out / "ledgers.json")["0"])
    model = ex.models.build("mlp", hidden=[32], channels=1, size=8, classes=10)
    ex.io.load_weights(out / "models" / "amnesiac-seed0.safetensors", model)
    assert ex.Ledger(mine / place.relative_to(cache)).purge(model)
    (out / "report.html").unlink()
    file = write_yaml(tmp_path / "run.yaml", RECORDED, out=str(out))
    outcome = expunge("run", file)
    assert outcome.code == 0, outcome.err
    assert "The ledger cannot be retraced" in " ".join(outcome.out.split())
    assert (out / "report.html").is_file()
