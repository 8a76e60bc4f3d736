"""Optimisers by name and of one's own, in the one loop."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim

import expunge as ex
from expunge import ExpungeError, Region
from expunge.artifact.checkpoint import TrainingCheckpoint
from expunge.descend import descend
from expunge.methods.finetune import FineTune
from expunge.optimizers import around_step, names
from expunge.phase import Phase, Term
from expunge.run import Run
from expunge.task import Classification
from kit import accuracy, bits

TASK = Classification(classes=10)
RATES = {"adafactor": 0.1, "adadelta": 1.0, "adagrad": 0.02, "asgd": 0.1, "sgd": 0.02, "radam": 0.02, "rmsprop": 3e-4}
MINE = {
    "rmsprop": lambda p: optim.RMSprop(p, 1e-3, weight_decay=0.01, momentum=0.7),
    "RMSprop": lambda p: optim.RMSprop(p, 1e-3, weight_decay=0.01, momentum=0.7),
    "adagrad": lambda p: optim.Adagrad(p, 1e-3, weight_decay=0.01),
    "nadam": lambda p: optim.NAdam(p, 1e-3, weight_decay=0.01),
    "adafactor": lambda p: optim.Adafactor(p, 1e-3, weight_decay=0.01),
    "rprop": lambda p: optim.Rprop(p, 1e-3),
}


def parts(train) -> dict:
    return {"all": torch.arange(len(train))}


def phase(optimizer, **fields) -> Phase:
    lr = RATES.get(optimizer, 2e-3) if isinstance(optimizer, str) else 2e-3
    settings = {"terms": (Term("all"),), "epochs": 2, "lr": lr, "batch_size": 64, "optimizer": optimizer}
    return Phase(**{**settings, **fields})


def loop(model, train, *phases: Phase, **more):
    return descend(model, train, parts(train), TASK, phases, Run(seed=2), **more)


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def by_hand(model, train, make, p: Phase):
    optimizer, run = make(model.parameters()), Run(seed=2)
    for epoch in range(p.epochs):
        for picks in p.plan(parts(train), run.generator("plan", 0, epoch)):
            index = picks[0][1]
            optimizer.zero_grad()
            F.cross_entropy(model(train.x(index)), train.y[index]).backward()
            optimizer.step()
    return model


def test_all_that_pytorch_has_but_those_that_cannot_serve():
    kinds = {name.lower() for name in dir(optim) if isinstance(getattr(optim, name), type)}
    assert set(names()) == kinds - {"optimizer", "lbfgs", "sparseadam", "muon"}
    assert {"sgd", "adam", "adamw", "rmsprop", "adagrad", "nadam"} <= set(names())


@pytest.mark.parametrize("name", MINE)
def test_it_is_plain_training_with_the_settings_that_the_optimiser_has(name, train):
    p = phase(name, lr=1e-3, weight_decay=0.01, momentum=0.7)
    model = net()
    loop(model, train, p)
    assert bits(model) == bits(by_hand(net(), train, MINE[name], p))


@pytest.mark.parametrize("name", names())
def test_each_of_them_learns_digits(name, train, test):
    model = net()
    loop(model, train, phase(name, epochs=6, schedule="constant" if name == "rprop" else "one_cycle"))
    assert accuracy(model, test) > 0.8


@pytest.mark.parametrize("name", names())
def test_outside_the_region_every_bit_stays(name, train):
    model = net()
    random = torch.Generator().manual_seed(1)
    scores = {n: torch.rand(p.shape, generator=random) for n, p in model.named_parameters()}
    region, before = Region.top(scores, 0.3), copy.deepcopy(model)
    loop(model, train, phase(name), phase(name, weight_decay=0.1), region=region)
    for (n, p), old in zip(model.named_parameters(), before.parameters()):
        mask = region.masks[n]
        assert p[~mask].detach().numpy().tobytes() == old[~mask].detach().numpy().tobytes(), n
        assert not torch.equal(p[mask], old[mask]), n


@pytest.mark.parametrize("name", [name for name in names() if name not in ("sgd", "adam", "adamw")])
def test_an_interrupted_training_ends_with_the_same_bits(name, train, tmp_path):
    class Interrupting(TrainingCheckpoint):
        def save(self, *about) -> None:
            super().save(*about)
            raise KeyboardInterrupt

    p, path = phase(name, schedule="one_cycle"), tmp_path / "state.safetensors"
    whole, broken, resumed = net(), net(), net()
    loop(whole, train, p)
    with pytest.raises(KeyboardInterrupt):
        loop(broken, train, p, checkpoint=Interrupting(path, every=0))
    again = loop(resumed, train, p, checkpoint=TrainingCheckpoint(path, every=1e9))
    assert len(again.losses) == 1
    assert bits(resumed) == bits(whole)


def test_a_function_makes_its_own_and_the_schedule_drives_it(train):
    rates = []

    def make(parameters):
        made = optim.RMSprop(parameters, lr=123.0, alpha=0.9)
        made.register_step_pre_hook(lambda o, args, kwargs: rates.append(o.param_groups[0]["lr"]))
        return made

    p = phase(make, lr=0.01, schedule="cosine", epochs=1)
    loop(net(), train, p)
    assert rates == pytest.approx([0.01 * p.rate(i / len(rates)) for i in range(len(rates))])
    flat, mine = phase(lambda q: optim.RMSprop(q, alpha=0.9), lr=1e-3), net()
    loop(mine, train, flat)
    assert bits(mine) == bits(by_hand(net(), train, lambda q: optim.RMSprop(q, 1e-3, alpha=0.9), flat))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("rmspro", "Did you mean 'rmsprop'"),
        ("LBFGS", "optimizer LBFGS does not serve: it computes its loss several times"),
        ("sparseadam", "sparse gradients only"),
        ("muon", "matrices only"),
        ("optimizer", "Unknown optimizer 'optimizer'"),
        (3, "Unknown optimizer '3'"),
    ],
)
def test_what_is_no_optimiser_is_refused(given, told):
    for make in (lambda: phase(given), lambda: ex.Recipe(optimizer=given)):
        with pytest.raises(ExpungeError) as refusal:
            make()
        assert told in str(refusal.value)
    if isinstance(given, str):
        with pytest.raises(ExpungeError) as refusal:
            FineTune(optimizer=given)
        assert told in str(refusal.value)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda p: None, "it returned NoneType"),
        (lambda p: p.missing, "failed: AttributeError"),
        (optim.LBFGS, "LBFGS does not serve"),
    ],
)
def test_a_function_that_makes_none_is_refused_before_the_first_step(make, told, train):
    model = net()
    before = bits(model)
    with pytest.raises(ExpungeError, match="optimizer") as refusal:
        loop(model, train, phase(make))
    assert told in str(refusal.value)
    assert bits(model) == before


def first(parameters):
    return optim.RMSprop(parameters)


def second(parameters):
    return optim.RMSprop(parameters, alpha=0.5)


def test_a_function_is_told_as_plain_data_by_name_and_source(train):
    told = [ex.Recipe(optimizer=make).describe()["optimizer"] for make in (first, second)]
    assert told[0] != told[1]
    assert told[0].startswith(f"{__name__}:first#")
    assert FineTune(optimizer=first).to_config()["optimizer"] == told[0]
    result = ex.unlearn(net(), ex.Request(train, classes=[3]), "finetune", epochs=1, optimizer=first)
    json.dumps(result.method.to_config())


def test_yaml_names_a_function_as_it_names_other_code(tmp_path, monkeypatch):
    from expunge.experiment import from_dict
    from shell import SMALL

    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_optimiser.py").write_text("import torch\ndef make(p): return torch.optim.NAdam(p)\n")
    step = {"name": "finetune", "optimizer": "own_optimiser:make"}
    config = {
        **SMALL,
        "recipe": {**SMALL["recipe"], "optimizer": "own_optimiser:make"},
        "methods": [step, {"name": "chain", "steps": [step]}],
    }
    experiment = from_dict(config)
    made = experiment.recipe.optimizer([nn.Parameter(torch.zeros(1))])
    assert isinstance(made, optim.NAdam)
    told = [method.to_config() for method in experiment.methods.values()]
    assert told[0]["optimizer"].startswith("own_optimiser:make#")
    assert told[1]["steps"][0] == told[0]
    assert experiment.config["recipe"]["optimizer"] == "own_optimiser:make"
    config["methods"] = [{"name": "finetune", "optimizer": "own_optimiser:mak"}]
    with pytest.raises(ExpungeError, match="own_optimiser:mak cannot be imported"):
        from_dict(config)


class Twice(optim.SGD):
    """A class of somebody's own whose step is that of its parent: PyTorch runs step hooks for both."""

    def step(self, closure=None):
        return super().step(closure)


