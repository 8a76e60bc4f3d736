"""WF-Net: its loss, its one round for all classes, and what one row of gates forgets and keeps."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import expunge as ex
from expunge import Classification, ExpungeError, Request, Rows, Run, explain
from expunge.artifact.activations import find_layers
from expunge.artifact.gates import Gated
from expunge.descend import descend
from expunge.experiment import from_dict
from expunge.io import model_digest
from expunge.loss import Loss
from expunge.methods import FineTune, WeightFilter
from expunge.methods.weight_filter.learning import Insisting, keeping, rejecting
from expunge.phase import Phase, Term
from kit import Recording, Untouchable, accuracy, bits

QUICK = {"per_class": 100, "epochs": 6, "lr": 0.3, "batch_size": 64, "draws": 1}
SETS = ((0,), (1,), (2,))


def insisting(rate: float = 0.0, wait: int = 0) -> Insisting:
    return Insisting(rate, wait, torch.zeros(3))


@pytest.fixture(scope="module")
def wide(train) -> nn.Module:
    """A convolutional network with units to spare; it is not changed by any test."""
    return ex.Recipe(model={"name": "convnet", "width": 32, "depth": 3, "norm": "batch"}, epochs=6, lr=0.1)(train)


@pytest.fixture(scope="module")
def gated(wide, train) -> Gated:
    return WeightFilter(**QUICK, keep_gates=False).prepare(wide, train)


def sides(model: nn.Module, rows: Rows, classes: list[int]) -> tuple[float, float]:
    """Accuracy on the classes, and on the others, in percent."""
    gone = torch.isin(rows.y, torch.tensor(classes))
    return tuple(100 * accuracy(model.eval(), rows, side.nonzero().flatten()) for side in (gone, ~gone))


class Telling(nn.Module):
    """In the place of a gated model: fixed logits for each example, and a memory of the rows that were chosen."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits, self.rows = logits, []

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:
        self.rows.append(rows)
        return self.logits[x[:, 0].long()]


# -- the loss ------------------------------------------------------------------------------------------------------


