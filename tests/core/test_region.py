"""Region: which weights may move, and that nothing else ever does, whatever the optimiser."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.optim import LBFGS, SGD, Adagrad, Adam, AdamW, RMSprop

import expunge as ex
from expunge import ExpungeError, Region
from expunge.descend import descend
from expunge.phase import Phase, Term
from expunge.run import Run
from expunge.task import Classification
from kit import bits

# decay and momentum everywhere they exist: they are what moves weights whose gradient is zero
OPTIMIZERS = {
    "sgd": lambda p: SGD(p, 0.05, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: Adam(p, 0.01, weight_decay=0.1),
    "amsgrad": lambda p: Adam(p, 0.01, weight_decay=0.1, amsgrad=True, fused=True),
    "adamw": lambda p: AdamW(p, 0.01, weight_decay=0.1),
    "rmsprop": lambda p: RMSprop(p, 0.01, momentum=0.9, centered=True, weight_decay=0.1),
    "adagrad": lambda p: Adagrad(p, 0.01, weight_decay=0.1),
    "lbfgs": lambda p: LBFGS(p, 0.1, max_iter=3),
}


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))


def scores(model: nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(p.shape, generator=generator) for name, p in model.named_parameters()}


REGIONS = {
    "layers": lambda m: Region.layers("4*"),
    "last": lambda m: Region.last(2),
    "top": lambda m: Region.top(scores(m), 0.3),
    "bias": lambda m: Region.layers("*.bias"),
}


def train_by_hand(model: nn.Module, optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        x, y = torch.randn(16, 6, generator=generator), torch.randint(3, (16,), generator=generator)

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        optimizer.step(closure)


def inside(region: Region, model: nn.Module) -> dict[str, torch.Tensor]:
    moves = region.resolve(model)
    return {
        name: moves[name] if isinstance(moves[name], torch.Tensor) else torch.full(p.shape, bool(moves[name]))
        for name, p in model.named_parameters()
    }


# -- which weights ---------------------------------------------------------------------------------------------------


def test_all_is_every_parameter():
    assert all(m is True for m in Region.all().resolve(net()).values())
    assert Region.all().whole
    assert not Region.last(1).whole


def test_layers_are_globs_on_parameters_or_their_modules():
    model = nn.ModuleDict({"conv1": nn.Conv2d(1, 2, 3), "fc1": nn.Linear(2, 2), "fc2": nn.Linear(2, 2)})
    moves = Region.layers("fc*").resolve(model)
    assert [n for n, m in moves.items() if m] == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    moves = Region.layers("fc2", "conv1.bias").resolve(model)
    assert [n for n, m in moves.items() if m] == ["conv1.bias", "fc2.weight", "fc2.bias"]


def test_a_layer_has_the_norms_that_follow_it():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    assert {n.split(".")[0] for n, m in Region.last(2).resolve(model).items() if m} == {"2", "3", "4"}
    assert {n.split(".")[0] for n, m in Region.last(1).resolve(model).items() if m} == {"4"}


@pytest.mark.parametrize("share", [0.1, 0.29, 0.5, 0.9, 1])
@pytest.mark.parametrize("kind", ["random", "ties", "zeros", "equal", "infinite"])
def test_top_is_exactly_the_share_of_largest_scores(share, kind):
    random = np.random.default_rng(0)
    values = random.random(407).astype(np.float32)
    if kind == "ties":
        values = np.round(values * 3) / 3
    elif kind == "zeros":
        values[values < 0.95] = 0
    elif kind == "equal":
        values[:] = 0.25
    elif kind == "infinite":
        values[::7] = np.inf
    parts = {"a": torch.from_numpy(values[:100]).view(10, 10), "b": torch.from_numpy(values[100:]).view(307)}
    masks = Region.top(parts, share).masks
    flat = np.concatenate([masks["a"].numpy().ravel(), masks["b"].numpy().ravel()])
    reference = np.zeros(407, bool)  # a stable sort of the negated values: the first ones among equals come first
    reference[np.argsort(-values, kind="stable")[: int(407 * share)]] = True
    np.testing.assert_array_equal(flat, reference)
    assert flat.sum() == int(407 * share)


def test_parameters_without_scores_stay():
    model = net()
    region = Region.top({"4.weight": torch.rand(3, 5)}, 1)
    assert [n for n, m in region.resolve(model).items() if m is not False] == ["4.weight"]


# -- nothing else moves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize("region_name", REGIONS)
def test_outside_the_region_every_bit_stays_in_a_loop_of_ones_own(region_name, optimizer_name):
    model = net()
    before = copy.deepcopy(model)
    region = REGIONS[region_name](model)
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    train_by_hand(model, optimizer, 3)  # the optimiser has momentum from before
    before = copy.deepcopy(model)
    with region.enforce(model, optimizer):
        train_by_hand(model, optimizer, 30)
    masks = inside(region, model)
    for (name, p), old in zip(model.named_parameters(), before.parameters()):
        stayed = ~masks[name]
        assert p[stayed].detach().numpy().tobytes() == old[stayed].detach().numpy().tobytes(), name
        if masks[name].any():
            assert not torch.equal(p[masks[name]], old[masks[name]]), f"{name} should move"


@pytest.mark.parametrize("optimizer_name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("region_name", REGIONS)
def test_outside_the_region_every_bit_stays_in_the_loop(region_name, optimizer_name, train, mlp):
    named = {
        "layers": Region.layers("head*"),
        "last": Region.last(1),
        "top": Region.top(scores(mlp), 0.3),
        "bias": Region.layers("*.bias"),
    }
    region, before = named[region_name], copy.deepcopy(mlp)
    phase = Phase(terms=(Term("all"),), epochs=2, lr=0.01, batch_size=64, optimizer=optimizer_name, weight_decay=0.1)
    parts = {"all": torch.arange(len(train))}
    descend(mlp, train, parts, Classification(classes=10), [phase, phase], Run(), region)
    masks = inside(region, mlp)
    for (name, p), old in zip(mlp.named_parameters(), before.parameters()):
        assert torch.equal(p[~masks[name]], old[~masks[name]]), name
        if masks[name].any():
            assert not torch.equal(p[masks[name]], old[masks[name]]), f"{name} should move"


@pytest.mark.parametrize("optimizer_name", ["sgd", "adam", "adamw"])
def test_masking_gradients_alone_lets_frozen_weights_drift(optimizer_name):
    """The control: the same loop with masked gradients in place of `enforce` moves what must not move."""
    model = net()
    masks = inside(Region.top(scores(model), 0.3), model)
    before = copy.deepcopy(model)
    for name, p in model.named_parameters():
        p.register_hook(lambda g, mask=masks[name]: g * mask)
    train_by_hand(model, OPTIMIZERS[optimizer_name](model.parameters()), 30)
    drift = [(p - q)[~masks[n]].abs().max() for (n, p), q in zip(model.named_parameters(), before.parameters())]
    assert max(drift) > 1e-3


@pytest.mark.parametrize("optimizer_name", [name for name in OPTIMIZERS if name != "lbfgs"])
def test_the_optimisers_state_is_zero_outside(optimizer_name):
    model = net()
    region = Region.top(scores(model), 0.3)
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    with region.enforce(model, optimizer):
        train_by_hand(model, optimizer, 5)
    masks, seen = inside(region, model), 0
    for name, p in model.named_parameters():
        for value in optimizer.state[p].values():
            if isinstance(value, torch.Tensor) and value.shape == p.shape:
                assert not value[~masks[name]].any()
                seen += int(value[masks[name]].abs().sum() > 0)
    assert seen


def test_inside_the_region_steps_are_the_optimisers_own():
    """Freezing some layers does not change how the others learn, given the same gradient."""
    model, free = net(), net()
    optimizer, other = (SGD(m.parameters(), 0.05, momentum=0.9) for m in (model, free))
    with Region.last(1).enforce(model, optimizer):
        train_by_hand(model, optimizer, 1)
    train_by_hand(free, other, 1)
    assert torch.equal(model[4].weight, free[4].weight)


# -- batch norm ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["freeze", "update"])
def test_running_statistics_move_only_where_they_may(policy, train):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ex.models.build("resnet9", channels=1, size=8, classes=10, width=8)
    before = bits(model)
    phase = Phase(terms=(Term("all"),), epochs=1, lr=0.01)
    parts = {"all": torch.arange(256)}
    descend(model, train, parts, Classification(classes=10), [phase], Run(), Region.last(1, batchnorm=policy))
    after = bits(model)
    statistics = [n for n in before if "running_" in n or "num_batches" in n]
    assert statistics
    assert all((before[n] == after[n]) == (policy == "freeze") for n in statistics)


def test_frozen_statistics_are_used_in_training_as_well():
    model = nn.Sequential(nn.BatchNorm1d(4, affine=False), nn.Linear(4, 2)).train()
    x = torch.randn(8, 4) * 5 + 3
    expected = model.eval()(x)
    model.train()
    with Region.last(1).enforce(model, SGD(model.parameters(), 0.1)):
        assert torch.equal(model(x), expected)
    assert model[0].training
    assert not torch.equal(model(x), expected)


# -- afterwards ------------------------------------------------------------------------------------------------------


def test_gradients_set_by_hand_and_thawed_weights_stay_outside():
    for thaw in (False, True):
        model = net()
        before = copy.deepcopy(model.state_dict())
        optimizer = SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
        with Region.layers("4").enforce(model, optimizer):
            for _ in range(2):
                optimizer.zero_grad()
                if thaw:
                    model.requires_grad_(True)
                    model(torch.rand(4, 6)).sum().backward()
                else:  # as with torch.func.grad
                    for p in model.parameters():
                        p.grad = torch.ones_like(p)
                optimizer.step()
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name]) == (not name.startswith("4.")), name


class _Buffers(nn.Module):
    """Buffers of every kind that a forward pass in training mode moves."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 3, 3), nn.InstanceNorm2d(3, track_running_stats=True), nn.ReLU())
        self.mixed = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 3, 3))
        self.head = nn.utils.parametrizations.spectral_norm(nn.Linear(48, 4))

    def forward(self, x):
        return self.head(self.mixed(self.body(x)).flatten(1))


