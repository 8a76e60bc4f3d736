"""BatchNorm's statistics, estimated anew: against NumPy, on the rows that may be read and no others."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from expunge.data import Rows
from expunge.errors import ExpungeError
from expunge.norms import LONE, has_statistics, lone_rows, recalibrate
from expunge.run import Run
from kit import Untouchable, bits


class Noting(Rows):
    """Rows that remember every batch that was read."""

    batches: list[list[int]]

    @classmethod
    def of(cls, rows: Rows) -> Noting:
        other = object.__new__(cls)
        other.__dict__.update(rows.__dict__)
        other.batches = []
        return other

    def x(self, index_B: Tensor) -> Tensor:
        self.batches.append(index_B.tolist())
        return super().x(index_B)


def made(momentum: float | None = 0.1) -> nn.Sequential:
    """A normalised image, two normalised layers, and a dropout that must stay off."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.BatchNorm2d(1),
        nn.Flatten(),
        nn.Linear(64, 8),
        nn.BatchNorm1d(8, momentum=momentum),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(8, 6),
        nn.BatchNorm1d(6, affine=False),
        nn.Linear(6, 10),
    )
    with torch.no_grad():
        for norm in norms(model):
            norm.running_mean.fill_(7.0)
            norm.running_var.fill_(3.0)
        model[3].weight.uniform_(0.5, 2)
        model[3].bias.uniform_(-1, 1)
    return model


def norms(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if "BatchNorm" in type(m).__name__]


def by_numpy(model: nn.Sequential, batches: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The mean over batches of each batch's mean and unbiased variance, layer by layer, in float64."""

    def numbers(t: Tensor) -> np.ndarray:
        return t.detach().double().numpy()

    def normal(x: np.ndarray, norm: nn.Module) -> np.ndarray:
        y = (x - x.mean(0)) / np.sqrt(x.var(0) + norm.eps)
        return y if norm.weight is None else y * numbers(norm.weight) + numbers(norm.bias)

    told: list[list[np.ndarray]] = [[], [], []]
    for x in batches:
        pixels = x.reshape(-1, 1)
        one = normal(pixels, model[0]).reshape(len(x), -1) @ numbers(model[2].weight).T + numbers(model[2].bias)
        two = np.maximum(normal(one, model[3]), 0) @ numbers(model[6].weight).T + numbers(model[6].bias)
        for place, values in zip(told, (pixels, one, two)):
            place.append(np.stack([values.mean(0), values.var(0, ddof=1)]))
    return [tuple(np.mean(place, axis=0)) for place in told]


@pytest.mark.parametrize(("count", "size", "expected"), [(300, 64, 4), (100, 256, 1), (257, 128, 2)])
def test_statistics_are_the_mean_over_batches_as_numpy_has_it(train, count, size, expected):
    """The forward pass normalises with the batch's own statistics, so later layers see what training showed them."""
    model, rows = made(), Noting.of(train)
    index = torch.randperm(len(train), generator=torch.Generator().manual_seed(5))[:count]
    recalibrate(model, rows, index, Run(seed=3), batch_size=size)
    assert len(rows.batches) == expected
    assert max(map(len, rows.batches)) - min(map(len, rows.batches)) <= 1
    batches = [train.x(torch.tensor(b)).double().numpy() for b in rows.batches]
    for norm, (mean, variance) in zip(norms(model), by_numpy(model, batches)):
        np.testing.assert_allclose(norm.running_mean.numpy(), mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(norm.running_var.numpy(), variance, rtol=1e-4, atol=1e-5)
        assert norm.num_batches_tracked == expected


def test_only_the_rows_of_the_index_are_read_each_of_them_once(train):
    rows, index = Noting.of(train), torch.arange(0, 600, 3)
    recalibrate(made(), rows, index, Run(), batch_size=50)
    read = [i for batch in rows.batches for i in batch]
    assert sorted(read) == index.tolist()
    assert read != index.tolist()  # in random order: rows may be sorted by class


def test_what_was_there_before_does_not_matter(train):
    one, other = made(), made()
    for norm in norms(other):
        norm.running_mean.fill_(float("nan"))
        norm.running_var.fill_(float("inf"))
        norm.num_batches_tracked.fill_(1000)
    for model in (one, other):
        recalibrate(model, train, torch.arange(200), Run(), batch_size=64)
    assert bits(one) == bits(other)


def test_same_seed_same_bits_and_another_seed_other_batches(train):
    found = []
    for seed in (0, 0, 1):
        model = made()
        torch.manual_seed(len(found))  # whatever the global state is
        recalibrate(model, train, torch.arange(300), Run(seed=seed), batch_size=64)
        found.append(bits(model))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("momentum", [0.3, None])
def test_everything_but_the_statistics_stays(train, momentum):
    model = made(momentum).train()
    model[3].eval()  # frozen, as in fine-tuning
    model[2].weight.requires_grad_(False)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    modes, flags = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    state = torch.get_rng_state()
    with torch.enable_grad():
        recalibrate(model, train, torch.arange(200), Run(), batch_size=64)
        assert torch.is_grad_enabled()
    changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {f"{i}.{n}" for i in (0, 3, 7) for n in ("running_mean", "running_var", "num_batches_tracked")}
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [n.momentum for n in norms(model)] == [0.1, momentum, 0.1]
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_modes_and_momenta_come_back_after_a_failure(train):
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("broken")

    model = nn.Sequential(nn.BatchNorm2d(1, momentum=0.3), Broken()).train()
    model[0].eval()
    with pytest.raises(RuntimeError, match="broken"):
        recalibrate(model, train, torch.arange(100), Run())
    assert [m.training for m in model.modules()] == [True, False, True]
    assert model[0].momentum == 0.3


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(1, track_running_stats=False), nn.GroupNorm(1, 1), nn.InstanceNorm2d(1), nn.Identity()]
)
def test_a_model_without_such_statistics_is_left_alone_and_no_row_is_read(train, norm):
    model = nn.Sequential(norm, nn.Flatten(), nn.Linear(64, 10)).train()
    before = bits(model)
    assert not has_statistics(model)
    recalibrate(model, Untouchable.of(train), torch.arange(100), Run())
    assert bits(model) == before
    assert all(m.training for m in model.modules())


