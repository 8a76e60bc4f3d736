"""What every method promises, whatever it does. A new method is tested as soon as the registry knows its name."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from settings import FIELDS, KEEPS
from torch import Tensor, nn

import expunge as ex
from expunge import ExpungeError, Region, Request, Rows, registry
from expunge.io import model_digest
from expunge.task import Classification
from kit import Untouchable, accuracy, bits

NAMES = registry.names()
OWN = {n: {f.name for f in dataclasses.fields(registry.get(n))} for n in NAMES}
DESCENDING = [n for n in NAMES if "optimizer" in OWN[n]]
WITH_REGION = [n for n in NAMES if "region" in OWN[n] and n != "last_layers"]  # it has a region of its own
SEEDLESS = {"original", "ssd"}  # nothing is drawn


def fields(name: str, **more) -> dict:
    return {**FIELDS.get(name, {}), **more}


def request_for(name: str, rows: Rows) -> Request:
    """A class where the method can forget classes, otherwise some samples; few where all steps would be touched."""
    card = registry.get(name).card
    if "ledger" in card.needs:
        return Request(rows, ids=rows.ids[:2].tolist())
    if "class" in card.scope:
        return Request(rows, classes=[3])
    return Request(rows, ids=rows.ids[:100].tolist())


def unlearned(name: str, model: nn.Module, rows: Rows, recipe, seed: int = 0, **more) -> ex.Result:
    return ex.unlearn(model, request_for(name, rows), name, recipe=recipe, seed=seed, **fields(name, **more))


def hooks(model: nn.Module) -> list:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    on_modules = [dict(getattr(m, kind)) for m in model.modules() for kind in kinds if getattr(m, kind)]
    on_tensors = [p._backward_hooks for p in model.parameters() if p._backward_hooks]
    after_accumulation = [p for p in model.parameters() if p._post_accumulate_grad_hooks]
    return on_modules + on_tensors + after_accumulation


# -- nothing is touched ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_input_model_and_global_state_are_untouched(name, net, train, net_recipe):
    for i, (module, p) in enumerate(zip(net.modules(), net.parameters())):
        module.training = i % 2 == 0
        p.grad = torch.full_like(p, i)
    frozen = next(p for n, p in net.named_parameters() if n.endswith("0.bias"))
    frozen.requires_grad_(False)
    torch.manual_seed(11)
    np.random.seed(11)
    before = (
        model_digest(net),
        [m.training for m in net.modules()],
        [p.requires_grad for p in net.parameters()],
        [float(p.grad.sum()) for p in net.parameters()],
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        vars(net).keys() - {"training"},
        train.hash,
    )
    with torch.no_grad():
        result = unlearned(name, net, train, net_recipe)
        assert not torch.is_grad_enabled()
    del train.__dict__["hash"]
    after = (
        model_digest(net),
        [m.training for m in net.modules()],
        [p.requires_grad for p in net.parameters()],
        [float(p.grad.sum()) for p in net.parameters()],
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        vars(net).keys() - {"training"},
        train.hash,
    )
    assert after == before
    assert not hooks(net)
    # and the outcome is as the input was, but for its weights
    assert result.model is not net
    assert not {id(p) for p in net.parameters()} & {id(p) for p in result.model.parameters()}
    assert [m.training for m in result.model.modules()] == before[1]
    assert [p.requires_grad for p in result.model.parameters()] == before[2]
    assert all(p.grad is None for p in result.model.parameters())
    assert not hooks(result.model)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_a_result_says_what_was_done(name, net, train, net_recipe):
    result = unlearned(name, net, train, net_recipe, seed=3)
    assert type(result.model) is type(net)
    assert result.seed == 3
    assert result.seconds > 0
    assert result.method.name == name
    moved = sum(int((p != q).sum()) for p, q in zip(result.model.parameters(), net.parameters()))
    assert result.moved == pytest.approx(moved / sum(p.numel() for p in net.parameters()))
    assert f"{result.log.examples:,} examples" in result.summary
    assert (result.moved == 0) == (name == "original")


# -- seeds and processes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_bits_and_another_seed_others(name, net, train, net_recipe, tmp_path, monkeypatch):
    made = []
    for i, seed in enumerate((0, 0, 1)):
        monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / str(i)))  # nothing is taken from the first time
        torch.manual_seed(i)
        made.append(bits(unlearned(name, net, train, net_recipe, seed=seed).model))
    assert made[0] == made[1]
    assert (made[0] != made[2]) == (name not in SEEDLESS)


SCRIPT = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
import torch
torch.set_num_threads(1)
import expunge as ex
from expunge import io
from expunge.io import model_digest
from test_methods import NAMES, unlearned
train, _ = ex.data.load("digits")
recipe = ex.Recipe(**json.loads(sys.argv[2]))
model = recipe.blank(train)
io.load_weights(sys.argv[3], model)
model.eval()
model._expunge_ledger = sys.argv[4]
print(json.dumps({name: model_digest(unlearned(name, model, train, recipe).model) for name in NAMES}))
"""


