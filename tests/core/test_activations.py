"""Sums of outer products of layer inputs, against columns laid out by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from expunge import ExpungeError, Rows
from expunge.artifact import Store
from expunge.artifact.activations import by_class, find_layers, layers, moments, share
from expunge.run import Run


def rows_of(x: torch.Tensor, labels: int = 2) -> Rows:
    return Rows(x, torch.arange(len(x)) % labels)


def sums(model: nn.Module, x: torch.Tensor) -> dict[str, np.ndarray]:
    """The full matrices of the moments, (G, d, d)."""
    found = moments(model, find_layers(model)[0], rows_of(x), torch.arange(len(x)), Run())
    full = {}
    for name, packed in found.items():
        d = share(packed).shape[-1]
        upper = np.zeros((len(packed), d, d))
        i, j = np.triu_indices(d)
        upper[:, i, j] = packed.numpy()
        full[name] = upper + np.triu(upper, 1).transpose(0, 2, 1)
    return full


def gram(columns_nd: torch.Tensor) -> np.ndarray:
    a = columns_nd.detach().double().numpy()
    return a.T @ a


CONVOLUTIONS = {
    "plain": (nn.Conv2d(3, 4, 3), (3, 7, 6)),
    "strided, padded": (nn.Conv2d(3, 4, (3, 2), stride=(2, 3), padding=(1, 2)), (3, 7, 6)),
    "dilated": (nn.Conv2d(2, 4, 3, dilation=(2, 1), padding=2), (2, 7, 6)),
    "grouped": (nn.Conv2d(6, 4, 3, groups=2, stride=2, padding=1), (6, 7, 6)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding=1), (4, 5, 5)),
    "1 x 1": (nn.Conv2d(4, 8, 1, stride=2), (4, 5, 5)),
    "same": (nn.Conv2d(2, 3, (2, 3), padding="same"), (2, 5, 4)),
    "reflected": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 5, 4)),
    "circular": (nn.Conv2d(2, 3, 3, padding=(1, 0), padding_mode="circular"), (2, 5, 4)),
    "of a line": (nn.Conv1d(2, 6, 3, stride=2, dilation=2, groups=2), (2, 9)),
    "of a volume": (nn.Conv3d(2, 3, (2, 1, 3), padding=(0, 1, 1), stride=(1, 2, 1)), (2, 3, 4, 5)),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("chunk", [2**24, 1])
def test_a_convolution_is_its_weight_times_its_columns(kind, chunk, monkeypatch):
    monkeypatch.setattr(layers, "CHUNK", chunk)
    module, shape = CONVOLUTIONS[kind]
    module = copy.deepcopy(module).double()
    x = torch.randn(5, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (layer,), others = find_layers(module)
    assert not others
    columns = torch.cat(list(layer.read(module, (x,), {})), dim=1)  # (G, n, d)
    out = (columns @ layer.matrix.mT).permute(1, 0, 2).flatten(1)  # (n, G o), n = B places
    expected = (module(x) - module.bias.view(-1, *[1] * (x.ndim - 2))).movedim(1, -1).reshape(out.shape)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    assert len(list(layer.read(module, (x,), {}))) == (5 if chunk == 1 else 1)


@pytest.mark.parametrize("groups", [1, 2])
def test_moments_of_a_convolution_are_those_of_torch_unfold(groups):
    model = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=groups)
    x = torch.randn(300, 4, 6, 6)  # several batches
    found = sums(model, x)["weight"]
    columns = F.unfold(x.double(), 3, padding=1, stride=2).transpose(1, 2).reshape(-1, 36)
    for g, part in enumerate(columns.chunk(groups, dim=1)):
        np.testing.assert_allclose(found[g], gram(part), rtol=1e-5, atol=1e-6 * len(part))


class Twice(nn.Module):
    """One linear layer applied twice, to tokens of shape (B, T, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)

    def forward(self, x):
        return self.inner(torch.tanh(self.inner(x)))


def test_a_layer_that_is_used_twice_sees_both_inputs():
    model, x = Twice().double(), torch.randn(40, 3, 5)
    model.inner.register_forward_pre_hook(lambda module, args: (args[0].double(),))  # the reader sees what it gives
    found = sums(model, x)["inner.weight"]
    first = x.double().reshape(-1, 5)
    second = torch.tanh(model.inner(first))
    np.testing.assert_allclose(found[0], gram(first) + gram(second), rtol=1e-12)


