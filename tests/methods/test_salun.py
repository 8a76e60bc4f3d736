"""SalUn: random labelling inside the salient weights, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

import expunge as ex
from expunge import ExpungeError, Region, Request, Rows, registry
from expunge.task import Classification
from kit import Untouchable, accuracy, bits


@dataclass(frozen=True)
class Noting(Classification):
    """Remembers each image that was trained on, with the label it was shown under."""

    shown: list[tuple[bytes, int]] = field(default_factory=list)

    def loss(self, model: nn.Module, x_B: Tensor, y_B: Tensor) -> Tensor:
        if model.training:  # the saliency, which takes true labels, is measured in eval mode
            self.shown.extend((x.numpy().tobytes(), int(y)) for x, y in zip(x_B, y_B))
        return super().loss(model, x_B, y_B)


@pytest.fixture
def few(train: Rows) -> Request:
    """The threes of the first 400 rows, where speed matters more than accuracy."""
    return Request(train.take(torch.arange(400)), classes=[3])


def masks_of(model: nn.Module, request: Request, keep: float, scope: str = "global") -> dict[str, Tensor]:
    return Region.top(ex.saliency(model, request), keep, scope=scope).masks


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_only_the_salient_weights_differ_from_the_original(keep, optimizer, net, few):
    lr = 0.02 if optimizer == "sgd" else 2e-3
    out = ex.unlearn(net, few, "salun", keep=keep, optimizer=optimizer, lr=lr, weight_decay=0.1).model
    masks, moved = masks_of(net, few, keep), 0
    for name, p in net.named_parameters():
        before, after = p.detach().numpy(), out.get_parameter(name).detach().numpy()
        stays = ~masks[name].numpy()
        assert before[stays].tobytes() == after[stays].tobytes(), name
        moved += int((before != after).sum())
    allowed = int(keep * sum(p.numel() for p in net.parameters()))
    assert sum(int(m.sum()) for m in masks.values()) == allowed
    assert 0.8 * allowed < moved <= allowed


def test_a_clipped_gradient_is_that_of_the_salient_weights(net, few):
    plain = {
        "epochs": 1,
        "batch_size": 1000,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "mix": "shuffled",
        "schedule": "constant",
    }
    lengths = {}
    for clip in (None, 0.01):
        out = ex.unlearn(net, few, "salun", keep=0.3, lr=0.5, clip_norm=clip, **plain).model
        moves = [q.detach() - p.detach() for q, p in zip(out.parameters(), net.parameters())]
        lengths[clip] = float(torch.cat([m.flatten() for m in moves]).norm())
    assert lengths[0.01] == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert lengths[None] > 2 * lengths[0.01]


@pytest.mark.parametrize("mix", ["shuffled", "in_turn", "together"])
def test_a_share_of_one_is_random_labelling_to_the_bit(mix, net, few):
    one, other = (
        ex.unlearn(net, few, n, mix=mix, seed=4, **f) for n, f in (("salun", {"keep": 1}), ("random_label", {}))
    )
    assert bits(one.model) == bits(other.model)


def test_with_one_weight_only_that_and_the_statistics_change(net, few):
    n = sum(p.numel() for p in net.parameters())
    out = ex.unlearn(net, few, "salun", keep=1.5 / n).model
    scores = ex.saliency(net, few)
    changed = {name: (p != out.get_parameter(name)) for name, p in net.named_parameters()}
    assert sum(int(c.sum()) for c in changed.values()) == 1
    top = max(scores, key=lambda name: float(scores[name].max()))
    assert int(changed[top].flatten().int().argmax()) == int(scores[top].flatten().argmax())
    statistics = [name for name, _ in net.named_buffers() if "running" in name]
    assert all(not torch.equal(net.get_buffer(name), out.get_buffer(name)) for name in statistics)


@pytest.mark.parametrize("mix", ["shuffled", "in_turn", "together"])
def test_a_forget_row_is_never_shown_under_its_own_label_and_other_labels_are_drawn_evenly(mix, net, train):
    train = train.take(torch.arange(400))
    request = Request(train, ids=train.ids[:150].tolist())
    task = Noting(classes=10)
    ex.unlearn(net, request, "salun", task=task, epochs=4, mix=mix)
    true = {train.x(torch.tensor([i]))[0].numpy().tobytes(): int(train.y[i]) for i in range(len(train))}
    forget = {train.x(i[None])[0].numpy().tobytes() for i in request.forget}
    again = [(x, y) for x, y in task.shown if x in forget]
    assert len(again) >= 4 * 150
    assert all(true[x] != y for x, y in again)
    assert all(true[x] == y for x, y in task.shown if x not in forget)
    shift = np.bincount([(y - true[x]) % 10 for x, y in again], minlength=10)
    assert shift[0] == 0
    assert chisquare(shift[1:]).pvalue > 1e-3
    assert len({x for x, _ in task.shown} - forget) == len(set(true) - forget)


def test_in_turn_shows_all_forget_rows_before_the_retain_rows(net, train):
    train = train.take(torch.arange(400))
    request = Request(train, ids=train.ids[:200].tolist())
    task = Noting(classes=10)
    ex.unlearn(net, request, "salun", task=task, epochs=1, mix="in_turn")
    forget = {train.x(i[None])[0].numpy().tobytes() for i in request.forget}
    came = [x in forget for x, _ in task.shown]
    assert came[:200] == [True] * 200
    assert not any(came[200:])


def test_forgets_a_class_and_keeps_the_rest(net, train, three):
    out = ex.unlearn(net, three, "salun", batch_size=64).model
    assert accuracy(net, train, three.forget) > 0.95
    assert accuracy(out, train, three.forget) < 0.1
    assert accuracy(out, train, three.keep) >= 0.99 * accuracy(net, train, three.keep)


def test_the_weights_it_moves_matter_more_than_others(net, train, three):
    """The control of the mask's direction: the least salient half, moved likewise, forgets less."""
    most = masks_of(net, three, 0.5)
    least = {n: ~m for n, m in most.items()}
    settings = {"epochs": 1, "lr": 0.02, "batch_size": 64}
    left = [
        accuracy(ex.unlearn(net, three, "random_label", region=Region(masks=m), **settings).model, train, three.forget)
        for m in (most, least)
    ]
    assert left[0] < left[1] - 0.4


