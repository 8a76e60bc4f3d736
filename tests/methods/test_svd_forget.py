"""SVD class forgetting, against the edit as published: with explicit singular value decompositions."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import expunge as ex
from expunge import ExpungeError, Rows
from expunge.artifact.activations import share
from expunge.methods.svd_forget.edit import remove, spare
from kit import accuracy, bits

ONE = {"scale_retain": (100.0,), "scale_forget": (3.0,)}


def space(columns_nd: np.ndarray, scale: float) -> np.ndarray:
    """M = U Λ Uᵀ, from the decomposition of the matrix of activations."""
    u, s, _ = np.linalg.svd(columns_nd.T, full_matrices=False)
    energy = s**2 / (s**2).sum()
    return (u * (scale * energy / ((scale - 1) * energy + 1))) @ u.T


def published(w: np.ndarray, retain_nd: np.ndarray, forget_nd: np.ndarray, a_r: float, a_f: float) -> np.ndarray:
    """W Pᵀ with P = I - (M_f - M_f M_r)."""
    m_r, m_f = space(retain_nd, a_r), space(forget_nd, a_f)
    return w @ (np.eye(w.shape[1]) - (m_f - m_f @ m_r)).T


def packed(a: np.ndarray, dtype=np.float64) -> Tensor:
    """Moments as they are kept for models of this precision."""
    return torch.from_numpy((a.T @ a)[np.triu_indices(a.shape[1])][None].astype(dtype))


def edited(w: np.ndarray, retain_nd, forget_nd, a_r: float, a_f: float, dtype=np.float64) -> np.ndarray:
    weight = torch.from_numpy(w)[None]
    c_r, c_f = share(packed(retain_nd, dtype)), share(packed(forget_nd, dtype))
    return remove(weight, spare(weight, c_r, a_r), c_f, a_f)[0].numpy()


@pytest.fixture
def draw():
    random = np.random.default_rng(0)
    return lambda *shape: random.standard_normal(shape)


# -- the edit of one layer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [200, 12])
@pytest.mark.parametrize("a_r", [0.5, 1, 3, 100, 1000])
@pytest.mark.parametrize("a_f", [0.5, 1, 3, 100, 1000])
def test_the_closed_form_is_the_published_edit(n, a_r, a_f, draw):
    w, retain, forget = draw(7, 30), np.abs(draw(n, 30)), np.abs(draw(n, 30)) @ draw(30, 30)
    expected = published(w, retain, forget, a_r, a_f)
    np.testing.assert_allclose(edited(w, retain, forget, a_r, a_f), expected, rtol=0, atol=1e-10)
    if a_f <= 100:  # the largest of the default grid
        size = 1 / np.sqrt(30)  # weights of a layer have about this size
        rounded = edited(size * w, retain, forget, a_r, a_f, np.float32)
        np.testing.assert_allclose(rounded, size * expected, rtol=0, atol=1e-6)


def test_the_side_matters(draw):
    w, retain, forget = draw(7, 9), draw(20, 9) @ draw(9, 9), draw(20, 9) @ draw(9, 9)
    m_r, m_f = space(retain, 30), space(forget, 3)
    wrong = w @ (np.eye(9) - (m_f - m_f @ m_r))
    assert np.abs(edited(w, retain, forget, 30, 3) - wrong).max() > 0.01


def test_forgotten_directions_go_and_retained_ones_stay(draw):
    q = np.linalg.qr(draw(12, 12))[0]
    w = draw(5, 12)
    shared, only_r, only_f = q[:, :3], q[:, 3:6], q[:, 6:9]
    retain = draw(40, 6) @ np.hstack([shared, only_r]).T
    forget = draw(40, 6) @ np.hstack([shared, only_f]).T
    after = edited(w, retain, forget, 1e10, 1e10)
    np.testing.assert_allclose(after @ only_f, 0, atol=1e-5)
    np.testing.assert_allclose(after @ np.hstack([shared, only_r]), w @ np.hstack([shared, only_r]), atol=1e-5)


def test_nothing_goes_that_is_retained_as_well(draw):
    w, both = draw(5, 12), draw(40, 4) @ draw(4, 12)
    np.testing.assert_allclose(edited(w, both, both, 1e10, 1e10), w, atol=1e-5)
    assert np.abs(edited(w, draw(40, 12), both, 1e10, 1e10) - w).max() < 1e-5  # whatever else is retained
    assert np.abs(edited(w, draw(40, 4) @ draw(4, 12), both, 1e10, 1e10) - w).max() > 0.1


@pytest.mark.parametrize("n", [60, 5])
@pytest.mark.parametrize("scale", [0.5, 1, 3, 100, 1000])
def test_a_space_holds_a_direction_in_full_or_in_part(n, scale, draw):
    """M = I - (I - M), by either half of the edit, has eigenvalues from 0 to 1."""
    columns, one = np.abs(draw(n, 20)) @ draw(20, 20), torch.eye(20, dtype=torch.float64)[None]
    c = share(packed(columns))
    for m in ((one - spare(one, c, scale))[0].numpy(), (one - remove(one, one, c, scale))[0].numpy()):
        np.testing.assert_allclose(m, space(columns, scale), atol=1e-10)
        np.testing.assert_allclose(m, m.T, atol=1e-12)
        values = np.linalg.eigvalsh((m + m.T) / 2)
        assert -1e-12 <= values.min() <= values.max() <= 1 + 1e-12
        assert int((values > 1e-9).sum()) == min(n, 20)


def test_limits_and_invariances(draw):
    w, retain, forget = draw(5, 8), draw(40, 8), draw(40, 8)
    np.testing.assert_allclose(edited(w, retain, forget, 100, 1e-12), w, atol=1e-10)
    np.testing.assert_allclose(edited(w, retain, forget, 1e12, 3), w, atol=1e-6)
    plain = edited(w, retain, forget, 100, 3)
    assert np.abs(plain - w).max() > 0.01
    other = edited(w, np.vstack([retain, retain])[::-1], 17.0 * forget, 100, 3)
    np.testing.assert_allclose(other, plain, atol=1e-12)


def test_a_scale_beyond_the_precision_is_told():
    indefinite = torch.diag(torch.tensor([1.1, -0.1], dtype=torch.float64))[None]
    with pytest.raises(
        ExpungeError, match=r"At the scale 1000 the activations of a layer are too uneven.*Take smaller scales"
    ):
        spare(torch.ones(1, 1, 2, dtype=torch.float64), indefinite, 1000.0)


# -- the whole method ------------------------------------------------------------------------------------------------


class Reads(Rows):
    """Rows that remember what was read, but for the glance at two of them."""

    seen: list[int]

    @classmethod
    def of(cls, rows: Rows) -> Reads:
        other = object.__new__(cls)
        other.__dict__.update(rows.__dict__)
        other.seen = []
        return other

    def x(self, index_B: Tensor) -> Tensor:
        if len(index_B) > 2:
            self.seen += index_B.tolist()
        return super().x(index_B)


class Grouped(nn.Module):
    """A strided and a grouped convolution, a block that is used twice, and a head; in float64 if asked."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.again = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2)
        self.head = nn.Linear(64, 10)
        self.to(dtype)

    def inputs(self, x: Tensor) -> dict[str, list[Tensor]]:
        """What each layer gets, by hand."""
        stem = x.to(self.head.weight.dtype)
        one = torch.relu(self.norm(self.stem(stem)))
        two = torch.relu(self.again(one))
        return {"stem": [stem], "again": [one, two], "head": [torch.relu(self.again(two)).flatten(1)]}

    def forward(self, x):
        return self.head(self.inputs(x)["head"][0])


