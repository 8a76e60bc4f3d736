"""SSD against its definition in NumPy; what it must leave alone; what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import expunge as ex
from expunge import ExpungeError, Request
from expunge.artifact.per_sample import weights_of
from expunge.methods.ssd import SSD, factors
from gradients import Exact, Wide, arrays, of_loss, of_norm, some_rows
from kit import Recording, Untouchable, accuracy, bits


@pytest.fixture
def case():
    """A small network in float64, and a request for some rows of one class."""
    rows = some_rows(60)
    return Wide(), Request(rows, ids=list(range(0, 42, 3)))


def by_numpy(weight, forget, everything, alpha, dampening) -> np.ndarray:
    weight = weight.copy()
    for j in range(len(weight)):
        if forget[j] > alpha * everything[j]:
            weight[j] *= min(dampening * everything[j] / forget[j], 1)
    return weight


@pytest.mark.parametrize("labels", ["own", "none"])
@pytest.mark.parametrize(("alpha", "dampening"), [(1.2, 1.0), (1.5, 0.5), (0.5, 0.8)])
def test_it_is_the_formula(case, labels, alpha, dampening):
    net, request = case
    x, y = arrays(request.rows, torch.arange(60))
    went = (request.state == 1).numpy()
    assert went.sum() == 14
    each = of_loss(net, x, y) ** 2 if labels == "own" else np.abs(of_norm(net, x))
    expected = by_numpy(weights_of(net).numpy(), each[went].mean(0), each.mean(0), alpha, dampening)
    fields = {"alpha": alpha, "dampening": dampening, "labels": labels}
    result = ex.unlearn(net, request, "ssd", task=Exact(3), **fields)
    np.testing.assert_allclose(weights_of(result.model), expected, rtol=1e-10)
    assert 0 < result.log.facts["ssd"]["selected"] < 39
    assert result.log.examples == 60


def test_batches_are_of_one_size_on_both_sides(case):
    """14 rows in batches of 10 at most are two of 7; so all 60 are taken by 7 as well, and 4 are left out."""
    net, request = case
    rows = Recording.of(request.rows)
    request = Request(rows, ids=list(range(0, 42, 3)))
    result = ex.unlearn(net, request, "ssd", task=Exact(3), labels="own", gradients="batch", batch_size=10, alpha=1.1)
    seen = rows.seen
    assert len(seen) == 14 + 56
    assert sorted(seen[:14]) == request.forget.tolist()
    assert len(set(seen[14:])) == 56
    x, y = arrays(rows, torch.tensor(seen))
    g = of_loss(net, x, y)
    means = np.square([g[i : i + 7].mean(0) for i in range(0, 70, 7)])
    expected = by_numpy(weights_of(net).numpy(), means[:2].mean(0), means[2:].mean(0), 1.1, 1.0)
    np.testing.assert_allclose(weights_of(result.model), expected, rtol=1e-10)


def test_by_rows_the_size_of_batches_has_no_part_in_it(case):
    net, request = case
    made = [bits(ex.unlearn(net, request, "ssd", task=Exact(3), alpha=1.2, batch_size=b).model) for b in (3, 128)]
    assert made[0] == made[1]


# -- what the formula promises -----------------------------------------------------------------------------------------


def test_factors_shrink_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    forget = torch.rand(5000, generator=generator, dtype=torch.float64) ** 4
    everything = torch.rand(5000, generator=generator, dtype=torch.float64) ** 4
    forget[:100] = 0
    everything[50:200] = 0
    for alpha, dampening in ((0.1, 3.0), (1.0, 1.0), (10.0, 0.2)):
        f = factors(forget, everything, alpha, dampening)
        assert torch.isfinite(f).all()
        assert f.min() >= 0
        assert f.max() <= 1
        assert (f[:100] == 1).all()  # of no importance to the forget rows: no 0 / 0
        assert (f[100:200] == 0).all()  # of importance to them alone
        assert (f[forget <= alpha * everything] == 1).all()


def test_when_all_rows_go_nothing_is_selected():
    everything = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for alpha in (1.0, 2.0):
        assert (factors(everything, everything, alpha, 0.1) == 1).all()
    torch.testing.assert_close(factors(everything, everything, 0.99, 0.1), torch.full_like(everything, 0.1))


def test_a_large_alpha_and_a_large_dampening_do_nothing_and_say_so(mlp, three):
    result = ex.unlearn(mlp, three, "ssd", alpha=1e9)
    assert bits(result.model) == bits(mlp)
    assert result.log.facts["ssd"]["selected"] == 0
    assert "No weight was dampened, so the model is the original" in result.log.notes[0]
    result = ex.unlearn(mlp, three, "ssd", alpha=2.0, dampening=1e9)
    assert bits(result.model) == bits(mlp)
    assert result.log.facts["ssd"]["selected"] > 0
    assert "a dampening of 1e+09 leaves them as they are" in result.log.notes[0]


def test_signs_stay_and_sizes_do_not_grow(net, three):
    before = weights_of(net)
    after = weights_of(ex.unlearn(net, three, "ssd", alpha=3.0).model)
    assert (before * after >= 0).all()
    assert (after.abs() <= before.abs()).all()
    assert (after != before).any()


def test_less_alpha_and_less_dampening_move_more(mlp, three):
    before = weights_of(mlp)

    def moved(**fields) -> float:
        return float((weights_of(ex.unlearn(mlp, three, "ssd", **fields).model) - before).norm())

    by_alpha = [moved(alpha=a) for a in (30.0, 9.0, 4.0, 2.0)]
    assert by_alpha == sorted(by_alpha)
    assert moved(alpha=4.0, dampening=0.2) > moved(alpha=4.0) > moved(alpha=4.0, dampening=2.0)


def test_random_rows_are_not_forgotten(mlp, train):
    """The known limit: their importances are those of all rows, but for chance and for rows that are hard."""
    request = Request(train, fraction=0.2)
    result = ex.unlearn(mlp, request, "ssd")
    assert accuracy(result.model, train, request.forget) > 0.9
    a_class = ex.unlearn(mlp, Request(train, classes=[3]), "ssd")
    assert result.log.facts["ssd"]["selected"] < 0.5 * a_class.log.facts["ssd"]["selected"]


def test_by_rows_no_weight_is_more_important_than_the_share_of_the_rows_allows(mlp, train, three):
    """So that a published alpha of 10 does nothing for a class in ten, and says so."""
    bound = len(train) / len(three.forget)
    note = ex.unlearn(mlp, three, "ssd", alpha=1.001 * bound).log.notes[0]
    assert f"cannot be more than {bound:.3g}" in note


# -- what stays -------------------------------------------------------------------------------------------------------


def test_statistics_and_frozen_weights_stay(net, three):
    net.train()
    names = [name for name, _ in net.named_parameters()]
    for name, p in net.named_parameters():
        p.requires_grad_(name != names[0])
    result = ex.unlearn(net, three, "ssd", alpha=2.0)
    assert torch.equal(dict(result.model.named_parameters())[names[0]], dict(net.named_parameters())[names[0]])
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), result.model.buffers()))
    assert result.moved > 0


def test_a_weight_that_is_tied_stays_tied(train, three):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(64, 10), nn.Linear(64, 10)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.a(x.flatten(1)) + self.b(x.flatten(1).flip(1))

    torch.manual_seed(0)
    net = Tied()
    result = ex.unlearn(net, three, "ssd", labels="own", alpha=1.5)
    assert result.model.a.weight is result.model.b.weight
    # the gradient of a tied weight is the sum over its uses
    x = train.x(torch.arange(len(train))).flatten(1).double().numpy()
    w, a, b = (p.detach().double().numpy() for p in (net.a.weight, net.a.bias, net.b.bias))
    z = x @ w.T + a + x[:, ::-1] @ w.T + b
    slope = np.exp(z - z.max(1, keepdims=True))
    slope = slope / slope.sum(1, keepdims=True) - np.eye(10)[train.y.numpy()]
    square = np.square(np.einsum("nc,ni->nci", slope, x + x[:, ::-1]))
    went = train.y.numpy() == 3
    expected = by_numpy(w.ravel(), square[went].mean(0).ravel(), square.mean(0).ravel(), 1.5, 1.0)
    np.testing.assert_allclose(result.model.a.weight.detach().numpy().ravel(), expected, rtol=1e-4, atol=1e-6)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"alpha": 0}, "alpha must be a number above 0"),
        ({"alpha": float("inf")}, "alpha must be a number above 0"),
        ({"alpha": True}, "alpha must be a number; got True"),
        ({"dampening": -1.0}, "dampening must be a number above 0"),
        ({"labels": "owm"}, "labels must be own, model or none; got 'owm'. Did you mean 'own'"),
        ({"gradients": "rows"}, "Unknown gradients 'rows'. Did you mean 'row'"),
        ({"gradients": "batch", "labels": "model"}, ".*take gradients: row"),
        ({"batch_size": 0}, "batch_size must be a whole number, 1 or more"),
        ({"batch_size": 2.5}, "batch_size must be a whole number; got 2.5"),
    ],
)
def test_wrong_fields_are_refused(wrong, said):
    with pytest.raises(ExpungeError, match=f"ssd: {said}"):
        SSD(**wrong)


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(ExpungeError) as error:
        SSD(alpha=-1, batch_size=0, labels="x")
    assert len(error.value.problems) == 3


@pytest.mark.parametrize("name", ["ssd", "influence", "fisher"])
def test_models_whose_rows_have_no_gradients_are_refused_before_compute(name, train, mlp):
    rows = Untouchable.of(train)
    request = Request(rows, classes=[3])
    bare = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10, track_running_stats=False))
    with pytest.raises(ExpungeError, match=f"{name}: 2 keeps no running statistics"):
        ex.unlearn(bare, request, name)
    with pytest.raises(ExpungeError, match=f"{name}: Every weight is frozen"):
        ex.unlearn(mlp.requires_grad_(False), request, name)


@pytest.mark.parametrize("name", ["ssd", "influence", "fisher"])
def test_gradients_that_are_nan_leave_the_model_as_it_is(name, train, three):
    """The scores are finite, and their gradient is 0 × ∞ on some row."""

    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = nn.Linear(64, 8), nn.Linear(8, 10)

        def forward(self, x):
            hidden = self.hidden(x.flatten(1))
            return self.out((hidden * (hidden > 0)).sqrt())

    torch.manual_seed(0)
    net = Root()
    before = bits(net)
    with pytest.raises(ExpungeError, match=r"NaN or infinite in hidden\.weight"):
        ex.unlearn(net, three, name)
    assert bits(net) == before