def test_layers_that_share_a_weight_are_one():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    found, others = find_layers(model)
    assert [layer.name for layer in found] == ["0.weight"]
    assert not others
    x = torch.randn(30, 4)
    expected = gram(x) + gram(torch.tanh(model[0](x)))
    np.testing.assert_allclose(sums(model, x)["0.weight"][0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_hands_over_what_it_multiplies(batch_first):
    attention = nn.MultiheadAttention(6, 2, batch_first=batch_first).double()
    nn.init.normal_(attention.in_proj_bias)
    nn.init.normal_(attention.out_proj.bias)
    x, y = torch.randn(4, 3, 6).double(), torch.randn(4, 3, 6).double()
    by_name = {layer.name: layer for layer in find_layers(attention)[0]}
    assert set(by_name) == {f"in_proj_weight[{i}]" for i in "qkv"} | {"out_proj.weight"}
    state = torch.get_rng_state()
    columns = {
        n: torch.cat(list(layer.read(attention, (x, y), {"value": x + y})), 1)[0] for n, layer in by_name.items()
    }
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in (("q", x), ("k", y), ("v", x + y)):
        assert torch.equal(columns[f"in_proj_weight[{name}]"], value.reshape(-1, 6))
    out = attention(x, y, x + y)[0].reshape(-1, 6)
    projection = attention.out_proj
    torch.testing.assert_close(columns["out_proj.weight"] @ projection.weight.T + projection.bias, out)
    assert torch.equal(torch.cat([by_name[f"in_proj_weight[{i}]"].matrix[0] for i in "qkv"]), attention.in_proj_weight)
    for i, which in enumerate("qkv"):
        by_name[f"in_proj_weight[{which}]"].put(torch.full((1, 6, 6), float(i)))
    assert attention.in_proj_weight.mean(1).tolist() == [0.0] * 6 + [1.0] * 6 + [2.0] * 6


def test_an_encoder_of_torch_is_read_although_it_has_a_fast_path():
    encoder = nn.TransformerEncoderLayer(6, 2, dim_feedforward=8, batch_first=True)
    found = sums(encoder, torch.randn(10, 3, 6))
    assert set(found) == {layer.name for layer in find_layers(encoder)[0]}
    assert len(found) == 6


class Own(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight / self.weight.norm())


def test_what_cannot_be_edited_is_named_and_left():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)
            self.head.weight = self.embedding.weight
            self.recurrent, self.own, self.fine = nn.GRU(4, 4), Own(4, 4), nn.Linear(4, 2)
            self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
            self.token = nn.Parameter(torch.zeros(1, 4))

    found, others = find_layers(Odd())
    assert [layer.name for layer in found] == ["fine.weight"]
    text = ", ".join(others)
    for part in ("embedding.weight (Embedding)", "recurrent.weight_ih_l0 (GRU)", "own.weight (Own)", "token (Odd)"):
        assert part in text
    assert "normed" in text
    assert "fine" not in text


def test_parts_add_up_and_sizes_do_not_grow():
    model = nn.Linear(6, 2)
    model.weight.data, model.bias.data = model.weight.double(), model.bias.double()
    x = torch.randn(200, 6)
    model.register_forward_pre_hook(lambda module, args: (args[0].double(),))
    found = find_layers(model)[0]
    part = [moments(model, found, rows_of(x), torch.arange(200)[k], Run())["weight"] for k in (slice(9), slice(9, 200))]
    whole = moments(model, found, rows_of(x), torch.arange(200), Run())["weight"]
    torch.testing.assert_close(part[0] + part[1], whole, rtol=1e-12, atol=1e-12)
    assert whole.dtype == torch.float64
    assert {p.shape for p in (*part, whole)} == {(1, 21)}


def test_shares_sum_to_one_and_nothing_is_nothing():
    model = nn.Linear(3, 2)
    c = share(moments(model, find_layers(model)[0], rows_of(torch.randn(9, 3)), torch.arange(9), Run())["weight"])[0]
    eigenvalues = np.linalg.eigvalsh(c.numpy())
    assert eigenvalues.sum() == pytest.approx(1)
    assert eigenvalues.min() > -1e-7
    assert torch.equal(share(torch.zeros(2, 6)), torch.zeros(2, 3, 3, dtype=torch.float64))


class Root(nn.Module):
    """NaN behind the first layer for inputs below zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.second(self.first(x).sum(1, keepdim=True) * torch.sqrt(x))


def test_inputs_that_are_not_finite_are_told_with_layer_and_class():
    x = torch.rand(20, 2)
    x[7] = -1
    rows = Rows(x, torch.arange(20) % 2, classes=["even", "odd"])
    model = Root().train()
    found = find_layers(model)[0]
    assert set(moments(model, found, rows, torch.arange(0, 20, 2), Run())) == {"first.weight", "second.weight"}
    with pytest.raises(ExpungeError, match=r"second\.weight are NaN or infinite on rows of class odd"):
        moments(model, found, rows, torch.arange(1, 20, 2), Run())
    assert model.training
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_hooks_go_when_the_model_fails():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(3, 2)).train()
    with pytest.raises(RuntimeError):
        moments(model, find_layers(model)[0], rows_of(torch.randn(4, 2)), torch.arange(4), Run())
    assert model.training
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_what_is_kept_is_read_and_is_what_was_made(tmp_path):
    model, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.randn(40, 4)
    calls: list[int] = []
    rows, store, found = rows_of(x), Store(tmp_path), find_layers(model)[0]
    index = {c: (rows.y == c).nonzero().flatten() for c in (0, 1)}
    model.register_forward_hook(lambda module, args, out: calls.append(len(out)))
    first = {c: m for c, m, kept in by_class(model, found, rows, index, Run(), store) if not kept}
    assert sum(calls) == 40
    second = {c: m for c, m, kept in by_class(model, found, rows, index, Run(seed=5), store) if kept}
    assert sum(calls) == 40
    assert set(first) == set(second) == {0, 1}
    assert all(torch.equal(first[c][n], second[c][n]) for c in first for n in first[c])
    # other rows, other weights, other layers, another model of the same weights: none of it is served stale
    for change in ("rows", "weights", "layers", "structure"):
        other, there, shown = model, found, {0: index[0]}
        if change == "rows":
            shown = {0: index[0][1:]}
        elif change == "weights":
            other = copy.deepcopy(model)
            other[0].bias.data[0] += 1e-6
            there = find_layers(other)[0]
        elif change == "layers":
            there = found[:1]
        else:
            other = nn.Sequential(model[0], nn.Tanh(), model[2])
        assert [kept for *_, kept in by_class(other, there, rows, shown, Run(), store)] == [False], change
