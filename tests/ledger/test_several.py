"""A ledger of a training in several processes is that of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from training import net

import expunge as ex
from kit import bits
from processes import run_two

pytest.importorskip("accelerate", reason="accelerate is not installed")

RECIPE = {"model": {"name": "mlp", "hidden": [24]}, "epochs": 2, "batch_size": 64, "ledger": {"keep": 1.0}}

SCRIPT = """
import sys
sys.path[:0] = {paths!r}
import torch
torch.set_num_threads(1)
from accelerate import Accelerator
import expunge as ex
import test_several as t
from expunge.run import Run
accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
train, _ = ex.data.load("digits")
recipe, index = ex.Recipe(**t.RECIPE), torch.arange(len(train))
ledger = recipe.open_ledger("{out}/recipe", train, index, Run())
model, _ = recipe.train(train, index, Run(accelerator=accelerator, progress=False), None, ledger)
accelerator.wait_for_everyone()
if accelerator.process_index == 0:
    ex.io.save_weights("{out}/recipe.safetensors", model)
t.own_loop(accelerator, train, "{out}/own")
torch.distributed.destroy_process_group()
"""


def own_loop(accelerator, train, folder: str) -> None:
    """A user's loop under accelerate: two batches of each process go into a step."""
    model = net()
    wrapped, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    ledger = ex.Ledger(folder, keep=1.0)
    ledger.watch(wrapped, optimizer, accumulate=2)
    batches = torch.arange(160).view(-1, 2, 20)  # step by step, for each process
    for number, pair in enumerate(batches):
        mine = pair[accelerator.process_index]
        ledger.uses(train.ids[mine.numpy()])
        loss = F.cross_entropy(wrapped(train.x(mine)), train.y[mine])
        accelerator.backward(loss / 2)
        if number % 2:
            optimizer.step()
            optimizer.zero_grad()
    ledger.close()
    accelerator.wait_for_everyone()


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    here = Path(__file__).parent
    run_two(SCRIPT.format(paths=[str(here), str(here.parent)], out=folder))
    return folder


def test_a_recipe_in_two_processes_fills_one_ledger(out, train, tmp_path):
    model = ex.Recipe(**RECIPE)(train, ledger=tmp_path / "one")
    one, two = ex.Ledger(tmp_path / "one"), ex.Ledger(out / "recipe")
    assert two.steps == one.steps == 46
    assert not two.verify()
    for step in (1, 20, 46):
        ids = [ledger.reader().journal.ids_of([step]) for ledger in (one, two)]
        assert sorted(ids[0]) == sorted(ids[1])
    steps = range(1, 47)
    a, b = one.reader().total(steps), two.reader().total(steps)
    assert all(torch.allclose(a[n], b[n], atol=1e-5) for n in a)
    trained = ex.Recipe(**RECIPE).blank(train)
    ex.io.load_weights(out / "recipe.safetensors", trained)
    assert two.ends_at(trained)
    assert bits(trained).keys() == bits(model).keys()


def test_what_each_process_uses_is_put_together(out, train):
    ledger = ex.Ledger(out / "own")
    assert ledger.steps == 2
    journal = ledger.reader().journal
    assert sorted(journal.ids_of([1])) == train.ids[:80].tolist()
    assert sorted(journal.ids_of([2])) == train.ids[80:160].tolist()
    assert ledger.touched([train.ids[100].item()]).steps.tolist() == [2]
