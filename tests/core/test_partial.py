"""Partial updates: which entries of a step are kept, and that all others stay bit-identical, whatever the optimiser."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop

from expunge import ExpungeError, Region
from expunge.descend import descend
from expunge.partial import RULES, PartialUpdate
from expunge.phase import Phase, Term
from expunge.run import Run
from expunge.task import Classification
from kit import bits

OPTIMIZERS = {
    "sgd": lambda p: SGD(p, 0.05),
    "momentum": lambda p: SGD(p, 0.05, momentum=0.9, weight_decay=0.1),
    "adam": lambda p: Adam(p, 0.01, weight_decay=0.1),
    "adamw": lambda p: AdamW(p, 0.01, weight_decay=0.1, fused=True),
    "rmsprop": lambda p: RMSprop(p, 0.01, momentum=0.9, weight_decay=0.1),
}


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3))


def gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    x, y = torch.randn(16, 6, generator=generator), torch.randint(3, (16,), generator=generator)
    model.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()


def arrays(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def largest_by_numpy(values: np.ndarray, keep: float) -> np.ndarray:
    """A mask of the k largest magnitudes by a stable sort: the first ones among equals."""
    k = max(1, round(keep * values.size))
    mask = np.zeros(values.size, bool)
    mask[np.argsort(-np.abs(values.ravel()), kind="stable")[:k]] = True
    return mask.reshape(values.shape)


class Slopes(nn.Module):
    """Parameters whose gradients are what they are said to be."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.Linear(6, 5), nn.Linear(4, 3)

    def step(self, optimizer, slopes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One step on these gradients; which entries changed."""
        before = arrays(self)
        for name, p in self.named_parameters():
            p.grad = torch.from_numpy(slopes[name].astype(np.float32))
        optimizer.step()
        return {name: value != before[name] for name, value in arrays(self).items()}


def slopes(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {n: random.uniform(0.5, 2, p.shape) * random.choice([-1, 1], p.shape) for n, p in arrays(Slopes()).items()}


# -- against a twin that steps freely --------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_the_largest_entries_of_each_update_are_kept_and_the_rest_is_put_back(optimizer_name, keep):
    """The update is that of a twin with the same weights, gradients and optimiser state, chosen from by NumPy."""
    model, make = net(), OPTIMIZERS[optimizer_name]
    optimizer = make(model.parameters())
    with PartialUpdate(keep).enforce(model, optimizer):
        for step in range(8):
            twin = copy.deepcopy(model)
            free = make(twin.parameters())
            free.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            before = arrays(model)
            for m, o in ((model, optimizer), (twin, free)):
                gradients(m, step)
                o.step()
            after, stepped = arrays(model), arrays(twin)
            for name, old in before.items():
                expected = np.where(largest_by_numpy(stepped[name] - old, keep), stepped[name], old)
                assert after[name].tobytes() == expected.tobytes(), (name, step)
                assert 1 <= (after[name] != old).sum() <= max(1, round(keep * old.size))
            for p, q in zip(model.parameters(), twin.parameters()):  # the optimiser's memory is its own
                for key, value in free.state[q].items():
                    assert torch.equal(torch.as_tensor(optimizer.state[p][key]), torch.as_tensor(value)), key


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_no_rule_lets_more_than_its_share_change(optimizer_name, rule):
    model = net()
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    gradients(model, 99)
    optimizer.step()  # it has momentum from before
    moved = 0
    with Region.partial(0.2, rule).enforce(model, optimizer):
        for step in range(8):
            before = arrays(model)
            gradients(model, step)
            optimizer.step()
            changed = {name: value != before[name] for name, value in arrays(model).items()}
            if rule == "layer_subset":
                assert {n.split(".")[0] for n, c in changed.items() if c.any()} == {"4"}
            else:
                assert all(c.sum() <= max(1, round(0.2 * c.size)) for c in changed.values())
            moved += sum(c.sum() for c in changed.values())
    assert moved >= 8 * 5


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_all_of_it_is_the_optimisers_own_step_to_the_bit(optimizer_name, rule):
    model, free = net(), net()
    optimizer, other = (OPTIMIZERS[optimizer_name](m.parameters()) for m in (model, free))
    with Region.partial(1, rule).enforce(model, optimizer):
        for step in range(5):
            for m, o in ((model, optimizer), (free, other)):
                gradients(m, step)
                o.step()
    assert bits(model) == bits(free)


# -- each rule -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.1, 0.37, 0.9])
def test_a_fixed_mask_is_that_of_the_first_gradient(keep):
    model, first = Slopes(), slopes(0)
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    with PartialUpdate(keep, "fixed_topk").enforce(model, optimizer):
        for seed in range(4):
            for name, changed in model.step(optimizer, slopes(seed)).items():
                np.testing.assert_array_equal(changed, largest_by_numpy(first[name], keep))


@pytest.mark.parametrize(("steep", "keep"), [("near", 0.5), ("far", 0.5), ("far", 0.01)])
def test_a_subset_of_layers_is_that_of_the_steepest_modules(steep, keep):
    model, first = Slopes(), slopes(0)
    for name in first:
        first[name] *= 4 if name.startswith(steep) else 1
    optimizer = Adam(model.parameters(), 0.1)
    with PartialUpdate(keep, "layer_subset").enforce(model, optimizer):
        for given in (first, slopes(1), slopes(2)):
            for name, changed in model.step(optimizer, given).items():
                assert changed.all() if name.startswith(steep) else not changed.any(), name


@pytest.mark.parametrize("keep", [0.1, 0.37])
def test_blocks_follow_one_another_around_the_tensor(keep):
    model = Slopes()
    optimizer = SGD(model.parameters(), 0.1)
    starts = dict.fromkeys(slopes(0), 0)
    with PartialUpdate(keep, "sequential").enforce(model, optimizer):
        for seed in range(7):
            for name, changed in model.step(optimizer, slopes(seed)).items():
                k = max(1, round(keep * changed.size))
                expected = np.zeros(changed.size, bool)
                expected[:k] = True
                np.testing.assert_array_equal(changed.ravel(), np.roll(expected, starts[name]))
                starts[name] += k


def test_random_entries_are_as_many_each_time_and_all_in_turn():
    model = Slopes()
    optimizer, counts = SGD(model.parameters(), 0.1), np.zeros(30)
    with PartialUpdate(0.2, "random_step").enforce(model, optimizer, generator=torch.Generator().manual_seed(3)):
        for seed in range(200):
            changed = model.step(optimizer, slopes(seed))
            assert {name: int(c.sum()) for name, c in changed.items()} == {
                "near.weight": 6, "near.bias": 1, "far.weight": 2, "far.bias": 1,
            }  # fmt: skip
            counts += changed["near.weight"].ravel()
    # drawn without replacement: 200 × 0.2 each, with a standard deviation of √(200 × 0.2 × 0.8) = 5.7
    assert np.abs(counts - 40).max() < 4 * 5.7


def test_entries_without_an_update_are_not_among_the_largest():
    model, given = Slopes(), slopes(0)
    given["near.weight"][:] = 0
    given["near.weight"][2, 3] = 1e-3
    changed = model.step(SGD(model.parameters(), 0.1), given)
    assert changed["near.weight"].sum() == 1  # the control: nothing else is to be moved
    with PartialUpdate(0.5).enforce(model, optimizer := SGD(model.parameters(), 0.1)):
        assert model.step(optimizer, given)["near.weight"].sum() == 1


def test_masking_the_gradient_would_not_do():
    """The control: the same largest entries of the gradient alone, and momentum moves more than they."""
    model = Slopes()
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    for seed in range(5):
        given = {name: s * largest_by_numpy(s, 0.1) for name, s in slopes(seed).items()}
        changed = model.step(optimizer, given)
    assert changed["near.weight"].sum() > 3


# -- with a region ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["topk_step", "random_step", "sequential", "fixed_topk"])
@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_inside_a_region_the_share_is_of_what_it_lets_move(optimizer_name, rule):
    model = net()
    generator = torch.Generator().manual_seed(1)
    masks = {n: torch.rand(p.shape, generator=generator) < 0.6 for n, p in model.named_parameters()}
    for within in (Region.layers("2*", "4.bias"), Region(masks=masks)):
        region = Region.partial(0.25, rule, within=within)
        optimizer, moved = OPTIMIZERS[optimizer_name](model.parameters()), 0
        start = arrays(model)
        with region.enforce(model, optimizer):
            for step in range(6):
                before = arrays(model)
                gradients(model, step)
                optimizer.step()
                for (name, old), moves in zip(before.items(), within.resolve(model).values()):
                    inside = np.broadcast_to(np.asarray(moves), old.shape)
                    changed = arrays(model)[name] != old
                    assert not changed[~inside].any(), name
                    assert changed.sum() <= max(1, round(0.25 * inside.sum())), name
                    moved += changed.sum()
        assert moved > 6
        for name, moves in within.resolve(model).items():
            outside = ~np.broadcast_to(np.asarray(moves), start[name].shape)
            assert arrays(model)[name][outside].tobytes() == start[name][outside].tobytes()


def test_in_the_loop_each_step_changes_its_share_and_the_seed_draws(train, mlp):
    def steps(rule: str, seed: int = 0, epochs: int = 1, keep: float = 0.05) -> nn.Module:
        model = copy.deepcopy(mlp)
        phase = Phase(terms=(Term("all"),), epochs=epochs, lr=0.05, batch_size=64)
        parts = {"all": torch.arange(64)}  # one step in each epoch
        descend(model, train, parts, Classification(classes=10), [phase], Run(seed=seed), Region.partial(keep, rule))
        return model

    for rule in ("topk_step", "random_step", "sequential", "fixed_topk"):
        once, thrice = steps(rule), steps(rule, epochs=3)
        for p, q, r in zip(mlp.parameters(), once.parameters(), thrice.parameters()):
            k = max(1, round(0.05 * p.numel()))
            assert 0 < int((p != q).sum()) <= k
            assert int((p != r).sum()) <= (k if rule == "fixed_topk" else 3 * k)
        assert bits(steps(rule)) == bits(once)
    assert bits(steps("random_step", seed=1)) != bits(steps("random_step"))


def test_images_in_another_memory_order_are_held_back_as_well():
    torch.manual_seed(0)
    model = nn.Conv2d(8, 4, 3).to(memory_format=torch.channels_last)
    optimizer, before = SGD(model.parameters(), 0.1), arrays(model)["weight"]
    with PartialUpdate(0.1).enforce(model, optimizer):
        model(torch.randn(2, 8, 5, 5)).square().sum().backward()
        optimizer.step()
    expected = largest_by_numpy(model.weight.grad.contiguous().numpy(), 0.1)
    np.testing.assert_array_equal(arrays(model)["weight"] != before, expected)


# -- afterwards, and as plain data -----------------------------------------------------------------------------------


def test_hooks_are_gone_afterwards_whatever_happens():
    model = net()
    optimizer = SGD(model.parameters(), 0.1)
    gradients(model, 0)
    with pytest.raises(KeyboardInterrupt), Region.partial(0.1).enforce(model, optimizer):
        raise KeyboardInterrupt
    assert not optimizer._optimizer_step_post_hooks
    assert not optimizer._optimizer_step_pre_hooks
    before = arrays(model)
    optimizer.step()
    assert (arrays(model)["0.weight"] != before["0.weight"]).all()


@pytest.mark.parametrize(
    "region",
    [
        Region.partial(0.1),
        Region.partial(1, "sequential"),
        Region.partial(0.3, "random_step", within=Region.layers("a*", "b")),
        Region.partial(0.3, within=Region.last(2, batchnorm="update")),
    ],
)
def test_config_and_back(region):
    assert Region.from_config(yaml.safe_load(yaml.safe_dump(region.to_config()))) == region


def test_short_ways_to_write_it():
    assert Region.from_config({"partial": 0.1}) == Region.partial(0.1, "topk_step", within=Region.all())
    both = {"partial": 0.1, "rule": "sequential", "layers": "fc*"}
    assert Region.from_config(both) == Region.partial(0.1, "sequential", within=Region.layers("fc*"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PartialUpdate(0), "keep must be above 0 and at most 1"),
        (lambda: PartialUpdate(1.01), "keep"),
        (lambda: PartialUpdate(float("nan")), "keep"),
        (lambda: PartialUpdate(True), "keep"),
        (lambda: Region.partial("some"), "keep"),
        (lambda: Region.partial(0.1, "topk"), "Unknown rule 'topk'. Did you mean 'topk_step'"),
        (lambda: Region.from_config({"partial": 2}), "keep"),
        (lambda: Region.from_config({"partial": 0.1, "rule": "sequental"}), "Did you mean 'sequential'"),
        (lambda: Region.from_config({"rule": "sequential"}), "rule of a region says which share moves; give it too"),
        (lambda: Region.from_config({"partial": 0.1, "layers": "fc", "last": 1}), "not by both"),
        (lambda: Region.from_config({"partial": 0.1, "laeyrs": "fc"}), "Did you mean 'layers'"),
    ],
)
def test_what_is_no_partial_update_is_refused(make, words):
    with pytest.raises(ExpungeError, match=words):
        make()
