"""Which entries are kept, against a stable sort in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expunge.errors import ExpungeError
from expunge.largest import _largest_torch, _lower_bound, check_keep, largest


def by_sorting(x: np.ndarray, keep: float) -> np.ndarray:
    """The k first of a stable sort by falling magnitude, without zeros."""
    magnitude = np.abs(x.astype(np.float64).ravel())
    first = np.argsort(-magnitude, kind="stable")[: max(1, round(keep * x.size))]
    return np.sort(first[magnitude[first] > 0])


def drawn(seed: int, n: int) -> np.ndarray:
    """Updates of very different sizes, by seed: smooth, with ties, mostly zeros, or sorted."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n) * np.exp(3 * rng.standard_normal(n))
    kinds = (x, np.round(rng.standard_normal(n), 1), x * (rng.random(n) < 0.01), np.sort(x), np.ones(n), -np.ones(n))
    return kinds[seed % len(kinds)].astype(np.float32)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("n", [1, 2, 7, 100, 4097, 70_001, 200_000])
def test_the_largest_are_those_of_a_stable_sort(seed, n):
    x = drawn(seed, n)
    for keep in (0.001, 0.05, 0.5, 0.999):
        np.testing.assert_array_equal(largest(torch.from_numpy(x), keep).numpy(), by_sorting(x, keep))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1000, 100_000])
def test_of_every_float_type(dtype, n):
    x = torch.from_numpy(drawn(0, n)).clamp(-6e4, 6e4).to(dtype)  # of 16 bits many are equal
    for keep in (0.01, 0.3):
        np.testing.assert_array_equal(largest(x, keep).numpy(), by_sorting(x.double().numpy(), keep))


@pytest.mark.parametrize("seed", range(6))
def test_the_way_of_other_devices_chooses_the_same(seed):
    x = drawn(seed, 5000)
    for k in (1, 50, 2500, 5000):
        found = _largest_torch(torch.from_numpy(x).view(torch.int32), k)
        np.testing.assert_array_equal(found.numpy(), by_sorting(x, k / 5000))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_same():
    x = torch.from_numpy(drawn(1, 100_000))
    found = largest(x.cuda(), 0.01)
    assert found.is_cuda
    assert torch.equal(found.cpu(), largest(x, 0.01))


def test_an_unlucky_sample_changes_nothing():
    """All that is large lies where the sample looks, so that its limit is much too high."""
    x = np.full(100_000, 0.5, np.float32)
    x[:: max(1, len(x) // (1 << 13)) | 1] = np.arange(1, 1 + len(x[:: max(1, len(x) // (1 << 13)) | 1]))
    limit = _lower_bound(x.view(np.int32), 9_000)
    assert (x.view(np.int32) >= limit).sum() < 9_000, "the sample was not unlucky; the test shows nothing"
    np.testing.assert_array_equal(largest(torch.from_numpy(x), 0.09).numpy(), by_sorting(x, 0.09))


def test_exactly_k_of_equals_and_the_first_ones():
    assert largest(torch.tensor([1.0, -1, 1, -1, 1, 1, 1, 1, 1, 1]), 0.3).tolist() == [0, 1, 2]
    assert largest(torch.tensor([1.0, -2, 1, 3, 1]), 0.6).tolist() == [0, 1, 3]
    assert largest(torch.ones(100_000), 0.02).tolist() == list(range(2_000))


def test_zeros_are_kept_only_where_everything_is():
    x = torch.tensor([0.0, -0.0, 2, 0, 1e-45])
    assert largest(x, 0.9).tolist() == [2, 4]
    assert largest(x, 1).tolist() == largest(x, 1.0).tolist() == [0, 1, 2, 3, 4]
    assert largest(torch.zeros(3), 0.5).tolist() == []
    assert largest(torch.zeros(100_000), 0.5).tolist() == []
    assert largest(torch.zeros(0), 0.5).tolist() == []


def test_one_entry_at_least_is_kept():
    assert largest(torch.tensor([1.0, 3, 2]), 1e-9).tolist() == [1]


def test_damaged_numbers_count_as_the_largest():
    x = torch.tensor([1.0, float("inf"), 3, float("nan"), -float("nan")])
    assert largest(x, 0.6).tolist() == [1, 3, 4]


def test_of_tensors_of_any_shape_and_layout():
    x = torch.from_numpy(drawn(0, 600)).view(20, 30)
    assert torch.equal(largest(x.t(), 0.1), largest(x.t().reshape(-1), 0.1))
    parameter = torch.nn.Parameter(x.clone())
    positions = largest(parameter, 0.1)
    assert positions.dtype == torch.int64
    assert torch.equal(positions, largest(x, 0.1))
    assert torch.equal(parameter.detach(), x)


@pytest.mark.parametrize("keep", [0, 1.0001, -0.1, float("nan"), "0.1", True, None])
def test_keep_outside_its_range_is_refused(keep):
    for call in (lambda: check_keep(keep), lambda: largest(torch.ones(3), keep)):
        with pytest.raises(ExpungeError, match=r"keep must be above 0 and at most 1.*got"):
            call()


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64, torch.float8_e5m2])
def test_other_numbers_are_refused(dtype):
    with pytest.raises(ExpungeError, match="floats"):
        largest(torch.ones(4).to(dtype), 0.5)
