import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from expunge.audit.stats import Estimate, balanced, float64, mean_interval, proportion
from expunge.errors import ExpungeError


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 30), (30, 30), (3, 30), (17, 146), (999, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_proportion_is_clopper_pearson(k, n, level):
    expected = stats.binomtest(k, n).proportion_ci(level, method="exact")
    assert proportion(k, n, level) == pytest.approx((expected.low, expected.high), abs=1e-10)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_proportion_refuses_impossible_counts(k, n):
    with pytest.raises(ExpungeError, match=f"k={k} of n={n}"):
        proportion(k, n)


def test_proportion_covers_for_every_rate():
    for n, p in [(10, 0.02), (40, 0.5), (40, 0.97)]:
        k = np.arange(n + 1)
        covered = np.array([low <= p <= high for low, high in (proportion(int(i), n) for i in k)])
        assert stats.binom.pmf(k, n, p)[covered].sum() >= 0.95


def test_mean_interval_is_student_t():
    values = [3.0, 4.5, 2.25, 8.0]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert mean_interval(values) == pytest.approx(expected)


def test_mean_of_one_value_has_no_interval():
    assert mean_interval([2.0]) == (-math.inf, math.inf)
    assert Estimate.mean([2.0]) == Estimate(2.0, None, None)
    assert not Estimate.mean([]).ok
    with pytest.raises(ExpungeError, match="at least one"):
        mean_interval([])
    with pytest.raises(ExpungeError, match="1 of 2"):
        mean_interval([1.0, math.nan])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_a_failure(value):
    estimate = Estimate(value, 0.0, 1.0)
    assert not estimate.ok
    assert estimate.low is None
    assert list(estimate.to_json()) == ["failed"]
    json.dumps(estimate.to_json(), allow_nan=False)


def test_to_json():
    assert Estimate(np.float32(0.5), 0, 1).to_json() == {"value": 0.5, "low": 0.0, "high": 1.0}
    assert Estimate(1.0, -math.inf, math.inf).to_json() == {"value": 1.0, "low": None, "high": None}
    assert Estimate.failed("no unseen rows").to_json() == {"failed": "no unseen rows"}


def test_share_in_percent():
    expected = stats.binomtest(7, 20).proportion_ci(method="exact")
    share = Estimate.share(7, 20, 100.0)
    assert (share.value, share.low, share.high) == pytest.approx((35, 100 * expected.low, 100 * expected.high))
    assert "no examples" in Estimate.share(0, 0).why


def test_balanced_accuracy_covers_and_always_has_a_width():
    random = np.random.default_rng(0)
    for (p, n), (q, m) in [((0.5, 50), (0.5, 50)), ((0.9, 20), (0.6, 200)), ((0.98, 30), (0.97, 30))]:
        trials = [balanced(int(random.binomial(n, p)), n, int(random.binomial(m, q)), m) for _ in range(400)]
        assert np.mean([e.low <= (p + q) / 2 <= e.high for e in trials]) >= 0.93
    for caught, cleared in [(0, 0), (5, 5), (0, 5)]:
        e = balanced(caught, 5, cleared, 5)
        assert e.high - e.low > 0.1
        assert 0 <= e.low <= e.value <= e.high <= 1
    assert not balanced(0, 0, 3, 5).ok


def test_float64_reads_any_precision():
    values = torch.tensor([0.5, -2.0], dtype=torch.bfloat16, requires_grad=True)
    assert float64(values).dtype == np.float64
    assert float64(values).tolist() == [0.5, -2.0]