@pytest.fixture(scope="module", params=[torch.float64, torch.float32], ids=["float64", "float32"])
def grouped(request) -> Grouped:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Grouped(request.param)
        model.norm.running_mean.normal_()
        return model.eval()


def columns(model: Grouped, rows: Rows, index: list[int]) -> dict[str, list[np.ndarray]]:
    """For each layer and group the inputs as columns."""
    with torch.no_grad():
        inputs = model.inputs(rows.x(torch.tensor(index)))
    found = {"head": [inputs["head"][0]], "stem": [F.unfold(inputs["stem"][0], 3, padding=1, stride=2)]}
    windows = torch.cat([F.unfold(x, 3, padding=2, dilation=2) for x in inputs["again"]])
    found["again"] = list(windows.chunk(2, dim=1))
    flat = {n: [a.transpose(1, 2).flatten(0, 1) if a.ndim == 3 else a for a in parts] for n, parts in found.items()}
    return {n: [a.double().numpy() for a in parts] for n, parts in flat.items()}


@pytest.mark.parametrize("classes", [[3], [3, 5]])
def test_every_layer_is_edited_as_published(classes, grouped, train):
    rows = Reads.of(train)
    request = ex.Request(rows, classes=classes)
    result = ex.unlearn(grouped, request, "svd_forget", samples=6, keep_statistics=False, **ONE)
    assert np.bincount(train.y[rows.seen]).tolist() == [6] * 10
    gone = np.isin(train.y[rows.seen].numpy(), classes)
    seen = np.array(rows.seen)
    retain, forget = (columns(grouped, train, seen[k].tolist()) for k in (~gone, gone))
    limit = 1e-10 if grouped.head.weight.dtype == torch.float64 else 1e-6
    for name in ("stem", "again", "head"):
        before, after = (getattr(m, name).weight.detach().flatten(1).double().numpy() for m in (grouped, result.model))
        parts = zip(np.split(before, len(retain[name])), retain[name], forget[name])
        expected = np.concatenate([published(w, r, f, 100, 3) for w, r, f in parts])
        np.testing.assert_allclose(after, expected, rtol=0, atol=limit)
        assert np.abs(after - before).max() > 1e-3
    weights = {f"{n}.weight" for n in ("stem", "again", "head")}
    moved = {n for n, value in bits(result.model).items() if value != bits(grouped)[n]}
    assert moved == weights  # biases and batch norm stay bit for bit


