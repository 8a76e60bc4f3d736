"""A training that is killed, with its ledger and its checkpoint: no step lost, none twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import expunge as ex
from expunge import ExpungeError
from expunge.artifact import Store, TrainingCheckpoint
from expunge.pool import Pool
from expunge.run import Run
from kit import bits

SCRIPT = """
import sys, torch
torch.set_num_threads(1)
import expunge as ex
from expunge.artifact import TrainingCheckpoint
from expunge.run import Run
train, _ = ex.data.load("digits")
recipe = ex.Recipe(model={"name": "mlp", "hidden": [24]}, epochs=12, batch_size=48, ledger={"keep": 0.2})
index = torch.arange(len(train))
ledger = recipe.open_ledger(sys.argv[1] + "/ledger", train, index, Run())
print("begins", flush=True)
model, _ = recipe.train(train, index, Run(), TrainingCheckpoint(sys.argv[1] + "/point.safetensors", every=0), ledger)
ex.io.save_weights(sys.argv[1] + "/model.safetensors", model)
print("done", flush=True)
"""


def contents(folder: Path) -> list:
    ledger = ex.Ledger(folder)
    assert not ledger.verify()
    journal = ledger.reader().journal
    return [(step, payload, sorted(journal.ids_of([step]))) for step, payload in journal.read(journal.steps())]


def test_a_killed_training_goes_on_with_a_ledger_that_matches(tmp_path):
    def run(folder: str, after: float | None) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path / folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        if after is not None:
            time.sleep(after)
            process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        process.wait()
        return rest

    began = time.monotonic()
    assert "done" in run("whole", None)
    length = time.monotonic() - began
    draw, kills = random.Random(0), 0
    for _ in range(4):
        if "done" not in run("killed", draw.uniform(0.1, 0.5) * length / 3):
            kills += 1
    assert "done" in run("killed", None)
    assert kills
    assert contents(tmp_path / "killed" / "ledger") == contents(tmp_path / "whole" / "ledger")
    weights = [(tmp_path / f / "model.safetensors").read_bytes() for f in ("killed", "whole")]
    assert weights[0] == weights[1]


RECIPE = {"model": {"name": "mlp", "hidden": [24]}, "epochs": 4, "batch_size": 64}


class Interrupting(TrainingCheckpoint):
    """Ends the training at the start of an epoch."""

    def __init__(self, path: Path, at: int) -> None:
        super().__init__(path, every=0)
        self.at = at

    def save(self, model, optimizer, phase: int, epochs: int) -> None:
        super().save(model, optimizer, phase, epochs)
        if epochs == self.at:
            raise KeyboardInterrupt


def test_an_interrupted_training_rewinds_the_ledger_to_its_checkpoint(train, tmp_path):
    recipe, index = ex.Recipe(**RECIPE, ledger={"keep": 1.0}), torch.arange(len(train))
    ledger = recipe.open_ledger(tmp_path / "a", train, index, Run())
    with pytest.raises(KeyboardInterrupt):
        recipe.train(train, index, Run(), Interrupting(tmp_path / "point", 2), ledger)
    ledger.close()
    again = recipe.open_ledger(tmp_path / "a", train, index, Run())
    resumed, _ = recipe.train(train, index, Run(), TrainingCheckpoint(tmp_path / "point", every=0), again)
    whole = recipe.open_ledger(tmp_path / "b", train, index, Run())
    straight, _ = recipe.train(train, index, Run(), None, whole)
    assert bits(resumed) == bits(straight)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_checkpoint_whose_ledger_is_lost_begins_again(train, tmp_path):
    recipe, index = ex.Recipe(**RECIPE, ledger={"keep": 1.0}), torch.arange(len(train))
    lost = recipe.open_ledger(tmp_path / "lost", train, index, Run())
    with pytest.raises(KeyboardInterrupt):
        recipe.train(train, index, Run(), Interrupting(tmp_path / "point", 2), lost)
    lost.close()
    other = recipe.open_ledger(tmp_path / "other", train, index, Run())
    model, _ = recipe.train(train, index, Run(), TrainingCheckpoint(tmp_path / "point", every=0), other)
    assert other.steps == 4 * 23
    assert other.ends_at(model)


def test_a_step_that_was_never_marked_is_no_place_to_go_back_to(train, tmp_path):
    recipe = ex.Recipe(**RECIPE, ledger={"keep": 0.5})
    recipe(train, ledger=tmp_path)
    ledger = ex.Ledger(tmp_path)
    with pytest.raises(ExpungeError, match="holds 92 steps and cannot be rewound to step 93"):
        ledger.rewind(93)
    with pytest.raises(ExpungeError, match=r"Step 30 was never marked.*23, 46, 69, 92"):
        ledger.rewind(30)
    ledger.rewind(46)
    assert ledger.steps == 46


def test_the_pool_keeps_a_ledger_and_finds_it_again(train, tmp_path):
    plain = ex.Recipe(**RECIPE)
    recipe = ex.Recipe(**RECIPE, ledger={"keep": 0.5})
    index, store = torch.arange(len(train)), Store(tmp_path)
    first = Pool(plain, train, store).train(index, Run())
    made, ledger = Pool(recipe, train, store).recorded(index, Run())  # the same training, now with a ledger
    assert bits(first.model) == bits(made.model)
    kept, same = Pool(recipe, train, store).recorded(index, Run())
    assert kept.cached
    assert same.path == ledger.path
    assert same.ends_at(kept.model)
    with pytest.raises(ExpungeError, match="Only a recipe with a ledger"):
        Pool(plain, train, store).recorded(index, Run())


def test_a_model_trained_by_a_recipe_remembers_its_ledger(train, tmp_path, monkeypatch):
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path))
    model = ex.Recipe(**RECIPE, ledger={"keep": 0.5})(train)
    result = ex.unlearn(model, ex.Request(train, ids=train.ids[:1].tolist()), "partial_amnesiac")
    assert result.log.facts["touched"]["steps"] == 4
    assert json.dumps(result.log.facts)
    assert os.path.isdir(model._expunge_ledger)


def test_what_rounding_lost_is_carried_on_alike_after_an_interruption(train, tmp_path):
    settings = {"keep": 0.3, "values": "float16", "carry": True}
    recipe, index = ex.Recipe(**RECIPE, ledger=settings), torch.arange(len(train))
    ledger = recipe.open_ledger(tmp_path / "a", train, index, Run())
    with pytest.raises(KeyboardInterrupt):
        recipe.train(train, index, Run(), Interrupting(tmp_path / "point", 2), ledger)
    recipe.train(train, index, Run(), TrainingCheckpoint(tmp_path / "point", every=0), ledger)  # the lock is free again
    recipe.train(train, index, Run(), None, recipe.open_ledger(tmp_path / "b", train, index, Run()))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_training_again_keeps_what_was_taken_back(train, tmp_path):
    recipe = ex.Recipe(**RECIPE, ledger={"keep": 0.5})
    model = recipe(train, ledger=tmp_path)
    request = ex.Request(train, ids=train.ids[:1].tolist())
    result = ex.unlearn(model, request, "partial_amnesiac", ledger=tmp_path)
    ex.Ledger(tmp_path).purge(result.model)
    again = recipe(train, ledger=tmp_path)
    assert bits(again) == bits(model)
    assert len(ex.Ledger(tmp_path).deletions) == 1
    with pytest.raises(ExpungeError, match="took part in no step"):
        ex.Ledger(tmp_path).touched(request)
    other = ex.unlearn(again, ex.Request(train, ids=train.ids[7:8].tolist()), "partial_amnesiac", ledger=tmp_path)
    assert "control" in other.log.facts  # purged steps are no part of it


def test_a_ledger_knows_the_rows_that_were_trained_on(train, tmp_path):
    recipe = ex.Recipe(**RECIPE, ledger={"keep": 0.5})
    recipe(train, ids=train.ids[:300], ledger=tmp_path)
    ledger = ex.Ledger(tmp_path)
    threes = ledger.of_classes([3])
    assert set(threes) == set(train.ids[:300][(train.y[:300] == 3).numpy()].tolist())
    assert ledger.touched(threes).random == pytest.approx(ledger.touched(threes).share, abs=0.1)
