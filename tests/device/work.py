"""What is computed on the stand-in device, in a process of its own: `python work.py LIBRARY FOLDER` prints JSON."""

from __future__ import annotations

import copy
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import expunge as ex
from device.stand_in import load
from expunge import registry
from expunge.methods import FineTune, Search, SVDForget
from expunge.run import Run

library, folder = sys.argv[1], Path(sys.argv[2])
load(library)
os.environ["EXPUNGE_CACHE"] = str(folder / "cache")
torch.set_num_threads(1)

ROWS, TEST = ex.data.load("digits")
ROWS, TEST = ROWS.take(torch.arange(600)), TEST.take(torch.arange(200))
CLASS = ex.Request(ROWS, classes=[3])
NETS: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp"},
    "convnet": {"name": "convnet", "width": 8},
    "vit_tiny": {"name": "vit_tiny", "dim": 16, "depth": 2, "heads": 2, "patch": 4},
}
found: dict[str, Any] = {}


def note(what: str, work: Callable[[], Any]) -> None:
    """What came out, or what went wrong and where."""
    try:
        found[what] = work()
    except Exception as error:
        places = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-4:]]
        found[what] = f"{type(error).__name__} at {', '.join(places)}: {str(error)[:200]}"


def recipe(net: str) -> ex.Recipe:
    """Trained with a ledger, so that every method has what it needs."""
    return ex.Recipe(model=NETS[net], epochs=2, lr=0.02, batch_size=64, ledger={"keep": 1.0})


def largest_difference(on_gpu: nn.Module, on_cpu: nn.Module) -> float:
    """Between the weights and buffers of two models; infinite where one is not on the device."""
    pairs = zip(on_gpu.state_dict().values(), on_cpu.state_dict().values())
    return max(
        float((a.cpu().double() - b.double()).abs().max()) if a.device.type == "gpu" else float("inf") for a, b in pairs
    )


def unlearned(model: nn.Module, name: str, net: str) -> nn.Module:
    """By a method at its defaults."""
    needs: dict[str, Any] = {"recipe": recipe(net)} if name == "retrain" else {}
    if "amnesiac" in name:
        needs = {"ledger": ex.Ledger(folder / net), "allow_full": True}
    method: Any = Search(of=FineTune(epochs=1)) if name == "search" else name
    method = SVDForget().then(FineTune(epochs=1)) if name == "chain" else method
    return ex.unlearn(model, CLASS, method, seed=0, **needs, **({"unseen": TEST} if name == "search" else {})).model


def methods(net: str, names: list[str]) -> None:
    """Methods on the device, beside the same on the CPU."""
    model = recipe(net)(ROWS, seed=0, ledger=folder / net)
    for name in names:
        on_cpu = unlearned(copy.deepcopy(model), name, net)
        on_gpu = copy.deepcopy(model).to("gpu")
        note(f"{net}: {name}", lambda: largest_difference(unlearned(on_gpu, name, net), on_cpu))  # noqa: B023


def around_them() -> None:
    """Trainings, audit, explanations, saliency, and a ledger in a loop of one's own."""
    model = recipe("convnet")(ROWS, seed=0).to("gpu")
    images, labels = TEST.x(torch.arange(4)), TEST.y[:4]

    def audit() -> bool:
        report = ex.audit({"original": model}, CLASS, unseen=TEST, recipe=recipe("convnet"), seeds=2, relearn=True)
        return "failed:" not in str(report)

    def own_loop() -> bool:
        net = ex.models.build("mlp", channels=1, size=8, classes=10).to("gpu")
        optimizer = torch.optim.Adam(net.parameters())
        start, ledger = copy.deepcopy(net.state_dict()), ex.Ledger(folder / "own", keep=1.0)
        ledger.watch(net, optimizer)
        for index in torch.arange(600).split(100):
            ledger.uses(ROWS.ids[index.numpy()])
            optimizer.zero_grad()
            loss: Tensor = nn.functional.cross_entropy(net(ROWS.x(index).to("gpu")), ROWS.y[index].to("gpu"))
            loss.backward()
            optimizer.step()
        ledger.close()
        everything = ex.Request(ROWS, ids=ROWS.ids[:550].tolist())  # of all steps
        back = ex.unlearn(net, everything, "amnesiac", ledger=folder / "own", allow_full=True).model
        gap = max(float((v.cpu() - start[name].cpu()).abs().max()) for name, v in back.state_dict().items())
        return gap < 1e-5

    note("audit without a failed number", audit)
    note("ledger gives the beginning back", own_loop)
    note("saliency", lambda: all(v.device.type == "gpu" for v in ex.saliency(model, CLASS).values()))
    note("from a model of the CPU", lambda: _device(ex.unlearn(model.cpu(), CLASS, "finetune", run=Run(device="gpu"))))
    model.to("gpu")
    for name in ("cam", "grad_cam", "integrated_gradients", "saliency"):
        explain = getattr(ex.explain, name)
        note(f"explain: {name}", lambda: _equal(explain(model, images, labels), explain(model.cpu(), images, labels)))  # noqa: B023
        model.to("gpu")


def _device(result: ex.Result) -> bool:
    return next(result.model.parameters()).device.type == "gpu"


def _equal(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a.cpu(), b.cpu(), atol=1e-4)


methods("mlp", registry.names())
methods("convnet", registry.names())
methods("vit_tiny", ["finetune", "svd_forget", "weight_filter", "bad_teacher"])
around_them()
print(json.dumps(found))