@pytest.fixture(scope="module")
def elsewhere(net_recipe, _trained, tmp_path_factory) -> dict[str, str]:
    """The digest of each method's outcome in a process of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    ex.io.save_weights(folder / "net.safetensors", _trained["net"])
    here = Path(__file__).parent
    settings = {k: v for k, v in net_recipe.describe().items() if k not in ("kind", "version")}
    paths = json.dumps([str(here), str(here.parent), *sys.path])
    arguments = [paths, json.dumps(settings), str(folder / "net.safetensors"), _trained["net"]._expunge_ledger]
    patch = pytest.MonkeyPatch()
    patch.setenv("EXPUNGE_CACHE", str(folder / "cache"))
    try:
        done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=300)
    finally:
        patch.undo()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", NAMES)
def test_another_process_makes_the_same_bits(name, elsewhere, net, train, net_recipe):
    assert model_digest(unlearned(name, net, train, net_recipe).model) == elsewhere[name]


# -- the region ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("region", ["layers", "last", "top"])
@pytest.mark.parametrize("name", WITH_REGION)
def test_outside_the_region_every_bit_stays(name, region, optimizer, net, train, net_recipe):
    generator = torch.Generator().manual_seed(0)
    chosen = {
        "layers": Region.layers("features.0*"),
        "last": Region.last(1),
        "top": Region.top({n: torch.rand(p.shape, generator=generator) for n, p in net.named_parameters()}, 0.4),
    }[region]
    lr = 0.01 if optimizer == "sgd" else 1e-3
    more = {"region": chosen, "optimizer": optimizer, "lr": lr, "weight_decay": 0.1, "epochs": 2}
    more = {key: value for key, value in more.items() if key in OWN[name]}
    more |= {"alpha": 0.5, "dampening": 0.5} if name == "ssd" else {}  # so that it chooses some in every layer
    result = unlearned(name, net, train, net_recipe, **more)
    moved = 0
    for (n, p), (_, q), mask in zip(
        net.named_parameters(), result.model.named_parameters(), chosen.resolve(net).values(), strict=True
    ):
        inside = mask if isinstance(mask, Tensor) else torch.full(p.shape, bool(mask))
        assert torch.equal(p[~inside], q[~inside]), n
        moved += int((p != q).sum())
    assert moved
    if chosen.batchnorm == "freeze":
        assert all(torch.equal(a, b) for a, b in zip(net.buffers(), result.model.buffers()))


@pytest.mark.parametrize("name", WITH_REGION)
def test_a_region_that_the_model_does_not_have_is_refused(name, net, train, net_recipe):
    with pytest.raises(ExpungeError, match=r"Unknown layer pattern 'haed\*'"):
        unlearned(name, net, Untouchable.of(train), net_recipe, region={"layers": "haed*"})


# -- refusals --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OtherFamily(Classification):
    """A task of a family that no method serves."""

    family = "oracle"


@pytest.mark.parametrize("name", [n for n in NAMES if n != "chain"])
def test_what_the_card_excludes_is_refused_before_compute(name, net, train, net_recipe):
    card, rows = registry.get(name).card, Untouchable.of(train)
    requests = {"class": Request(rows, classes=[3]), "samples": Request(rows, ids=rows.ids[:50].tolist())}
    with pytest.raises(ExpungeError, match=f"{name} works on .*this is a oracle"):
        ex.unlearn(
            net, requests[min(card.scope)], name, task=OtherFamily(classes=10), recipe=net_recipe, **fields(name)
        )
    for scope in requests.keys() - card.scope:
        with pytest.raises(ExpungeError, match=f"{name} forgets"):
            ex.unlearn(net, requests[scope], name, recipe=net_recipe, **fields(name))
    if "recipe" in card.needs:
        with pytest.raises(ExpungeError, match="give recipe="):
            ex.unlearn(net, requests[min(card.scope)], name, **fields(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_does_not_fit_the_data_is_refused_before_compute(name, train, mlp_recipe):
    small = ex.models.build("mlp", channels=1, size=8, classes=7)
    with pytest.raises(ExpungeError, match="7 outputs, but digits has 10 classes"):
        unlearned(name, small, Untouchable.of(train), mlp_recipe)


# -- plain data ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_config_to_yaml_and_back(name):
    method = registry.make(name, fields(name))
    config = yaml.safe_load(yaml.safe_dump(method.to_config()))
    assert config["name"] == name
    assert registry.from_config(config) == method
    if name != "chain":
        assert set(config) == {"name", *(f.name for f in dataclasses.fields(method))}
        assert isinstance(config, Mapping)


@pytest.mark.parametrize("name", WITH_REGION)
def test_a_region_goes_through_yaml_as_well(name):
    method = registry.make(name, fields(name, region={"last": 2, "batchnorm": "update"}))
    assert registry.from_config(yaml.safe_load(yaml.safe_dump(method.to_config()))) == method
    assert method.region == Region.last(2, batchnorm="update")


@pytest.mark.parametrize("name", NAMES)
def test_the_dial_is_a_field_that_holds_a_number(name):
    card = registry.get(name).card
    if card.dial is not None:
        defaults = {f.name: f.default for f in dataclasses.fields(registry.get(name))}
        value = defaults[card.dial]
        assert isinstance(value, (int, float))
        assert not isinstance(value, bool)


@pytest.mark.parametrize("name", NAMES)
def test_methods_are_immutable(name):
    method = registry.make(name, fields(name))
    some = next((f.name for f in dataclasses.fields(method)), "name")
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(method, some, None)


@pytest.mark.parametrize("name", DESCENDING)
@pytest.mark.parametrize(
    "wrong", [{"epochs": -1}, {"lr": 0.0}, {"optimizer": "sgdd"}, {"batch_size": 0}, {"schedule": "linear"}]
)
def test_wrong_settings_are_refused_by_name(name, wrong):
    with pytest.raises(ExpungeError, match=next(iter(wrong))):
        registry.make(name, fields(name, **wrong))


# -- it works --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_it_forgets_and_keeps_the_rest(name, net, train, test, net_recipe):
    result = unlearned(name, net, train, net_recipe)
    forget, keep = result.request.forget, result.request.keep
    there = accuracy(net, train, forget)
    left = accuracy(result.model, train, forget)
    assert there > 0.95
    assert accuracy(result.model, train, keep) > 0.9
    unseen = torch.from_numpy(np.flatnonzero(~np.isin(test.y.numpy(), result.request.classes)))
    assert accuracy(result.model, test, unseen) > 0.88
    if result.request.scope == "class":
        assert (left < 0.3) == (name not in KEEPS), f"{there:.2f} → {left:.2f}"


def test_the_exceptions_name_methods_that_exist():
    assert set(KEEPS) | set(FIELDS) | SEEDLESS <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_second_request_goes_on_from_the_first(name, mlp, train, mlp_recipe):
    if "class" not in registry.get(name).card.scope or not registry.get(name).card.removes:
        pytest.skip("forgets samples only, or nothing")
    first = unlearned(name, mlp, train, mlp_recipe)
    later = Request(train, classes=[5]) if first.request.scope == "class" else Request(train, ids=[train.ids[9]])
    second = ex.unlearn(first.model, later, name, recipe=mlp_recipe, **fields(name))
    assert second.request.gone.tolist() == first.request.forget.tolist()
    ids = copy.deepcopy(second.model)._expunge_gone[train.hash]  # copies remember as well
    assert ids == train.ids[torch.cat([first.request.forget, later.forget]).sort().values.numpy()].tolist()
