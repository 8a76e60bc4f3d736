"""Partial label flipping and partial optimisation: against loops by hand, their stop, and what partial steps spare."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import expunge as ex
from expunge import ExpungeError, Region, Request
from expunge.methods import PartialLabelFlip, PartialOptimization
from expunge.task import Classification
from kit import Recording, accuracy, bits

METHODS = ("partial_label_flip", "partial_optimization")
FREE = {"goal": None, "epochs": 2, "batch_size": 32}
SETTINGS = {
    "sgd": ({"lr": 0.02}, lambda p: torch.optim.SGD(p, 0.02, fused=True)),
    "momentum": (
        {"lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4},
        lambda p: torch.optim.SGD(p, 0.02, momentum=0.9, weight_decay=5e-4, fused=True),
    ),
    "adam": (
        {"lr": 1e-3, "optimizer": "adam", "weight_decay": 1e-3},
        lambda p: torch.optim.Adam(p, 1e-3, weight_decay=1e-3, fused=True),
    ),
}
taught: list[torch.Tensor] = []


class Spy(Classification):
    """Notes the labels that the loop teaches."""

    def loss(self, model, x_B, y_B):
        taught.append(y_B.clone())
        return super().loss(model, x_B, y_B)


def spied(model, rows, name: str, without: tuple[int, ...] = (3,), **fields):
    """The result on the threes, and the (positions, labels taught) of each step."""
    taught.clear()
    recording = Recording.of(rows)
    request = Request(recording, classes=[3])
    recording.seen.clear()
    result = ex.unlearn(model, request, name, task=Spy(classes=10, without=without), **fields)
    index = torch.tensor(recording.seen)
    sizes = [len(y) for y in taught] or _sizes(len(request.forget), result.log.steps, fields["epochs"])
    return result, list(zip(index.split(sizes), taught or [rows.y[i] for i in index.split(sizes)]))


def _sizes(n: int, steps: int, epochs: int) -> list[int]:
    return [len(part) for part in torch.arange(n).tensor_split(steps // epochs)] * epochs


def changed(model: nn.Module, other: nn.Module) -> list[int]:
    return [int((p != q).sum()) for p, q in zip(model.parameters(), other.parameters())]


# -- the dense forms, against loops by hand --------------------------------------------------------------------------


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", METHODS)
def test_keep_one_is_the_naive_method_bit_for_bit(name, settings, train, mlp):
    fields, make = SETTINGS[settings]
    result, steps = spied(mlp, train, name, keep=1, **FREE, **fields)
    hand = copy.deepcopy(mlp).train()
    optimizer = make(hand.parameters())
    for index, labels in steps:
        optimizer.zero_grad()
        z = hand(train.x(index))
        if name == "partial_label_flip":
            loss_B = F.cross_entropy(z, labels, reduction="none")
        else:
            others = z.masked_fill(F.one_hot(train.y[index], 10).bool(), -math.inf)
            loss_B = z.logsumexp(1) - others.logsumexp(1)
        (loss_B * torch.full((len(index),), 1 / len(index))).sum().backward()
        optimizer.step()
    assert len(steps) == 2 * math.ceil(sum(train.y == 3) / 32)
    assert bits(result.model) == bits(hand.eval())


def test_ascent_without_bounds_is_gradient_ascent(mlp, three):
    same = {"epochs": 2, "lr": 0.01, "batch_size": 64, "momentum": 0.9, "weight_decay": 1e-3}
    plain = ex.unlearn(mlp, three, "gradient_ascent", clip_norm=None, ceiling=None, **same)
    dense = {"keep": 1, "loss": "ascent", "cap": None, "ceiling": None, "goal": None}
    assert bits(ex.unlearn(mlp, three, "partial_optimization", **dense, **same).model) == bits(plain.model)


@pytest.mark.parametrize("forget_weight", [0.1, 0.7])
def test_joint_is_retain_downwards_and_forget_upwards(forget_weight, train, mlp, three):
    parameters = list(mlp.parameters())
    retain, forget = (F.cross_entropy(mlp(train.x(i)), train.y[i]) for i in (three.keep, three.forget))
    expected = torch.autograd.grad(retain - forget_weight * forget, parameters)
    fields = {"keep": 1, "loss": "joint", "forget_weight": forget_weight, "cap": None, "goal": None}
    model = ex.unlearn(mlp, three, "partial_optimization", epochs=1, batch_size=5000, lr=1.0, **fields).model
    for p, q, gradient in zip(model.parameters(), parameters, expected):
        torch.testing.assert_close(p.detach(), q.detach() - gradient, atol=2e-6, rtol=1e-4)


def test_with_both_parts_all_rows_are_read_and_only_forget_is_relabelled(train, mlp, three):
    result, steps = spied(mlp, train, "partial_label_flip", data="both", goal=None, epochs=1)
    index, labels = torch.cat([i for i, _ in steps]), torch.cat([y for _, y in steps])
    assert sorted(index.tolist()) == list(range(len(train)))
    assert torch.equal(labels == train.y[index], ~torch.isin(index, three.forget))
    assert accuracy(result.model, train, three.keep) > 0.9


# -- partial steps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", METHODS)
def test_the_first_step_is_the_largest_of_the_dense_one(name, settings, train, mlp, three):
    fields = {**SETTINGS[settings][0], "goal": None, "epochs": 1, "batch_size": 1000}
    dense = ex.unlearn(mlp, three, name, keep=1, **fields).model
    partial = ex.unlearn(mlp, three, name, keep=0.1, **fields).model
    for old, p, q in zip(mlp.parameters(), dense.parameters(), partial.parameters()):
        before, full, part = (t.detach().numpy() for t in (old, p, q))
        k = max(1, round(0.1 * old.numel()))
        kept = np.argsort(-np.abs(full - before).ravel(), kind="stable")[:k]
        expected = before.ravel().copy()
        expected[kept] = full.ravel()[kept]
        assert part.ravel().tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", METHODS)
def test_they_read_the_forgotten_rows_only(name, train, mlp, three):
    _, steps = spied(mlp, train, name, **FREE)
    read = torch.cat([index for index, _ in steps]).tolist()
    assert sorted(read) == sorted(three.forget.tolist() * 2)


def test_labels_are_drawn_once_never_the_true_ones_and_by_the_seed(train, mlp):
    def labels(seed: int) -> np.ndarray:
        _, steps = spied(mlp, train, "partial_label_flip", epochs=3, goal=None, seed=seed)
        index, y = (torch.cat(parts).view(3, -1) for parts in zip(*steps))
        order = index.argsort(1)
        return y.gather(1, order).numpy()

    first = labels(0)
    assert (first == first[0]).all()
    assert 3 not in first
    assert set(first.ravel()) == set(range(10)) - {3}
    assert np.array_equal(first, labels(0))
    assert not np.array_equal(first, labels(1))


@pytest.mark.parametrize("name", METHODS)
def test_a_region_and_a_partial_update_work_together(name, mlp, three):
    fields = {"keep": 0.25, "goal": None, "epochs": 1, "batch_size": 1000, "lr": 0.1}
    region = Region.layers("head*")
    result = ex.unlearn(mlp, three, name, region=region, **fields)
    for (parameter, p), moved, moves in zip(
        mlp.named_parameters(), changed(mlp, result.model), region.resolve(mlp).values()
    ):
        assert moved == (max(1, round(0.25 * p.numel())) if moves else 0), parameter


def test_any_method_that_descends_can_take_partial_steps(mlp, three):
    fields = {"epochs": 1, "batch_size": 5000, "region": {"partial": 0.1}}
    result = ex.unlearn(mlp, three, "gradient_ascent", **fields)
    assert changed(mlp, result.model) == [max(1, round(0.1 * p.numel())) for p in mlp.parameters()]


# -- when to end -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_it_ends_at_the_first_step_that_reaches_the_goal(name, train, mlp, three):
    goal = 0.3
    fields = {"keep": 0.1, "lr": 0.03, "epochs": 50, "batch_size": 1000}  # a step in each epoch; all 146 are looked at
    result = ex.unlearn(mlp, three, name, goal=goal, **fields)
    steps = result.log.steps
    assert 1 < steps < 50
    assert accuracy(result.model, train, three.forget) <= goal
    before = ex.unlearn(mlp, three, name, goal=None, **{**fields, "epochs": steps - 1})
    assert accuracy(before.model, train, three.forget) > goal
    assert before.log.steps == steps - 1
    right = f"{100 * accuracy(result.model, train, three.forget):.1f} % of the forget rows are right"
    assert f"stopped early at step {steps}: {right}, and the goal was 30 %" in result.summary
    assert not result.log.notes


@pytest.mark.parametrize("name", METHODS)
def test_a_goal_that_was_not_reached_is_told(name, train, mlp, three):
    result = ex.unlearn(mlp, three, name, epochs=1, lr=1e-6)
    assert "stopped" not in result.summary
    right = f"{100 * accuracy(result.model, train, three.forget):.1f} % of the forget rows right"
    assert [right in note and "goal was not reached" in note for note in result.log.notes] == [True]
    assert not ex.unlearn(mlp, three, name, epochs=1, lr=1e-6, goal=None).log.notes


@pytest.mark.parametrize("name", METHODS)
def test_it_ends_when_too_little_of_the_rest_is_left(name, train, mlp, three):
    fields = {"keep": 1, "lr": 0.1, "epochs": 50, "goal": None}
    result = ex.unlearn(mlp, three, name, floor=0.93, **fields)
    assert "of the retain rows are right, under the floor of 93 %" in result.log.stopped
    assert accuracy(result.model, train, three.keep) < 0.97  # 256 of the 1,292 rows are looked at
    assert result.log.steps < ex.unlearn(mlp, three, name, floor=None, **fields).log.steps


def test_ascent_ends_at_its_ceiling(mlp, three):
    fields = {"keep": 1, "loss": "ascent", "cap": None, "goal": None, "lr": 0.05, "epochs": 100}
    result = ex.unlearn(mlp, three, "partial_optimization", ceiling=3.0, **fields)
    assert "above the ceiling of 3.00" in result.log.stopped


def test_the_capped_ascent_leaves_alone_what_is_raised(train, mlp, three):
    fields = {"keep": 1, "loss": "ascent", "ceiling": None, "goal": None, "lr": 0.03, "epochs": 30, "batch_size": 1000}
    losses = {}
    for cap in (None, 1.0):
        model = ex.unlearn(mlp, three, "partial_optimization", cap=cap, **fields).model
        with torch.no_grad():
            losses[cap] = float(F.cross_entropy(model(train.x(three.forget)), train.y[three.forget]))
    assert math.log(10) < losses[1.0] < losses[None] / 3


def test_modes_are_as_they_were_while_the_goal_is_looked_at(train, net, three):
    """Dropout and batch norm train on after the look, which is in eval mode."""
    task, fields = Classification(classes=10, without=(3,)), {"keep": 1, "epochs": 2, "lr": 0.001}
    watched = ex.unlearn(net, three, "partial_label_flip", task=task, goal=0.0, floor=0.0, **fields).model
    free = ex.unlearn(net, three, "partial_label_flip", task=task, goal=None, **fields).model
    assert bits(watched) == bits(free)
    assert any(not torch.equal(a, b) for a, b in zip(net.buffers(), free.buffers()))


# -- what it is for --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "lr", "spared"), [("partial_label_flip", 0.03, 0.03), ("partial_optimization", 0.01, 0)]
)
def test_at_the_same_forgetting_partial_steps_spare_the_rest(name, lr, spared, test, train, mlp, three):
    rest = (test.y != 3).nonzero().flatten()
    kept = {}
    for keep in (1.0, 0.05):
        results = [ex.unlearn(mlp, three, name, keep=keep, lr=lr, epochs=50, seed=seed) for seed in range(3)]
        assert all(accuracy(r.model, train, three.forget) <= 0.01 for r in results)
        kept[keep] = float(np.mean([accuracy(r.model, test, rest) for r in results]))
    assert kept[0.05] > kept[1.0] + spared


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PartialLabelFlip(keep=0), "partial_label_flip: keep must be above 0"),
        (lambda: PartialLabelFlip(rule="largest"), r"rule must be topk_step, .*got 'largest'"),
        (lambda: PartialLabelFlip(goal=1.5), "goal must be a share"),
        (lambda: PartialLabelFlip(floor=-0.1), "floor must be a share"),
        (lambda: PartialLabelFlip(data="retain"), "data must be forget or both"),
        (lambda: PartialLabelFlip(region={"partial": 0.1}), "leave partial out of the region"),
        (lambda: PartialOptimization(loss="kl"), "loss must be bounded, ascent or joint"),
        (lambda: PartialOptimization(forget_weight=0), "forget_weight must be above 0"),
        (lambda: PartialOptimization(cap=-1), "cap must be above 0"),
        (lambda: PartialOptimization(ceiling=0), "ceiling must be above 0"),
        (lambda: PartialOptimization(momentum=1), "momentum"),
    ],
)
def test_wrong_fields_are_refused_by_name(make, words):
    with pytest.raises(ExpungeError, match=words):
        make()


def test_all_wrong_fields_are_told_at_once():
    with pytest.raises(ExpungeError) as caught:
        PartialOptimization(keep=2, rule="x", goal=2, cap=0, lr=-1)
    assert len(str(caught.value).splitlines()) == 5