@pytest.mark.parametrize("policy", ["freeze", "update"])
def test_buffers_outside_a_frozen_region_stay(policy):
    torch.manual_seed(0)
    model = _Buffers().train()
    before = {name: b.clone() for name, b in model.named_buffers()}
    optimizer = SGD(model.parameters(), 0.1)
    with Region.layers("head*", batchnorm=policy).enforce(model, optimizer):
        model(torch.rand(5, 1, 8, 8)).square().sum().backward()
        optimizer.step()
    moved = {name for name, b in model.named_buffers() if not torch.equal(b, before[name])}
    outside = {n for n in before if not n.startswith("head") and not n.endswith("tracked")}  # InstanceNorm counts none
    assert moved & outside == (outside if policy == "update" else set())
    assert {name for name in moved if name.startswith("head")}  # inside it follows the weight


def test_weights_that_a_layer_outside_shares_stay():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    for region in (Region.last(2), Region.layers("2", "4")):
        moves = region.resolve(model)
        assert {name for name, move in moves.items() if move} == {"2.bias", "4.weight", "4.bias"}


def test_top_tells_apart_what_single_precision_cannot():
    for values in ([1e-50, 3e-50, 2e-50], [1, 1 + 2e-9, 1 + 1e-9], [1e39, 3e39, 2e39]):
        (mask,) = (Region.top({"w": torch.tensor(values, dtype=torch.float64)}, 0.4).masks or {}).values()
        assert mask.tolist() == [False, True, False]
    with pytest.raises(ExpungeError, match="complex"):
        Region.top({"w": torch.ones(3, dtype=torch.complex64)}, 0.4)