def windows_of(model: nn.Module, rows: Rows, index: list[int]) -> dict[str, np.ndarray]:
    """What every linear layer and convolution of a plain network multiplies, by its name, as rows of a matrix."""
    found, hooks = {}, []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            hooks.append(module.register_forward_hook(lambda m, args, _, name=name: found.update({name: (m, args[0])})))
    with torch.no_grad():
        model.eval()(rows.x(torch.tensor(index)))
    for hook in hooks:
        hook.remove()
    for name, (m, x) in found.items():
        if isinstance(m, nn.Conv2d):
            x = F.unfold(x, m.kernel_size, m.dilation, m.padding, m.stride).transpose(1, 2).flatten(0, 1)
        found[name] = x.double().numpy()
    return found


def test_the_edit_from_the_other_side_forgets_nothing(net, train, test):
    rows = Reads.of(train)
    pair = {"scale_retain": (10.0,), "scale_forget": (3.0,)}
    right = ex.unlearn(net, ex.Request(rows, classes=[0]), "svd_forget", samples=60, **pair).model.eval()
    wrong, seen = copy.deepcopy(net).eval(), np.array(rows.seen)
    gone = train.y[rows.seen].numpy() == 0
    retain, forget = (windows_of(net, train, seen[side].tolist()) for side in (~gone, gone))
    for name in retain:
        weight, got = (m.get_submodule(name).weight.detach() for m in (wrong, right))
        w = weight.flatten(1).double().numpy()
        m_r, m_f = space(retain[name], 10), space(forget[name], 3)
        p = np.eye(w.shape[1]) - (m_f - m_f @ m_r)
        np.testing.assert_allclose(got.flatten(1).numpy(), w @ p.T, rtol=0, atol=1e-5)
        weight.copy_(torch.from_numpy(w @ p).view_as(weight))
    zeros = (test.y == 0).nonzero().flatten()
    assert len(retain) == 3
    assert accuracy(right, test, zeros) <= 0.05
    assert accuracy(wrong, test, zeros) >= 0.9


