"""Gradients of single rows: against NumPy, against one backward pass for each row, and where rows have none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import expunge as ex
from expunge import ExpungeError, Run
from expunge.artifact import per_sample as ps
from expunge.artifact.importance import norm
from expunge.task import Classification
from gradients import Exact, Wide, arrays, of_loss, of_norm, some_rows


def one_by_one(model, objective, x, y) -> torch.Tensor:
    """Ordinary backward passes, a row each."""
    rows = []
    for i in range(len(x)):
        model.zero_grad()
        objective(model, x[i : i + 1], y[i : i + 1]).sum().backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters() if p.requires_grad]
        rows.append(torch.cat([g.to_dense().flatten() for g in grads]))
    model.zero_grad(set_to_none=True)
    return torch.stack(rows)


def test_they_are_those_of_numpy():
    net, rows = Wide(), some_rows()
    index = torch.arange(len(rows))
    x, y = arrays(rows, index)
    found = ps.per_sample(net, Exact(3).loss, rows.x(index), rows.y)
    np.testing.assert_allclose(found.numpy(), of_loss(net, x, y), rtol=1e-10, atol=1e-12)
    found = ps.per_sample(net, norm(Exact(3)), rows.x(index), rows.y)
    np.testing.assert_allclose(found.numpy(), of_norm(net, x), rtol=1e-10, atol=1e-12)
    weight = torch.linspace(-1, 1, len(rows), dtype=torch.float64)
    summed = ps.total(net, Exact(3).loss, rows.x(index), rows.y, weight)
    np.testing.assert_allclose(summed.numpy(), weight.numpy() @ of_loss(net, x, y), rtol=1e-9, atol=1e-12)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.out(self.b(self.a(x.flatten(1)).tanh()).tanh())


class Recurrent(nn.Module):
    """Nothing that can be batched by vmap, a value that is looked at, and a weight that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out, self.idle = nn.GRU(8, 12, batch_first=True), nn.Linear(12, 10), nn.Linear(2, 2)

    def forward(self, x):
        hidden = self.cell(x.squeeze(1))[0][:, -1]
        return self.out(hidden * 2 if float(hidden.detach().sum()) > 1e9 else hidden)


class TwoNames(nn.Module):
    """Layers by name, and in a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 12), nn.Linear(12, 10)
        self.net = nn.Sequential(nn.Flatten(), self.first, nn.Tanh(), self.last)

    def forward(self, x):
        return self.net(x)


class Scaled(nn.Module):
    """A parameter that is a single number, as in CLIP."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.out = nn.Parameter(torch.tensor(1.5)), nn.Linear(64, 10)

    def forward(self, x):
        return self.scale * self.out(x.flatten(1))


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(20, 6, sparse=True), nn.Linear(6, 10)

    def forward(self, x):
        return self.out(self.table(x.flatten(1).long().clamp(0, 19)).mean(1))


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of sparse gradients
@pytest.mark.parametrize(
    "kind", ["convnet", "resnet9", "vit_tiny", "frozen", "tied", "two names", "recurrent", "scaled", "sparse"]
)
def test_they_are_those_of_one_backward_pass_for_each_row(kind, train):
    torch.manual_seed(0)
    build = {"tied": Tied, "two names": TwoNames, "recurrent": Recurrent, "scaled": Scaled, "sparse": Sparse}
    if kind in build:
        model = build[kind]()
    else:
        spec = {"name": "resnet9", "width": 4} if kind == "resnet9" else {"name": "convnet", "norm": "batch"}
        spec = {"name": "vit_tiny", "dim": 24, "depth": 2, "patch": 4} if kind == "vit_tiny" else spec
        model = ex.models.build(**spec, channels=1, size=8, classes=10)
    if kind == "frozen":
        for name, p in model.named_parameters():
            p.requires_grad_(not name.endswith("bias"))
    x, y = train.x(torch.arange(7)), train.y[:7]
    model.train()(x)  # running statistics that are not those of a fresh model
    model.eval()
    before = [b.clone() for b in model.buffers()]
    loss = Classification(10).loss
    found = ps.per_sample(model, loss, x, y)
    expected = one_by_one(model, loss, x, y)
    assert found.shape == (7, sum(p.numel() for p in ps.trainable(model).values()))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers()))
    some = list(ps.trainable(model))[1:3]
    sizes = [p.numel() for p in ps.trainable(model).values()]
    part = expected[:, sizes[0] : sum(sizes[:3])]
    torch.testing.assert_close(ps.per_sample(model, loss, x, y, some), part, rtol=1e-3, atol=1e-5)


def test_inside_in_use_batch_norm_does_not_see_the_batch(net, train):
    """And everything is afterwards as it was."""
    net.train()
    modes = [m.training for m in net.modules()]
    state = torch.get_rng_state()
    with torch.no_grad():
        with ps.in_use(net, Run()):
            alone = ps.per_sample(net, Classification(10).loss, train.x(torch.tensor([0])), train.y[:1])
            among = ps.per_sample(net, Classification(10).loss, train.x(torch.arange(9)), train.y[:9])
        torch.testing.assert_close(alone[0], among[0], rtol=1e-4, atol=1e-6)
        assert not torch.is_grad_enabled()
    assert [m.training for m in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_go_out_and_in_where_they_are_trained(net):
    first = next(net.parameters())
    first.requires_grad_(False)
    frozen, weights = first.detach().clone(), ps.weights_of(net)
    ps.put(net, 2 * weights)
    assert torch.equal(ps.weights_of(net), 2 * weights)
    assert torch.equal(first, frozen)


def test_what_has_no_gradient_of_its_own_is_told(net):
    assert ps.problems(net) == []
    assert "Every weight is frozen" in ps.problems(net.requires_grad_(False))[0]
    bare = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False))
    assert ps.problems(bare)[0].startswith("1 keeps no running statistics")


def test_numbers_that_are_not_finite_name_their_layers(net):
    value = torch.zeros(len(ps.weights_of(net)))
    ps.check_finite(net, value, "Gradients")
    value[-1] = torch.nan
    last = list(ps.trainable(net))[-1]
    with pytest.raises(ExpungeError, match=f"Gradients are NaN or infinite in {last},"):
        ps.check_finite(net, value, "Gradients")