def steps(optimizer):
    """One step, on a parameter whose gradient is one."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    optimizer.step()


@pytest.mark.parametrize("kind", [optim.SGD, Twice])
def test_around_a_step_is_once(kind):
    optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)  # from here on the parent's step has hooks of its own
    weight = nn.Parameter(torch.zeros(1))
    optimizer, seen = kind([weight], 0.1), []

    def see(when):
        return lambda *_: seen.append(f"{when} {weight.item():.1f}")

    end = around_step(optimizer, see("before"), see("after"))
    for _ in range(2):
        steps(optimizer)
    assert seen == ["before 0.0", "after -0.1", "before -0.1", "after -0.2"]
    end()
    steps(optimizer)
    assert len(seen) == 4


def test_a_step_that_failed_does_not_hide_the_next():
    def refuse(*_):
        if not seen:
            seen.append("refused")
            raise ExpungeError("no")
        seen.append("before")

    seen: list[str] = []
    optimizer = Twice([nn.Parameter(torch.zeros(1))], 0.1)
    around_step(optimizer, refuse, lambda *_: seen.append("after"))
    with pytest.raises(ExpungeError, match="no"):
        steps(optimizer)

    def broken():
        raise ValueError("in the closure")

    with pytest.raises(ValueError, match="closure"):
        optimizer.step(broken)
    steps(optimizer)
    assert seen == ["refused", "before", "before", "after"]


@pytest.mark.parametrize("rule", ["sequential", "random_step", "topk_step"])
def test_partial_updates_of_such_a_class_are_those_of_its_parent(rule):
    models = []
    for kind in (optim.SGD, Twice):
        torch.manual_seed(0)
        model = nn.Linear(6, 4)
        optimizer = kind(model.parameters(), 0.1, momentum=0.9)
        with Region.partial(0.25, rule).enforce(model, optimizer, torch.Generator().manual_seed(1)):
            for _ in range(3):
                optimizer.zero_grad()
                model(torch.ones(2, 6)).square().sum().backward()
                optimizer.step()
        models.append(model)
    assert bits(models[0]) == bits(models[1])
    torch.manual_seed(0)
    assert bits(models[0]) != bits(nn.Linear(6, 4))