def test_one_share_within_another_is_refused():
    with pytest.raises(ExpungeError, match="saliency already"):
        Region.salient(0.5, within=Region.salient(0.1))
    with pytest.raises(ExpungeError, match="partial updates already"):
        Region.partial(0.5, within=Region.partial(0.1))


@pytest.mark.parametrize("region", [Region.last(1), Region.top(scores(net()), 0.3, batchnorm="freeze")])
@pytest.mark.parametrize("fails", [False, True])
def test_hooks_and_requires_grad_are_as_before(region, fails):
    model = nn.Sequential(*net(), nn.BatchNorm1d(3, affine=False))
    model[0].weight.requires_grad_(False)
    optimizer = SGD(model.parameters(), 0.1)
    needed = [p.requires_grad for p in model.parameters()]
    try:
        with region.enforce(model, optimizer):
            model.train()
            model(torch.randn(4, 6))
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert [p.requires_grad for p in model.parameters()] == needed
    assert not optimizer._optimizer_step_post_hooks
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    before = bits(model)
    train_by_hand(model, optimizer, 1)  # everything moves again
    moved = [n for n in before if bits(model)[n] != before[n] and "running" not in n]
    assert "2.weight" in moved
    assert "0.weight" not in moved  # what the user had frozen stays frozen