def test_the_weight_of_the_retain_term(net, train, three):
    """A step on both is the step on forget and alpha times that on retain; with 0 none of these is shown."""
    task = Noting(classes=10)
    ex.unlearn(net, three, "salun", task=task, epochs=1, alpha=0)
    forget = {train.x(i[None])[0].numpy().tobytes() for i in three.forget}
    assert {x for x, _ in task.shown} == forget
    whole = {
        "epochs": 1,
        "batch_size": len(train),
        "momentum": 0.0,
        "weight_decay": 0.0,
        "keep": 1,
        "mix": "together",
        "lr": 10,
    }
    first, more = net.head.bias, [0.0, 1.0, 3.0]
    steps = [ex.unlearn(net, three, "salun", alpha=a, **whole).model.head.bias - first for a in more]
    torch.testing.assert_close(steps[2] - steps[0], 3 * (steps[1] - steps[0]), rtol=1e-3, atol=1e-6)
    assert (steps[1] - steps[0]).abs().max() > 1e-3


def test_per_layer_is_the_share_of_each_tensor(net, few):
    out = ex.unlearn(net, few, "salun", keep=0.3, scope="per_layer").model
    for name, p in net.named_parameters():
        assert int((out.get_parameter(name) != p).sum()) <= int(0.3 * p.numel()), name


def test_its_saliency_is_counted_once(net, few):
    first, again = (ex.unlearn(net, few, "salun", epochs=1).log.examples for _ in range(2))
    assert (first, again) == (len(few.rows) + len(few.forget), len(few.rows))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep": 0}, "keep must be above 0 and at most 1.*nothing would be unlearned"),
        ({"keep": 1.2}, "keep must be above 0"),
        ({"alpha": -1}, "alpha must be 0 or more"),
        ({"scope": "layer"}, "scope"),
        ({"aggregation": "sum"}, "aggregation"),
        ({"region": "saliency"}, "leave saliency out of the region"),
        ({"region": "saliency", "share": 0.2}, "leave saliency out of the region"),
    ],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(ExpungeError, match=message):
        registry.make("salun", fields)


def test_frozen_weights_are_refused_before_compute(net, train):
    net.requires_grad_(False)
    with pytest.raises(ExpungeError, match="frozen"):
        ex.unlearn(net, Request(Untouchable.of(train), classes=[3]), "salun")


def test_a_frozen_part_stays_and_is_not_counted(net, few):
    frozen = next(n for n, _ in net.named_parameters())
    net.get_parameter(frozen).requires_grad_(False)
    out = ex.unlearn(net, few, "salun", keep=0.5).model
    assert torch.equal(out.get_parameter(frozen), net.get_parameter(frozen))
    assert sum(int(m.sum()) for m in masks_of(net, few, 0.5).values()) == int(
        0.5 * sum(p.numel() for n, p in net.named_parameters() if n != frozen)
    )


def test_the_published_share_is_the_default():
    assert ex.methods.Salun().keep == 0.5