def test_the_forget_term_is_the_reciprocal_of_each_rows_loss():
    logits = torch.tensor([[3.0, 0.0, -1.0], [200.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
    net, x, y = Telling(logits), torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 0, 1])
    got = rejecting(SETS, 3, 0.1, insisting())(Classification(classes=3, label_smoothing=0.2), net, x, y)
    z = logits.double().numpy()
    ce = np.log(np.exp(z - z.max(1, keepdims=True)).sum(1)) + z.max(1) - z[range(3), y.numpy()]
    assert ce[1] == 0  # where the published loss is infinite
    np.testing.assert_allclose(got.numpy(), 1 / (ce + 0.1), rtol=1e-6)
    assert abs(got.mean() - 1 / (ce.mean() + 0.1)) > 3  # and not the reciprocal of the mean
    assert net.rows[0].tolist() == [0, 0, 1]
    assert torch.isfinite(rejecting(SETS, 3, 1e-8, insisting())(Classification(classes=3), net, x, y)).all()


def test_the_forget_term_grows_for_classes_that_are_still_recognised():
    logits = torch.tensor([[3.0, 0.0, -1.0], [0.0, 5.0, 0.0], [9.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
    net, x, y = Telling(logits), torch.arange(4)[:, None].float(), torch.tensor([0, 1, 1, 1])  # recognised: 1 and 1/3
    loss = rejecting(SETS, 3, 0.1, insisting(rate=2.0, wait=1))
    z = logits.double().numpy()
    plain = 1 / (np.log(np.exp(z).sum(1)) - z[range(4), y.numpy()] + 0.1)
    shares = np.array([1, 1 / 3, 1 / 3, 1 / 3])
    for step in range(5):  # the first does not count
        got = loss(Classification(classes=3), net, x, y).numpy()
        factors = np.minimum(np.exp(max(0, step - 1) * 2.0 * (shares - 0.01)), 50)
        np.testing.assert_allclose(got, plain * factors, rtol=1e-5)
    rejected = Telling(logits.roll(1, 1))
    for _ in range(3000):  # and falls again, no further than to where it began
        got = loss(Classification(classes=3), rejected, x[:1], y[:1])
    np.testing.assert_allclose(got.numpy(), 1 / (math.log(math.exp(3) + 1 + math.exp(-1)) + 1 + 0.1), rtol=1e-5)


def test_insisting_makes_classes_go_that_would_stay(mlp, train):
    left = []
    for insist in (0.0, 1.0):
        method = WeightFilter(**QUICK, retain=30.0, insist=insist, keep_gates=False)
        left.append(method.prepare(mlp, train).left)
    assert max(left[0]) > 0.1
    assert sum(left[1]) < sum(left[0]) / 2


def test_more_weight_on_rejecting_leaves_less_of_every_class(mlp, train):
    left = []
    for reject in (0.03, 0.3, 3.0):  # beside retain = 3
        method = WeightFilter(**QUICK, reject=reject, insist=0.0, keep_gates=False)
        left.append(np.array(method.prepare(mlp, train).left))
    assert left[0].mean() > 0.3
    assert left[0].mean() > 3 * left[1].mean()
    assert left[1].mean() > 3 * left[2].mean()
    assert left[2].max() < 0.02


def test_the_retain_term_takes_rows_of_other_classes_and_none_twice():
    classes, n, draws = 5, 400, 3
    y = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(0))
    logits = torch.randn((n, classes), generator=torch.Generator().manual_seed(1))
    net, x = Telling(logits), torch.arange(n)[:, None].float()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        got = keeping(tuple((c,) for c in range(classes)), classes, draws)(Classification(classes=classes), net, x, y)
    torch.testing.assert_close(got, nn.functional.cross_entropy(logits, y, reduction="none"))
    rows = net.rows[0].view(draws, n).T
    assert not (rows == y[:, None]).any()
    assert all(len(set(r)) == draws for r in rows.tolist())
    for label in range(classes):  # evenly over the four others, by a chi-squared of three degrees of freedom
        seen = np.bincount(rows[y == label].flatten(), minlength=classes)
        expected = seen.sum() / (classes - 1)
        assert ((np.delete(seen, label) - expected) ** 2 / expected).sum() < 16.3  # p = 0.001


def test_the_mean_of_what_is_closed_is_charged(mlp, train):
    shares = []
    for closed in (0.0, 3.0, 300.0):
        method = WeightFilter(**{**QUICK, "epochs": 3}, closed=closed, keep_gates=False)
        shares.append(float((1 - method.prepare(mlp, train).gates()).detach().mean()))
    assert shares[0] > shares[1] > shares[2]
    assert shares[2] < 1e-3  # at this weight no gate closes


# -- what it does --------------------------------------------------------------------------------------------------


def test_one_round_forgets_any_class_and_keeps_the_others(gated, wide, train, test):
    before = model_digest(wide)
    base = 100 * accuracy(wide.eval(), test)
    matrix = []
    for c in range(10):
        model = gated.forgetting([c])
        matrix.append([sides(model, test, [j])[0] for j in range(10)])
    matrix = np.array(matrix)
    assert base > 97
    assert np.diag(matrix).mean() <= 0.5
    assert np.diag(matrix).max() <= 3
    others = matrix[~np.eye(10, dtype=bool)]
    assert others.mean() > base - 3
    assert others.min() > base - 20
    assert model_digest(wide) == before
    gates = gated.gates().detach()
    assert 0.03 < float((gates < 0.5).float().mean()) < 0.3
    rows = nn.functional.normalize(1 - gates)
    assert float((rows @ rows.T)[~torch.eye(10).bool()].mean()) < 0.5  # each class has units of its own


def all_rows(gated: Gated, test: Rows) -> tuple[float, float, float]:
    """Of ten rows of gates, in percent: mean and worst of their own class's accuracy, and mean on the others."""
    own, others = np.array([sides(gated.forgetting([c]), test, [c]) for c in range(10)]).T
    return own.mean(), own.max(), others.mean()


def test_the_published_floor_costs_what_stays(gated, wide, train, test):
    """Rows that the model is sure of have gradients that drown those of all others."""
    _, worst, stays = all_rows(gated, test)
    _, _, published = all_rows(WeightFilter(**QUICK, floor=1e-8, keep_gates=False).prepare(wide, train), test)
    assert worst <= 3
    assert stays > published + 2.5


def round_of(wide: nn.Module, train: Rows, forget: Loss) -> Gated:
    """The round with another forget term, and otherwise as `QUICK`."""
    model, sets = copy.deepcopy(wide), tuple((c,) for c in range(10))
    layers = [layer for layer in find_layers(model)[0] if not layer.name.startswith("head")]
    gated = Gated(model, layers, sets)
    shown = torch.cat([(train.y == c).nonzero().flatten()[:100] for c in range(10)])
    phase = Phase(
        terms=(Term("retain", weight=3.0, loss=keeping(sets, 10, 1)), Term("forget", loss=forget)),
        epochs=6,
        lr=0.3,
        batch_size=64,
        optimizer="adam",
        weight_decay=0.0,
        penalty=lambda _, __: 0.1 * (1 - gated.gates()).mean(),
    )
    descend(gated, train, {"retain": shown, "forget": shown}, Classification(classes=10), [phase], Run())
    return gated


def test_ascent_in_the_place_of_the_reciprocal_fails(wide, train, test):
    """Without a bound, classes that are gone already take every step, and the others stay or fall."""
    base = 100 * accuracy(wide.eval(), test)
    none = Insisting(0.0, 0, torch.zeros(10))
    _, worst, stays = all_rows(round_of(wide, train, rejecting(tuple((c,) for c in range(10)), 10, 0.1, none)), test)
    assert worst <= 3
    assert stays > base - 3

    def ascent(task: Classification, net: nn.Module, x_B: Tensor, y_B: Tensor) -> Tensor:
        return -nn.functional.cross_entropy(net(x_B, y_B), y_B, reduction="none")

    _, worst, stays = all_rows(round_of(wide, train, ascent), test)
    assert worst > 50
    assert stays < base - 10


def test_a_round_for_one_class_agrees_with_the_round_for_all(gated, wide, train, test):
    apart = []
    for c in (1, 3, 5, 8):
        alone = ex.unlearn(wide, Request(train, classes=[c]), "weight_filter", gates="request", **QUICK)
        assert bits(alone.model) != bits(gated.forgetting([c]))
        apart.append(np.subtract(sides(alone.model, test, [c]), sides(gated.forgetting([c]), test, [c])))
    assert np.abs(apart).mean(0).max() <= 1
    assert np.abs(apart).max() <= 3  # of a class there are 35 rows


def test_the_units_that_it_names_are_those_that_the_class_needs(gated, test):
    """Taken from the model by themselves: those of the class kill the class, as many others do not."""
    shut = 1 - gated.gates().detach()
    own, other = [], []
    for c in range(10):
        for chosen, found in ((c, own), ((c + 5) % 10, other)):
            keep = torch.ones_like(shut[0])
            keep[shut[chosen].topk(8).indices] = 0
            found.append(sides(gated.folded(keep), test, [c])[0])
    assert np.mean(own) < 50 < 80 < np.mean(other)


def test_it_is_the_unlearned_model_and_other_classes_cost_nothing(wide, train, test):
    first = ex.unlearn(wide, Request(train, classes=[3]), "weight_filter", **QUICK)
    assert first.log.examples == 6 * 2 * 1000
    assert sides(first.model, test, [3])[0] == 0
    second = ex.unlearn(wide, Request(train, classes=["5"]), "weight_filter", **QUICK)
    assert (second.log.examples, second.log.steps) == (0, 0)
    assert bits(first.forgetting([5])) == bits(second.model)
    assert bits(second.forgetting([3])) == bits(first.model)
    both = ex.unlearn(wide, Request(train, classes=[3, 5]), "weight_filter", **QUICK)
    assert bits(first.forgetting(["5", 3])) == bits(both.model)
    assert both.log.examples == 0
    assert type(first.forgetting([5])) is type(wide)
    # and it knows what has gone, so that nobody trains it back in
    gone = first.forgetting([5])._expunge_gone[train.hash]
    assert gone == train.ids[(train.y == 5).numpy()].tolist()
    for other in ({"epochs": 5}, {"closed": 0.2}, {"layers": ["features.4*"]}, {"seed": 1}):
        anew = ex.unlearn(wide, Request(train, classes=[3]), "weight_filter", **{**QUICK, **other})
        assert anew.log.examples > 0
        assert bits(anew.model) != bits(first.model)


def test_gates_of_the_request_forget_its_classes_together(wide, train, test):
    request = Request(train, classes=[1, 8])
    least = ex.unlearn(wide, request, "weight_filter", **QUICK)
    joint = ex.unlearn(wide, request, "weight_filter", gates="request", **QUICK)
    assert joint.made["gates"].sets == ((1, 8),)
    forget, retain = sides(joint.model, test, [1, 8])
    assert forget <= 3
    assert retain > sides(least.model, test, [1, 8])[1]
    with pytest.raises(ExpungeError, match=r"gates that forget class 1 and 8; none for \[1\]"):
        joint.forgetting([1])


def test_rows_that_had_gone_are_never_shown(wide, train):
    rows = Recording.of(train)
    before = copy.deepcopy(wide)
    before._expunge_gone = {train.hash: train.ids[(train.y == 2).numpy()].tolist()}
    result = ex.unlearn(before, Request(rows, classes=[3]), "weight_filter", **{**QUICK, "epochs": 1})
    assert set(train.y[rows.seen].tolist()) == set(range(10)) - {2}
    assert result.log.facts["gates"]["classes"] == list("013456789")
    with pytest.raises(ExpungeError, match=r"selects 0 of 1,438 examples"):
        result.forgetting([2])


@pytest.mark.parametrize("gates", ["classes", "request"])
def test_a_class_that_had_gone_may_be_named_again(gates, wide, train):
    few = {**QUICK, "gates": gates, "keep_gates": False, "per_class": 30, "epochs": 1}
    first = ex.unlearn(wide, Request(train, classes=[3]), "weight_filter", **few)
    both = ex.unlearn(first.model, Request(train, classes=[3, 5]), "weight_filter", **few)
    assert bits(both.model) == bits(ex.unlearn(first.model, Request(train, classes=[5]), "weight_filter", **few).model)
    assert bits(both.forgetting([3, 5])) == bits(both.model)
    assert both.model._expunge_gone[train.hash] == train.ids[torch.isin(train.y, torch.tensor([3, 5])).numpy()].tolist()


def test_hard_gates_take_their_units_out_altogether(wide, train, test):
    result = ex.unlearn(wide, Request(train, classes=[4]), "weight_filter", hard=True, **QUICK)
    forget, retain = sides(result.model, test, [4])
    assert forget <= 3
    assert retain > 85
    taken = 0
    for i in (0, 4, 8):
        new, old = (m.get_parameter(f"features.{i}.weight").flatten(1) for m in (result.model, wide))
        out = (new == 0).all(1)
        assert torch.equal(new[~out], old[~out])
        taken += int(out.sum())
    assert 2 <= taken <= 40


def test_classes_that_it_failed_to_forget_are_named(mlp, train):
    method = {**QUICK, "epochs": 1, "lr": 1e-4}
    result = ex.unlearn(mlp, Request(train, classes=[3]), "weight_filter", **method)
    (note,) = result.log.notes
    share = 100 * result.made["gates"].left[3]
    assert share > 90
    assert f"forget class 3 leave {share:.0f} % of its rows recognised" in note
    again = ex.unlearn(mlp, Request(train, classes=[3, 4]), "weight_filter", **method)
    assert again.log.examples == 0  # the gates were kept, and what is to be said of them
    assert again.log.notes[0] == note
    assert "class 4 leave" in again.log.notes[1]


def test_facts_are_plain_and_say_what_is_closed(wide, train):
    import json

    result = ex.unlearn(wide, Request(train, classes=[4]), "weight_filter", **{**QUICK, "epochs": 2})
    told = json.loads(json.dumps(result.log.facts))["gates"]
    shut = 1 - result.made["gates"].gates().detach()
    assert told["classes"] == list("0123456789")
    assert [layer["units"] for layer in told["layers"]] == [32, 32, 32]
    np.testing.assert_allclose(told["closed"], shut.view(10, 3, 32).mean(2).numpy(), atol=1e-4)
    name, value = told["most"][4][0]
    assert value == pytest.approx(float(shut[4].max()), abs=1e-3)
    layer, unit = name.split(":")
    assert shut[4, 32 * [x["name"] for x in told["layers"]].index(layer) + int(unit)] == shut[4].max()


def test_its_maps_find_what_matters(gated, wide, test):
    x, y = test.x(torch.arange(150)), test.y[:150]
    ways = {"gates": explain.gate_maps(gated.closed(10)), "chance": explain.chance}
    mine, chance = explain.compare(wide, x, y, ways, steps=16)
    assert mine["insertion"] > chance["insertion"] + chance["insertion_se"]
    assert mine["deletion"] < chance["deletion"] - chance["deletion_se"]


# -- bad input -----------------------------------------------------------------------------------------------------


def test_samples_are_refused_with_what_would_fit(wide, train):
    with pytest.raises(ExpungeError, match=r"weight_filter forgets class; .* 3 samples.*\n.*neggrad_plus"):
        ex.unlearn(wide, Request(train, ids=train.ids[:3].tolist()), "weight_filter")


def test_a_retain_set_with_the_class_is_refused(wide, train):
    request = Request(train, classes=[3])
    request.state[request.forget[:7]] = 0  # what no request of ours does
    for name in ("forget", "keep"):
        vars(request).pop(name)
    with pytest.raises(ExpungeError, match=r"7 of the .* retain rows are of a class that must go"):
        ex.unlearn(wide, request, "weight_filter")


def test_one_class_that_would_be_left_is_refused(wide, train):
    result = ex.unlearn(wide, Request(train, classes=[3]), "weight_filter", **{**QUICK, "epochs": 1})
    with pytest.raises(ExpungeError, match="class"):
        result.forgetting(list(range(9)))
    with pytest.raises(ExpungeError, match="Unknown class 'seven'"):
        result.forgetting(["seven"])


def test_other_methods_say_that_they_answer_one_request(mlp, train):
    result = ex.unlearn(mlp, Request(train, classes=[3]), "random_label", epochs=1)
    with pytest.raises(ExpungeError, match="random_label answers one request at a time"):
        result.forgetting([4])
    chain = WeightFilter(**{**QUICK, "epochs": 1}).then(FineTune(epochs=1))
    with pytest.raises(ExpungeError, match="chain answers one request at a time"):
        ex.unlearn(mlp, Request(train, classes=[3]), chain).forgetting([4])


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fc, self.head = nn.Embedding(12, 16), nn.Linear(16, 24), nn.Linear(24, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.fc(self.embed(tokens)).relu().mean(1))


def test_tokens_are_inputs_like_any_other():
    draws = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 3
    tokens = torch.randint(4, (300, 6), generator=draws) + 4 * y[:, None]
    rows = Rows(tokens, y, name="words")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Words()
    model = ex.unlearn(model, Request(rows, ids=[0]), FineTune(epochs=3, lr=0.1, batch_size=32)).model
    model._expunge_gone = {}
    assert accuracy(model, rows) == 1
    result = ex.unlearn(model, Request(rows, classes=[0]), "weight_filter", **{**QUICK, "epochs": 30}, start=0.0)
    assert sides(result.model, rows, [0]) == (0.0, 100.0)
    assert "embed.weight (Embedding)" in result.log.notes[0]


def test_a_model_without_a_layer_before_its_head_is_refused(train):
    model = ex.Recipe(model={"name": "mlp", "hidden": []}, epochs=1, lr=0.1)(train)
    with pytest.raises(ExpungeError, match="No layer of the model can be gated"):
        ex.unlearn(model, Request(train, classes=[3]), "weight_filter")


class Twice(nn.Module):
    """Uses a weight behind its module's back."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(64, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fc(x.flatten(1)).relu() @ self.fc.weight @ self.fc.weight.T)


@pytest.mark.parametrize(
    ("model", "settings", "told"),
    [
        ({"name": "mlp"}, {"layers": ["cf*"]}, "Unknown layer pattern 'cf\\*'.*There are: "),
        ({"name": "mlp", "hidden": []}, {}, "No layer of the model can be gated"),
    ],
)
def test_layers_that_cannot_be_gated_are_told_by_a_check_of_the_file(model, settings, told):
    config = {"model": model, "data": {"name": "digits"}, "request": {"classes": [3]}, "recipe": {"epochs": 1}}
    with pytest.raises(ExpungeError, match=rf"methods\.0 \(weight_filter\): weight_filter: {told}"):
        from_dict({**config, "methods": [{"name": "weight_filter", **settings}]})


def test_a_weight_that_is_used_behind_its_back_is_refused_before_any_compute(train):
    with pytest.raises(ExpungeError, match="Scaling the activations of this model is not the same"):
        ex.unlearn(Twice(), Request(Untouchable.of(train), classes=[3]), "weight_filter")


def test_a_check_of_the_layers_touches_nothing(net, train, three):
    for i, module in enumerate(net.modules()):
        module.training = i % 2 == 0
    modes, before, state = [m.training for m in net.modules()], bits(net), torch.get_rng_state().clone()
    task = Classification(classes=10)
    assert WeightFilter().problems(net, three, task, ()) == []
    assert len(WeightFilter(layers=("cf*",)).problems(net, three, task, ())) == 1
    assert bits(net) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in net.modules()] == modes
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks for m in net.modules())


class Breaking(nn.Module):
    """NaN for images whose first pixel is marked."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out = self.inner(x)
        return torch.where((x[:, 0, 0, 0] > 50)[:, None], math.nan, out)


def test_nan_is_told_with_the_rows_that_make_it(wide, train):
    x = train.x(torch.arange(len(train))).clone()
    x[77, 0, 0, 0] = 99.0
    rows = Rows(x, train.y, classes=train.classes, name="marked")
    with pytest.raises(ExpungeError, match=r"model itself returns NaN or infinity for rows of marked, e\.g\. \[77\]"):
        ex.unlearn(Breaking(copy.deepcopy(wide)), Request(rows, classes=[3]), "weight_filter", per_class=None, epochs=1)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("draws", 0),
        ("per_class", 0),
        ("floor", 0.0),
        ("retain", -1.0),
        ("closed", math.inf),
        ("gates", "all"),
        ("layers", ()),
        ("epochs", -1),
        ("lr", 0.0),
        ("start", math.nan),
    ],
)
def test_wrong_settings_are_refused_by_name(field, wrong):
    with pytest.raises(ExpungeError, match=f"weight_filter: .*{field}"):
        WeightFilter(**{field: wrong})


def test_prepare_leaves_everything_as_it_was(mlp, train):
    mlp.train()
    before, state = bits(mlp), torch.get_rng_state().clone()
    gated = WeightFilter(**{**QUICK, "epochs": 1}, keep_gates=False).prepare(mlp, train, run=Run(seed=3))
    assert bits(mlp) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert mlp.training
    assert all(p.requires_grad for p in mlp.parameters())
    assert gated.forgetting([1]).training


class Turned(ex.Classification):
    """A task of one's own: the least likely class is the answer."""

    def scores(self, model: nn.Module, x_B: Tensor) -> Tensor:
        return -super().scores(model, x_B)


def test_gates_of_another_task_are_not_served(mlp, train):
    request = Request(train, classes=[3])
    quick = {**QUICK, "epochs": 1}
    for task, shown in ((None, 2000), (None, 0), (Turned(classes=10), 2000), (Turned(classes=10), 2000)):
        assert ex.unlearn(mlp, request, "weight_filter", task=task, **quick).log.examples == shown


def test_a_place_that_cannot_be_written_costs_no_result(mlp, train, tmp_path, monkeypatch):
    request, quick = Request(train, classes=[3]), {"epochs": 1, "per_class": 20, "batch_size": 64}
    kept = ex.unlearn(mlp, request, "weight_filter", **quick)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "file"))
    result = ex.unlearn(mlp, request, "weight_filter", **quick)
    (told,) = [note for note in result.log.notes if "EXPUNGE_CACHE" in note]
    assert told.startswith("The gates are not kept")
    assert result.log.steps == kept.log.steps > 0
    assert bits(result.model) == bits(kept.model)