# -- as YAML ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "region", [Region.all(), Region.all("freeze"), Region.layers("a*", "b"), Region.last(2, batchnorm="update")]
)
def test_config_and_back(region):
    assert Region.from_config(yaml.safe_load(yaml.safe_dump(region.to_config()))) == region


def test_short_ways_to_write_a_region():
    assert Region.from_config("all") == Region.all()
    assert Region.from_config("fc*") == Region.layers("fc*") == Region.from_config({"layers": "fc*"})
    assert Region.from_config(None) is None


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Region.layers(), "at least one pattern"),
        (lambda: Region.last(0), "k of 1 or more"),
        (lambda: Region.last(4).resolve(net()), "has 3 layers"),
        (lambda: Region.layers("haed*").resolve(net()), r"Unknown layer pattern 'haed\*'"),
        (lambda: Region.top({}, 0.5), "no scores"),
        (lambda: Region.top({"a": torch.ones(3)}, 0), "above 0"),
        (lambda: Region.top({"a": torch.ones(3)}, 1.1), "at most 1"),
        (lambda: Region.top({"a": torch.ones(3)}, float("nan")), "share"),
        (lambda: Region.top({"a": torch.tensor([1, float("nan")])}, 0.5), "NaN"),
        (lambda: Region.top(scores(net()), 1e-6).resolve(net()), "No weight lies in this region"),
        (lambda: Region.top({"0.weight": torch.ones(8, 5)}, 0.5).resolve(net()), r"shape \(8, 5\).*\(8, 6\)"),
        (lambda: Region.top({"0.wieght": torch.ones(8, 6)}, 0.5).resolve(net()), "Did you mean '0.weight'"),
        (lambda: Region.all().resolve(net().requires_grad_(False)), "requires_grad"),
        (lambda: Region.top(scores(net()), 0.5).to_config(), "masks"),
        (lambda: Region.from_config({"layer": "fc"}), "Did you mean 'layers'"),
        (lambda: Region.from_config({"layers": "fc", "last": 1}), "not by both"),
        (lambda: Region.from_config({"last": 1, "batchnorm": "frozen"}), "Did you mean 'freeze'"),
        (lambda: Region.from_config({"last": "many"}), "last"),
        (lambda: Region.from_config({"layers": 3}), "layers"),
        (lambda: Region.from_config(3), "region"),
    ],
)
def test_what_is_no_region_is_refused(make, words):
    with pytest.raises(ExpungeError, match=words):
        make()