def test_scales_trade_what_goes_against_what_stays(net, three):
    def frontier(**scales: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
        points = ex.unlearn(net, three, "svd_forget", **scales).log.facts["frontier"]
        return tuple(np.array([p[side] for p in points]) for side in ("forget", "retain"))

    forget, retain = frontier(scale_retain=(10.0, 30.0, 100.0, 300.0, 1000.0), scale_forget=(100.0,))
    assert len(forget) == 5
    assert np.diff(forget).min() >= 0
    assert forget[-1] - forget[0] > 50
    assert np.diff(retain).min() > -0.5
    assert retain[-1] - retain[0] > 2
    forget, retain = frontier(scale_retain=(30.0,), scale_forget=(0.3, 1.0, 3.0, 10.0, 30.0, 100.0))
    assert len(forget) == 6
    assert np.diff(forget).max() <= 0
    assert forget[0] - forget[-1] > 40
    assert np.diff(retain).max() < 0.5
    assert retain[-1] < retain[0]


class Attending(nn.Module):
    """Lines of an image as tokens, two heads of attention, two layers; all of it also by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places = nn.Linear(8, 16), nn.Parameter(torch.randn(8, 16))
        self.norm, self.attention = nn.LayerNorm(16), nn.MultiheadAttention(16, 2, batch_first=True)
        self.hidden, self.head = nn.Linear(128, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x[:, 0]) + self.places
        z = self.norm(h)
        h = h + self.attention(z, z, z, need_weights=False)[0]
        return self.head(self.hidden(h.flatten(1)).relu())

    def inputs(self, x: Tensor) -> dict[str, Tensor]:
        """What each weight multiplies, without a call of attention or of a layer, and the logits."""
        own = {name: p.detach().double() for name, p in self.named_parameters()}
        lines = x[:, 0].double()
        h = lines @ own["embed.weight"].T + own["embed.bias"] + own["places"]
        z = (h - h.mean(-1, keepdim=True)) / (h.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        z = z * own["norm.weight"] + own["norm.bias"]
        q, k, v = (z @ own["attention.in_proj_weight"].T + own["attention.in_proj_bias"]).split(16, -1)
        q, k, v = (t.unflatten(-1, (2, 8)).transpose(1, 2) for t in (q, k, v))
        heads = ((q @ k.mT / 8**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
        h = h + heads @ own["attention.out_proj.weight"].T + own["attention.out_proj.bias"]
        r = (h.flatten(1) @ own["hidden.weight"].T + own["hidden.bias"]).relu()
        found = {"embed": lines, "attention.in_proj_": z, "attention.out_proj": heads, "hidden": h.flatten(1)}
        return {**found, "head": r, "logits": r @ own["head.weight"].T + own["head.bias"]}


@pytest.fixture(scope="module")
def attending(train) -> nn.Module:
    recipe = ex.Recipe(model=lambda rows: Attending(), epochs=10, lr=5e-3, batch_size=32, optimizer="adamw")
    return recipe(train).eval()


def test_attention_is_edited_as_published_and_forgets_a_class(attending, train, test):
    rows = Reads.of(train)
    result = ex.unlearn(attending, ex.Request(rows, classes=[3]), "svd_forget", samples=60)
    seen, scales = torch.tensor(rows.seen[:600]), result.log.facts["chosen"]
    gone = train.y[seen] == 3
    retain, forget = (attending.inputs(train.x(seen[side])) for side in (~gone, gone))
    with torch.no_grad():  # the hand agrees with the module
        torch.testing.assert_close(attending(train.x(seen[gone])).double(), forget["logits"], rtol=1e-4, atol=1e-4)
    changed = set()
    for name, parameter in attending.named_parameters():
        layer = name.removesuffix("weight").removesuffix(".")
        if layer in retain:
            columns = (side[layer].flatten(0, -2).numpy() for side in (retain, forget))
            expected = published(parameter.detach().double().numpy(), *columns, *scales.values())
            after = result.model.get_parameter(name).detach()
            np.testing.assert_allclose(after.numpy(), expected, rtol=0, atol=1e-5)
            assert float((after - parameter.detach()).abs().max()) > 1e-3
            changed.add(name)
    assert len(changed) == 5
    assert changed == {n for n, value in bits(result.model).items() if value != bits(attending)[n]}
    threes = test.y == 3
    sides = [side.nonzero().flatten() for side in (threes, ~threes)]
    before, after = ([accuracy(m.eval(), test, side) for side in sides] for m in (attending, result.model))
    assert before[0] > 0.85
    assert after[0] <= 0.1
    assert after[1] > before[1] - 0.06
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in [*attending.modules(), *result.model.modules()])


def test_a_second_request_needs_no_forward_pass(net, train):
    rows = Reads.of(train)
    first = ex.unlearn(net, ex.Request(rows, classes=[3]), "svd_forget", **ONE)
    assert len(rows.seen) == first.log.examples == first.log.facts["statistics"]["measured"] == 1000
    rows.seen.clear()
    second = ex.unlearn(net, ex.Request(rows, classes=[5, 7]), "svd_forget", **ONE)
    assert not rows.seen
    assert second.log.examples == 0
    alone = ex.unlearn(net, ex.Request(train, classes=[5, 7]), "svd_forget", keep_statistics=False, **ONE)
    assert bits(second.model) == bits(alone.model)
    assert alone.log.examples == 1000


def test_the_pair_is_the_best_of_the_frontier_on_held_out_rows(net, train):
    rows = Reads.of(train)
    fields = {"scale_retain": (3.0, 30.0), "scale_forget": (0.3, 3.0), "samples": 60, "validation": 100}
    result = ex.unlearn(net, ex.Request(rows, classes=[3]), "svd_forget", **fields)
    shown, held = torch.tensor(rows.seen[:600]), torch.tensor(rows.seen[600:])
    assert not set(shown.tolist()) & set(held.tolist())
    facts = result.log.facts
    frontier = facts["frontier"]
    best = max(frontier, key=lambda p: p["retain"] * (100 - p["forget"]))
    assert facts["chosen"] == {k: best[k] for k in ("scale_retain", "scale_forget")}
    forget = train.y[held] == 3
    assert int(forget.sum()) == len(train.y[train.y == 3]) - 60  # all that there are
    assert np.bincount(train.y[held[~forget]], minlength=10).tolist() == [12, 12, 12, 0, *[12] * 6]
    alone = ex.unlearn(
        net,
        ex.Request(train, classes=[3]),
        "svd_forget",
        **{**fields, "scale_retain": (best["scale_retain"],), "scale_forget": (best["scale_forget"],)},
    )
    assert bits(alone.model) == bits(result.model)
    assert alone.log.facts["frontier"] == []
    for model, told in ((result.model, best), (net, facts["before"])):
        assert told["forget"] == pytest.approx(100 * accuracy(model, train, held[forget]))
        assert told["retain"] == pytest.approx(100 * accuracy(model, train, held[~forget]))


def test_the_grid_is_tried_as_far_as_it_can_help(net, train):
    """After nothing is left to forget, or retained accuracy is below the best score, stronger scales are not tried."""
    frontier = ex.unlearn(net, ex.Request(train, classes=[3]), "svd_forget").log.facts["frontier"]
    best = 0.0
    for i, point in enumerate(frontier):
        best = max(best, point["retain"] * (1 - point["forget"] / 100))
        last = i + 1 == len(frontier) or frontier[i + 1]["scale_retain"] != point["scale_retain"]
        ended = point["forget"] == 0 or point["retain"] < best
        assert last == (ended or point["scale_forget"] == 100)
    assert len({p["scale_retain"] for p in frontier}) == 5


def test_gone_rows_are_not_looked_at(mlp, train):
    first = ex.unlearn(mlp, ex.Request(train, classes=[3]), "svd_forget", **ONE).model
    rows = Reads.of(train)
    ex.unlearn(first, ex.Request(rows, classes=[5]), "svd_forget", samples=20)
    assert 3 not in set(train.y[rows.seen].tolist())
    assert len(set(train.y[rows.seen].tolist())) == 9


def test_a_model_that_cannot_be_improved_stays_as_it_is_and_says_so(mlp, three):
    never = ex.unlearn(mlp, three, "svd_forget", scale_retain=(1e9,), scale_forget=(1e-9, 2e-9))
    assert never.moved == 0
    assert any("No pair of scales did better" in note for note in never.log.notes)
    assert len(never.log.facts["frontier"]) == 2
    assert "chosen" not in never.log.facts


def test_a_transformer_is_edited_in_its_projections(train):
    model = ex.models.build("vit_tiny", channels=1, size=8, classes=10, dim=24, depth=1, heads=2)
    result = ex.unlearn(model, ex.Request(train, classes=[3]), "svd_forget", samples=10, **ONE)
    moved = {n for n, value in bits(result.model).items() if value != bits(model)[n]}
    inner = {f"blocks.0.{n}.weight" for n in ("attention.qkv", "attention.proj", "fc1", "fc2")}
    assert moved == {"patches.weight", "head.weight"} | inner
    assert result.log.notes == [
        "Left as they are, not being linear, convolutional or attention: token (ViT), positions (ViT)."
    ]


def test_models_of_transformers(train):
    transformers = pytest.importorskip("transformers")
    settings = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(image_size=8, patch_size=2, num_channels=1, num_labels=10, **settings)
    model = transformers.ViTForImageClassification(config)
    result = ex.unlearn(model, ex.Request(train, classes=[3]), "svd_forget", samples=10, **ONE)
    moved = {n for n, value in bits(result.model).items() if value != bits(model)[n]}
    kinds = (nn.Linear, nn.Conv2d)
    assert moved == {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, kinds)}


# -- what is refused, and what is told -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scale_retain", ()),
        ("scale_retain", (0.0, 1.0)),
        ("scale_forget", (3.0, 1.0)),
        ("scale_forget", (1.0, 1.0)),
        ("scale_forget", (float("inf"),)),
        ("samples", 0),
        ("validation", 0),
    ],
)
def test_wrong_settings_are_refused_by_name(field, value):
    with pytest.raises(ExpungeError, match=field):
        ex.registry.make("svd_forget", {field: value})


def test_samples_are_refused_with_the_methods_that_fit(net, train):
    with pytest.raises(ExpungeError, match="svd_forget forgets class; this request names 50 samples") as error:
        ex.unlearn(net, ex.Request(train, ids=train.ids[:50].tolist()), "svd_forget")
    assert "Methods for this request: " in str(error.value)


def test_a_model_without_a_layer_to_edit_is_refused(train):
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(64, 10))

        def forward(self, x):
            return x.flatten(1) @ self.table

    with pytest.raises(ExpungeError, match=r"the model has none. It has table \(Table\)"):
        ex.unlearn(Table(), ex.Request(train, classes=[3]), "svd_forget")


def test_a_class_of_one_row_is_refused_and_few_rows_are_told(mlp, train):
    index = torch.cat([(train.y == c).nonzero().flatten()[: 1 if c == 2 else 8] for c in range(10)])
    with pytest.raises(ExpungeError, match=r"two rows of each class.*there is one of 2"):
        ex.unlearn(mlp, ex.Request(train.take(index), classes=[3]), "svd_forget")
    alone = ex.unlearn(mlp, ex.Request(train.take(index), classes=[3]), "svd_forget", **ONE)  # nothing is held out
    assert alone.log.facts["statistics"]["rows"] == len(index)
    index = torch.cat([(train.y == c).nonzero().flatten()[: 4 if c in (2, 3) else 40] for c in range(10)])
    two = {**ONE, "scale_forget": (1.0, 3.0)}
    result = ex.unlearn(mlp, ex.Request(train.take(index), classes=[3]), "svd_forget", **two)
    assert "Fewer than 10 rows to look at, so that the spaces are poor: class 2, 3." in result.log.notes
    assert result.log.facts["statistics"]["rows"] == 2 * 3 + 8 * 30


def test_tokens_are_looked_at_behind_their_embedding():
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.embedding(x).mean(1))

    x = torch.randint(20, (60, 5), generator=torch.Generator().manual_seed(0))
    result = ex.unlearn(Bag(), ex.Request((x, torch.arange(60) % 3), classes=[1]), "svd_forget", **ONE)
    assert "embedding.weight (Embedding)" in result.log.notes[0]
    assert 0 < result.moved < 1


def test_it_can_be_followed_by_a_repair(mlp, three):
    result = ex.unlearn(mlp, three, ex.methods.SVDForget(**ONE).then(ex.methods.FineTune(epochs=1)))
    assert result.log.facts["chosen"] == {"scale_retain": 100.0, "scale_forget": 3.0}
    assert result.log.steps > 0


def test_a_place_that_cannot_be_written_costs_no_result(mlp, three, tmp_path, monkeypatch):
    kept = ex.unlearn(mlp, three, "svd_forget", **ONE)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "file"))
    result = ex.unlearn(mlp, three, "svd_forget", **ONE)
    told = [note for note in result.log.notes if "EXPUNGE_CACHE" in note]
    assert len(told) == 1  # once, not for each class
    assert told[0].startswith("The activations are not kept")
    assert bits(result.model) == bits(kept.model)
