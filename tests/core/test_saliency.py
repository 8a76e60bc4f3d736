"""Saliency: the gradient of the forget rows, against NumPy; what it leaves untouched, and what it refuses."""

from __future__ import annotations

import copy
import re
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import expunge as ex
from expunge import ExpungeError, Region, Request, Rows, registry
from expunge.artifact import Store
from expunge.artifact.saliency import measure
from expunge.io import model_digest
from expunge.run import Run
from expunge.task import Classification

TASK = Classification(classes=3)


def some(n: int = 40, features: int = 5) -> Rows:
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.normal(size=(n, features))).float()
    return Rows(x, torch.from_numpy(random.integers(0, 3, n)), classes=["a", "b", "c"], name="some")


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 3))


def by_numpy(model: nn.Sequential, rows: Rows, index: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The gradient of each row's cross-entropy, for weight (N, 3, 5) and bias (N, 3), in closed form."""
    x, y = rows.x(index).double().numpy(), rows.y[index].numpy()
    logits = x @ model[0].weight.detach().double().numpy().T + model[0].bias.detach().double().numpy()
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    error = p - np.eye(3)[y]
    return error[:, :, None] * x[:, None, :], error


class Wide(nn.Module):
    """A model in double precision."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.double())


AGGREGATED = {
    "abs_of_sum": lambda g: np.abs(g.mean(0)),
    "sum_of_abs": lambda g: np.abs(g).mean(0),
    "sum_of_squares": lambda g: np.square(g).mean(0),
}


@pytest.fixture
def few(train: Rows) -> Request:
    """The threes of the first 400 rows, where speed matters more than accuracy."""
    return Request(train.take(torch.arange(400)), classes=[3])


# -- the numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 7, 13, 256])
@pytest.mark.parametrize("aggregation", AGGREGATED)
def test_the_scores_are_those_of_the_closed_form_whatever_the_batch_size(aggregation, batch_size):
    rows, model = some(), linear()
    request = Request(rows, ids=rows.ids[:13].tolist())
    scores = ex.saliency(model, request, aggregation=aggregation, batch_size=batch_size, cache=False)
    weight, bias = by_numpy(model, rows, request.forget)
    reference = AGGREGATED[aggregation]
    np.testing.assert_allclose(scores["0.weight"].numpy(), reference(weight), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(scores["0.bias"].numpy(), reference(bias), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1])
def test_the_mask_is_the_largest_gradients_and_exactly_so_many(share):
    rows, model = some(), linear()
    request = Request(rows, classes=["b"])
    masks = Region.top(ex.saliency(model, request), share).masks
    mask = np.concatenate([masks["0.weight"].numpy().ravel(), masks["0.bias"].numpy().ravel()])
    parts = by_numpy(model, rows, request.forget)
    size = np.concatenate([np.abs(g.mean(0)).ravel() for g in parts])
    assert mask.sum() == int(18 * share)
    # the direction: public code once kept the smallest ones
    assert share == 1 or size[mask].min() >= size[~mask].max()


@pytest.mark.parametrize("loss", [lambda t, m, x, y: -t.loss(m, x, y), lambda t, m, x, y: 7 * t.loss(m, x, y)])
def test_sign_and_scale_of_the_loss_do_not_matter(loss, net, three):
    plain = Region.top(ex.saliency(net, three), 0.5).masks
    other = Region.top(ex.saliency(net, three, loss=loss), 0.5).masks
    differ = sum(int((plain[name] != other[name]).sum()) for name in plain)
    assert differ <= 2  # 7 is no power of two, and rounds


def test_batches_of_other_sizes_choose_the_same_weights(net, three):
    wide = Wide(net)  # where nothing is near enough to the threshold to be rounded across it
    one, other = (Region.top(ex.saliency(wide, three, batch_size=b), 0.5).masks for b in (17, 256))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_batches_of_unequal_size_would_not_if_they_counted_alike():
    """The control: the mean over batches of batch means, as public code has it, is another number."""
    rows, model = some(), linear()
    weight, _ = by_numpy(model, rows, torch.arange(13))
    means = [weight[i : i + 7].mean(0) for i in (0, 7)]
    assert np.abs(np.mean(means, 0) - weight.mean(0)).max() > 1e-3


def test_rows_that_pull_apart_cancel_in_the_sum_only():
    rows = Rows(torch.ones(4, 1), torch.tensor([0, 1, 0, 1]), name="pulling")
    model = nn.Sequential(nn.Linear(1, 2))
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    index, task = torch.tensor([0, 1]), Classification(classes=2)
    with pytest.raises(ExpungeError, match="zero in every weight"):
        measure(model, rows, index, task, Run())
    assert measure(model, rows, index, task, Run(), "sum_of_abs")["0.weight"].tolist() == [[0.5], [0.5]]
    assert measure(model, rows, index, task, Run(), "sum_of_squares")["0.weight"].tolist() == [[0.25], [0.25]]


# -- nothing is touched ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [True, False])
def test_nothing_is_changed(cache, net, three):
    for i, (module, p) in enumerate(zip(net.modules(), net.parameters())):
        module.training = i % 2 == 0
        p.grad = torch.full_like(p, i)
    torch.manual_seed(5)

    def state() -> list[Any]:
        return [
            model_digest(net),
            [m.training for m in net.modules()],
            [p.requires_grad for p in net.parameters()],
            [float(p.grad.sum()) for p in net.parameters()],
            torch.get_rng_state().tolist(),
        ]

    before = state()
    with torch.no_grad():
        scores = ex.saliency(net, three, cache=cache)
        assert not torch.is_grad_enabled()
    assert state() == before
    assert not any(s.requires_grad for s in scores.values())
    assert {name: s.shape for name, s in scores.items()} == {name: p.shape for name, p in net.named_parameters()}


def test_it_is_kept_and_found_again_by_a_method(net, three, monkeypatch):
    first = ex.saliency(net, three)
    with monkeypatch.context() as patch:
        patch.setattr("expunge.artifact.saliency.measure", lambda *a, **k: pytest.fail("measured again"))
        again = ex.saliency(net, three)
        assert list(again) == list(first)  # the order decides among equal scores
        assert all(torch.equal(s, first[n]) for n, s in again.items())
        found = ex.unlearn(net, three, "gradient_ascent", region="saliency", epochs=1)
    monkeypatch.setenv("EXPUNGE_CACHE", str(Store().root / "another"))
    made = ex.unlearn(net, three, "gradient_ascent", region="saliency", epochs=1)
    assert model_digest(found.model) == model_digest(made.model)
    # the pass of the saliency is counted where it is made
    assert [found.log.examples, made.log.examples] == [len(three.forget), 2 * len(three.forget)]


def test_another_model_or_request_is_measured_anew(net, three):
    first = ex.saliency(net, three)
    other = ex.saliency(net, Request(three.rows, classes=[5]))
    with torch.no_grad():
        next(net.parameters())[0] += 0.1
    moved = ex.saliency(net, three)
    for changed in (other, moved):
        assert not any(torch.equal(s, first[n]) for n, s in changed.items())


def test_a_loss_or_task_of_ones_own_is_not_kept(net, three):
    class Own(Classification):
        """A task whose code may change."""

    ex.saliency(net, three, Own(classes=10))
    ex.saliency(net, three, loss=lambda t, m, x, y: t.loss(m, x, y))
    assert not Store().root.exists() or not list(Store().root.iterdir())


def test_rows_that_had_gone_before_are_not_looked_at(net, three):
    net._expunge_gone = {three.rows.hash: three.rows.ids[three.forget[:5].numpy()].tolist()}
    index = three.forget[5:]
    reference = measure(net, three.rows, index, Classification(classes=10), Run())
    found = ex.saliency(net, three)
    assert all(torch.equal(found[name], score) for name, score in reference.items())


# -- odd parameters ----------------------------------------------------------------------------------------------------


class Odd(nn.Module):
    """Two tied layers, an unused weight, a frozen one, an integer one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.second.weight = self.first.weight
        self.head = nn.Linear(5, 3)
        self.head.bias.requires_grad_(False)
        self.unused = nn.Parameter(torch.ones(4))
        self.table = nn.Parameter(torch.arange(5), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(torch.tanh(self.first(x[:, self.table]))))


def test_tied_weights_are_scored_once_and_what_cannot_move_is_left_out():
    torch.manual_seed(0)
    rows, model = some(), Odd()
    request = Request(rows, classes=["a"])
    scores = ex.saliency(model, request)
    assert list(scores) == ["first.weight", "first.bias", "second.bias", "head.weight"]
    copied = copy.deepcopy(model)  # each half of the tie with a gradient of its own, which add up
    copied.second.weight = nn.Parameter(model.first.weight.detach().clone())
    x, y = rows.x(request.forget), rows.y[request.forget]
    nn.functional.cross_entropy(copied(x), y).backward()
    both = copied.first.weight.grad + copied.second.weight.grad
    torch.testing.assert_close(scores["first.weight"], both.abs(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_model_of_odd_parameters_moves_in_its_salient_weights_only(optimizer):
    torch.manual_seed(0)
    rows, model = some(), Odd()
    request = Request(rows, classes=["a"])
    masks = Region.top(ex.saliency(model, request), 0.4).masks
    out = ex.unlearn(model, request, "random_label", region={"saliency": 0.4}, optimizer=optimizer, weight_decay=0.1)
    assert out.model.first.weight is out.model.second.weight
    for name, p in model.named_parameters():
        moved = out.model.get_parameter(name) != p
        assert not moved[~masks[name]].any() if name in masks else not moved.any(), name
        assert name not in masks or not masks[name].any() or moved.any(), name


def test_sparse_gradients_are_read():
    tokens = torch.randint(7, (30, 4), generator=torch.Generator().manual_seed(0))
    rows = Rows(tokens, torch.arange(30) % 3, name="tokens")
    made = []
    for sparse in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.EmbeddingBag(7, 6, sparse=sparse), nn.Linear(6, 3))
        made.append(ex.saliency(model, Request(rows, ids=list(range(9)))))
    assert all(torch.allclose(made[0][name], score) for name, score in made[1].items())


# -- what is refused ---------------------------------------------------------------------------------------------------


class Mute(nn.Module):
    """Weights that the loss depends on, but by nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0 * self.layer(x)


class Sparse(nn.Module):
    """A weight stored sparsely."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(5)[:3].to_sparse())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sparse.mm(self.weight, x.T).T


class Broken(nn.Module):
    """Logits that are finite, with a gradient that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + torch.sqrt(0 * self.layer.bias.square().sum())


REFUSED = {
    "zero in every weight": Mute,
    "weight is no dense tensor .*make it dense": Sparse,
    "NaN or infinite in layer.bias": Broken,
    "Every weight is frozen": lambda: linear().requires_grad_(False),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_saliency_is_refused_with_what_to_do(message):
    rows = some()
    request, model = Request(rows, classes=["a"]), REFUSED[message]()
    with pytest.raises(ExpungeError, match=message):
        ex.saliency(model, request)
    with pytest.raises(ExpungeError, match=message.replace("Every weight", "Every weight in this region")):
        ex.unlearn(model, request, "salun")


def test_an_empty_forget_set_is_refused():
    rows = some()
    with pytest.raises(ExpungeError, match="one forget row at least"):
        measure(linear(), rows, torch.tensor([], dtype=torch.long), TASK, Run())
    with pytest.raises(ExpungeError, match="selects 0 of"):
        ex.saliency(linear(), Request(rows, ids=[]))


class Mean(Classification):
    """A loss that is averaged too early; scores would depend on the batch size."""

    def loss(self, model: nn.Module, x_B: torch.Tensor, y_B: torch.Tensor) -> torch.Tensor:
        return super().loss(model, x_B, y_B).mean()


def test_a_loss_that_is_not_one_number_for_each_row_is_refused():
    request = Request(some(), classes=["a"])
    n, model = len(request.forget), linear()
    told = rf"one number for each row, a tensor of shape \({n},\) for {n} rows; got shape"
    with pytest.raises(ExpungeError, match=rf"{told} \(\)\. .*reduction='none'"):
        ex.saliency(model, request, Mean(classes=3))
    with pytest.raises(ExpungeError, match=rf"{told} \(\)"):
        ex.saliency(model, request, loss=lambda task, model, x, y: task.loss(model, x, y).sum())
    with pytest.raises(ExpungeError, match=rf"{told} \({n}, 1\)"):
        ex.saliency(model, request, loss=lambda task, model, x, y: task.loss(model, x, y)[:, None])
    with pytest.raises(ExpungeError, match=told):
        ex.unlearn(model, request, "salun", task=Mean(classes=3))
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"loss": "ce"}, r"loss must be a function \(task, model, x, y\) .*got 'ce'"),
        ({"loss": lambda task, model, x, y: torch.ones(len(y))}, "depends on no weight that may move"),
        ({"batch_size": 0}, "batch_size must be a whole number, 1 or more; got 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number, 1 or more; got 2.5"),
        ({"batch_size": True}, "batch_size must be a whole number, 1 or more; got True"),
    ],
)
def test_settings_that_are_none_are_refused(settings, told):
    with pytest.raises(ExpungeError, match=told):
        ex.saliency(linear(), Request(some(), classes=["a"]), **settings)


def test_what_is_no_request_or_model_is_refused():
    with pytest.raises(ExpungeError, match=r"must be an expunge\.Request; got list"):
        ex.saliency(linear(), [1, 2])
    with pytest.raises(ExpungeError, match=r"must be a torch\.nn\.Module; got str"):
        ex.saliency("model", Request(some(), classes=["a"]))


@pytest.mark.parametrize("of", ["call", "method"])
def test_a_cache_that_cannot_be_written_costs_nothing_but_the_cache(of, tmp_path, monkeypatch):
    """What was measured is used; the folder is one to be, below a file."""
    request = Request(some(), classes=["a"])
    made = {"call": lambda: ex.saliency(linear(), request), "method": lambda: ex.unlearn(linear(), request, "salun")}
    expected = made[of]()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "file" / "cache"))
    told = r"The saliency is not kept, .*set EXPUNGE_CACHE to a folder .*file.cache"
    if of == "call":
        with pytest.warns(UserWarning, match=told):
            got = made[of]()
        assert all(torch.equal(got[name], expected[name]) for name in expected)
    else:
        got = made[of]()
        assert model_digest(got.model) == model_digest(expected.model)
        assert any(re.match(told, note) for note in got.log.notes)


@pytest.mark.parametrize("made_inside", [False, True])
def test_inside_inference_mode_the_scores_are_the_same(made_inside):
    request, model = Request(some(), classes=["a"]), linear()
    expected = ex.saliency(model, request, cache=False)
    with torch.inference_mode():
        got = ex.saliency(linear() if made_inside else model, request, cache=False)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_an_unknown_aggregation_is_refused_with_near_ones():
    with pytest.raises(ExpungeError, match="Did you mean 'abs_of_sum'"):
        ex.saliency(linear(), Request(some(), classes=["a"]), aggregation="abs_sum")


def test_a_model_that_does_not_fit_the_rows_is_refused():
    with pytest.raises(ExpungeError, match="4 outputs, but some has 3 classes"):
        ex.saliency(nn.Sequential(nn.Linear(5, 4)), Request(some(), classes=["a"]))


# -- as a region -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["global", "per_layer"])
def test_per_layer_has_the_density_in_each_tensor_and_global_in_all_together(scope, net, few):
    model = ex.unlearn(net, few, "gradient_ascent", region={"saliency": 0.3, "scope": scope}, lr=0.01).model
    changed = {n: (p != net.get_parameter(n)).sum().item() for n, p in model.named_parameters()}
    sizes = {n: p.numel() for n, p in net.named_parameters()}
    masks = Region.top(ex.saliency(net, few), 0.3, scope=scope).masks
    counts = {n: int(m.sum()) for n, m in masks.items()}
    if scope == "per_layer":
        assert counts == {n: int(0.3 * size) for n, size in sizes.items()}
    else:
        assert sum(counts.values()) == int(0.3 * sum(sizes.values()))
        assert any(abs(counts[n] - 0.3 * size) > 0.05 * size + 1 for n, size in sizes.items())
    assert all(changed[n] <= counts[n] for n in counts)


@pytest.mark.parametrize("within", [{"layers": ["features.0*"]}, {"last": 1}])
def test_the_share_counts_what_another_region_lets_move(within, net, few):
    region = {"saliency": 0.25, **within}
    out = ex.unlearn(net, few, "random_label", region=region, epochs=2, weight_decay=0.1).model
    moves = Region.from_config(within).resolve(net)
    scores = {n: s for n, s in ex.saliency(net, few).items() if moves[n]}
    masks = Region.top(scores, 0.25).masks
    for name, p in net.named_parameters():
        mask = masks.get(name, torch.zeros_like(p, dtype=torch.bool))
        assert torch.equal(out.get_parameter(name)[~mask], p[~mask]), name
    assert sum(int(m.sum()) for m in masks.values()) == int(0.25 * sum(s.numel() for s in scores.values()))


def test_inside_a_mask_the_share_counts_the_mask(net, three):
    generator = torch.Generator().manual_seed(1)
    within = Region.top({n: torch.rand(p.shape, generator=generator) for n, p in net.named_parameters()}, 0.5)
    region = Region.salient(0.5, within=within)
    out = ex.unlearn(net, three, "random_label", region=region, epochs=4, lr=0.05, weight_decay=0.1).model
    flat = {n: m.numpy().ravel() for n, m in within.masks.items()}
    scores = {n: s.numpy().ravel() for n, s in ex.saliency(net, three).items()}
    candidates = np.concatenate([np.where(flat[n], scores[n], -1) for n in scores])
    count = int(int(sum(m.sum() for m in flat.values())) * 0.5)
    chosen = np.zeros(len(candidates), bool)
    chosen[np.argsort(-candidates, kind="stable")[:count]] = True
    moved = np.concatenate([(out.get_parameter(n) != p).numpy().ravel() for n, p in net.named_parameters()])
    assert not moved[~chosen].any()
    assert moved.sum() > 0.9 * count


# which have a region of their own, never read forget rows, or descend on a model with one more output
OTHERWISE = {"last_layers", "salun", "unsir", "boundary_expand"}
METHODS = [n for n in registry.names() if "region" in {f.name for f in fields(registry.get(n))}]


@pytest.mark.parametrize("name", [n for n in METHODS if n not in OTHERWISE])
def test_any_method_with_a_region_takes_it(name, net, few):
    own = {f.name for f in fields(registry.get(name))}
    settings = {"weight_decay": 0.1} | ({} if name.startswith("salun") else {"optimizer": "adamw", "lr": 1e-3})
    settings = {key: value for key, value in settings.items() if key in own}
    method = registry.make(name, {"region": "saliency", "share": 0.2} | settings)
    out = ex.unlearn(net, few, method).model
    masks = Region.top(ex.saliency(net, few), 0.2).masks
    moved = 0
    for key, p in net.named_parameters():
        assert torch.equal(out.get_parameter(key)[~masks[key]], p[~masks[key]]), key
        moved += int((out.get_parameter(key) != p).sum())
    assert moved


def test_a_method_that_never_reads_forget_rows_refuses():
    with pytest.raises(ExpungeError, match="never reads"):
        ex.methods.Unsir(region="saliency")
    assert ex.methods.Unsir(share=0.4).share == 0.4  # a field of its own, not that of the region


def test_a_chain_keeps_to_one_region(net, few):
    """The second step's saliency is that of the first model too, or its weights outside would move after all."""
    steps = [{"name": n, "region": "saliency", "share": 0.2, "epochs": 1} for n in ("random_label", "finetune")]
    out = ex.unlearn(net, few, "chain", steps=steps).model
    masks = Region.top(ex.saliency(net, few), 0.2).masks
    for name, p in net.named_parameters():
        assert torch.equal(out.get_parameter(name)[~masks[name]], p[~masks[name]]), name


def test_a_share_of_one_is_everything_and_measures_nothing(net, few):
    plain, whole = (ex.unlearn(net, few, "random_label", epochs=1, **f) for f in ({}, {"region": {"saliency": 1}}))
    assert model_digest(plain.model) == model_digest(whole.model)
    assert plain.log.examples == whole.log.examples


@pytest.mark.parametrize("share", [0, -0.1, 1.5, True, "half"])
def test_a_density_that_is_none_is_refused(share):
    with pytest.raises(ExpungeError, match="share must be above 0 and at most 1"):
        ex.methods.GradientAscent(region="saliency", share=share)


def test_a_share_too_small_for_any_weight_is_refused(net, three):
    with pytest.raises(ExpungeError, match="widen it"):
        ex.unlearn(net, three, "gradient_ascent", region="saliency", share=1e-9)


def test_a_share_without_saliency_is_refused():
    for region in (None, "all", {"saliency": 0.3}):
        with pytest.raises(ExpungeError, match="share goes with region='saliency'"):
            ex.methods.GradientAscent(region=region, share=0.3)


def test_a_region_that_is_not_measured_yet_cannot_be_enforced(net):
    region, optimizer = Region.salient(0.5), torch.optim.SGD(net.parameters(), 0.1)
    with pytest.raises(ExpungeError, match="has to be measured on data first"), region.enforce(net, optimizer):
        pass


@pytest.mark.parametrize(
    "region",
    [
        "saliency",
        {"saliency": 0.2},
        {"saliency": 0.2, "scope": "per_layer", "layers": "fc*"},
        {"saliency": 0.4, "aggregation": "sum_of_abs", "partial": 0.1, "rule": "random_step", "batchnorm": "freeze"},
    ],
)
def test_through_plain_data_and_back(region):
    made = Region.from_config(region)
    assert Region.from_config(made.to_config()) == made
    assert made.saliency.share == (0.5 if region == "saliency" else region["saliency"])


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ({"scope": "per_layer"}, "say.* which share moves; give it too"),
        ({"saliency": 0.5, "scope": "layers"}, "Unknown scope"),
        ({"saliency": 0.5, "aggregation": "mean"}, "Unknown aggregation"),
        ({"salience": 0.5}, "Did you mean 'saliency'"),
    ],
)
def test_wrong_settings_are_refused(region, message):
    with pytest.raises(ExpungeError, match=message):
        Region.from_config(region)


def test_a_device_of_its_own_leaves_the_model_where_it_is(net, three):
    with pytest.raises((ExpungeError, NotImplementedError)):  # nothing can be read back from the meta device
        ex.saliency(net, three, run=ex.Run(device="meta"), cache=False)
    assert {p.device.type for p in net.parameters()} == {"cpu"}