def test_batch_norm_is_found_wherever_it_is():
    assert has_statistics(made())
    assert has_statistics(nn.ModuleDict({"a": nn.Sequential(nn.SyncBatchNorm(3))}))


# -- one row ---------------------------------------------------------------------------------------------------------


def narrowing() -> nn.Sequential:
    """BatchNorm on maps of 8x8, and then on maps of 1x1."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 3, 8), nn.BatchNorm2d(3), nn.Dropout(0.5))
    for norm in norms(model):
        nn.init.uniform_(norm.running_mean, -1, 1)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return model.train()


def test_one_value_of_a_channel_is_scaled_by_the_running_statistics_and_only_that(train):
    """What PyTorch refuses goes by the running statistics; the wide maps before it by their own, as NumPy has it."""
    model, notes = narrowing(), []
    x = train.x(torch.arange(1))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        copy.deepcopy(model)(x)
    first, convolution, last, _ = model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with lone_rows(model, 1, notes):
        out = model[:3](x).detach().double().numpy().reshape(3)
        assert last.training  # in between it is as it was
    image = x.double().numpy()
    image = (image - image.mean()) / np.sqrt(image.var() + first.eps)
    z = (convolution.weight.detach().double().numpy() * image).sum((1, 2, 3)) + convolution.bias.detach().numpy()
    expected = (z - before["2.running_mean"].numpy()) / np.sqrt(before["2.running_var"].numpy() + last.eps)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(last.running_mean, before["2.running_mean"])
    assert torch.equal(last.running_var, before["2.running_var"])
    assert not torch.equal(first.running_mean, before["0.running_mean"])  # it follows the data as ever
    assert notes == [LONE]
    assert all(m.training for m in model.modules())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("rows", [2, 3])
def test_more_rows_go_as_ever_to_the_bit(rows, train):
    models, notes = [narrowing(), narrowing()], []
    x = train.x(torch.arange(rows))
    with lone_rows(models[0], rows, notes):
        torch.manual_seed(0)
        out = models[0](x)
    torch.manual_seed(0)
    assert torch.equal(out, models[1](x))
    assert bits(models[0]) == bits(models[1])
    assert not notes


def test_one_row_of_wide_maps_goes_as_ever_to_the_bit(train):
    models = [nn.Sequential(nn.BatchNorm2d(1)).train() for _ in range(2)]
    notes: list[str] = []
    with lone_rows(models[0], 1, notes):
        out = models[0](train.x(torch.arange(1)))
    assert torch.equal(out, models[1](train.x(torch.arange(1))))
    assert bits(models[0]) == bits(models[1])
    assert not notes


def test_one_row_without_running_statistics_is_refused():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)).train()
    told = r"of 3 channels keeps no running statistics.*name more rows"
    with pytest.raises(ExpungeError, match=told), lone_rows(model, 1, []):
        model(torch.ones(1, 4))
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_modes_and_hooks_are_as_before_when_the_forward_pass_fails():
    model = nn.BatchNorm1d(3).train()
    with pytest.raises(RuntimeError), lone_rows(model, 1, []):
        model(torch.ones(1, 5).double())  # not its number of channels
    assert model.training
    assert not model._forward_pre_hooks
    assert not model._forward_hooks
