"""Several processes train the same model as one."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from kit import bits
from processes import run_two

pytest.importorskip("accelerate", reason="accelerate is not installed")

from expunge.descend import descend
from expunge.phase import Phase, Term
from expunge.run import Run
from expunge.surrogate import Relabel
from expunge.task import Classification

TASK = Classification(classes=10)
# 7 rows of forget beside 203 of retain: batches that two processes cannot share evenly, or at all
PARTS = {"retain": torch.arange(100, 303), "forget": torch.arange(7)}
RETAIN, UP, FLIP = Term("retain"), Term("forget", weight=-0.3), Term("forget", surrogate=Relabel())
SETTINGS = {
    "plain": {"terms": (RETAIN,)},
    "together": {"terms": (RETAIN, UP), "clip_norm": 0.5},
    "in_turn": {"terms": (FLIP, RETAIN), "mix": "in_turn", "batch_size": 3, "lr": 0.01},
    "grouped": {"terms": (RETAIN,), "groups": torch.arange(1438) // 37, "groups_per_batch": 2},
    "shuffled": {"terms": (FLIP, RETAIN, UP), "mix": "shuffled", "batch_size": 10},
    "adam": {"terms": (RETAIN,), "optimizer": "adam", "lr": 1e-3},
    "penalty": {"terms": (RETAIN,), "penalty": lambda model, t: 1e-3 * sum(p.abs().sum() for p in model.parameters())},
    "ceiling": {"terms": (UP,), "batch_size": 3, "epochs": 40, "ceiling": 3.0},
}


def phase(name: str) -> Phase:
    return Phase(**{"epochs": 2, "lr": 0.05, "batch_size": 64, **SETTINGS[name]})


def start() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10)
        )


def test_one_process_with_accelerate_is_one_without(train, net):
    from accelerate import Accelerator

    other = copy.deepcopy(net)
    p = Phase(terms=(RETAIN, FLIP), epochs=2, lr=0.05, mix="shuffled")
    logs = [
        descend(net, train, PARTS, TASK, [p], Run()),
        descend(other, train, PARTS, TASK, [p], Run(accelerator=Accelerator(cpu=True))),
    ]
    assert bits(net) == bits(other)
    assert logs[0].losses == logs[1].losses


WORKER = """
import json, sys
sys.path[:0] = {paths!r}
import torch
torch.set_num_threads(1)
from accelerate import Accelerator
from safetensors.torch import save_file
import expunge as ex
import test_accelerate as t
accelerator = Accelerator(cpu=True)
run = t.Run(accelerator=accelerator, progress=False)
train, _ = ex.data.load("digits")
logs = {{}}
for name in t.SETTINGS:
    model = t.start()
    log = t.descend(model, train, t.PARTS, t.TASK, [t.phase(name)], run)
    logs[name] = [log.steps, log.examples, log.stopped]
    save_file(model.state_dict(), f"{out}/{{name}}-{{accelerator.process_index}}.safetensors")
assert accelerator.num_processes == 2
with open(f"{out}/{{accelerator.process_index}}.json", "w") as file:
    json.dump(logs, file)
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Path:
    """The folder in which two gloo processes on this machine have left their models."""
    out = tmp_path_factory.mktemp("two")
    here = Path(__file__).parent
    script = WORKER.format(paths=[str(here), str(here.parent)], out=out)
    run_two(script)
    return out


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_train_the_same_model_as_one(name, two_processes, train):
    from safetensors.torch import load_file

    model = start()
    log = descend(model, train, PARTS, TASK, [phase(name)], Run())
    first, second = (load_file(two_processes / f"{name}-{rank}.safetensors") for rank in range(2))
    initial = start().state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(first[key], second[key])
        torch.testing.assert_close(first[key], value, atol=1e-5, rtol=0)
        assert not torch.equal(value, initial[key])
    for rank in range(2):
        logs = json.loads((two_processes / f"{rank}.json").read_text())
        assert logs[name] == [log.steps, log.examples, log.stopped]
    assert bool(log.stopped) == (name == "ceiling")
