import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, mannwhitneyu, norm
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, roc_curve

from expunge.audit.attacks.roc import auc, balanced_accuracy, best_threshold, placements, roc, tpr_at_fpr
from expunge.errors import ExpungeError

RANDOM = np.random.default_rng(0)
SAMPLES = [
    (RANDOM.normal(1, 1, 60), RANDOM.normal(0, 2, 90)),
    (RANDOM.integers(0, 4, 50), RANDOM.integers(1, 6, 20)),  # ties, and "members" that look less like members
    (np.array([1.0]), np.array([0.0, 1.0, 2.0])),
]


def labelled(members, nonmembers):
    kind = np.repeat([1, 0], [len(members), len(nonmembers)])
    return kind, np.concatenate([members, nonmembers]).astype(float)


@pytest.mark.parametrize(("members", "nonmembers"), SAMPLES)
def test_curve_and_area_against_scikit_learn(members, nonmembers):
    kind, score = labelled(members, nonmembers)
    fpr, tpr, _ = roc_curve(kind, score, drop_intermediate=False)
    curve = roc(members, nonmembers)
    np.testing.assert_allclose((curve.fpr, curve.tpr), (fpr, tpr), atol=1e-12)
    area = auc(members, nonmembers)
    assert area.value == pytest.approx(roc_auc_score(kind, score))
    assert area.value == pytest.approx(mannwhitneyu(members, nonmembers).statistic / len(members) / len(nonmembers))
    assert 0 <= area.low < area.value < area.high <= 1


def delong_by_definition(members, nonmembers):
    """The variance from every pair, one by one."""
    wins = np.array([[1.0 if x > y else 0.5 if x == y else 0.0 for y in nonmembers] for x in members])
    m, n = wins.shape
    by_m = sum((row.mean() - wins.mean()) ** 2 for row in wins) / (m - 1)
    by_n = sum((column.mean() - wins.mean()) ** 2 for column in wins.T) / (n - 1)
    return wins.mean(), np.sqrt(by_m / m + by_n / n)


def half_width_on_logit_scale(estimate):
    low, high = (np.log(p / (1 - p)) for p in (estimate.low, estimate.high))
    return (high - low) / 2


def test_interval_is_delongs():
    random = np.random.default_rng(1)
    members, nonmembers = np.round(random.normal(0.8, 1, 900), 2), np.round(random.normal(0, 1, 1100), 2)
    area, se = delong_by_definition(members, nonmembers)
    expected = norm.ppf(0.975) * se / (area * (1 - area))  # 2,000 examples: Student's t is normal to .2 %
    assert half_width_on_logit_scale(auc(members, nonmembers)) == pytest.approx(expected, rel=2e-3)


def test_interval_agrees_with_a_bootstrap():
    members, nonmembers = SAMPLES[0]

    def area(a, b):
        return mannwhitneyu(a, b).statistic / len(a) / len(b)

    sampled = bootstrap((members, nonmembers), area, n_resamples=600, vectorized=False, rng=0, method="percentile")
    found = auc(members, nonmembers)
    assert found.low == pytest.approx(sampled.confidence_interval.low, abs=0.025)
    assert found.high == pytest.approx(sampled.confidence_interval.high, abs=0.025)


@pytest.mark.parametrize(("shift", "m", "n"), [(0.0, 30, 30), (1.0, 15, 80), (3.0, 40, 40)])
def test_interval_covers_the_true_area(shift, m, n):
    random, truth = np.random.default_rng(2), norm.cdf(shift / np.sqrt(2))
    trials = [auc(random.normal(shift, 1, m), random.normal(0, 1, n)) for _ in range(500)]
    assert np.mean([e.low <= truth <= e.high for e in trials]) >= 0.93
    assert np.mean([e.value for e in trials]) == pytest.approx(truth, abs=0.01)


@pytest.mark.parametrize(
    ("members", "nonmembers", "area"),
    [
        ([1, 2, 3], [0, 0.5], 1),
        ([0] * 200, [1] * 200, 0),
        ([5] * 40, [5] * 40, 0.5),
        ([1], [1], 0.5),
        ([2], [1], 1),
    ],
)
def test_degenerate_scores_have_an_interval_with_a_width(members, nonmembers, area):
    e = auc(members, nonmembers)
    assert e.value == area
    assert e.low <= area <= e.high
    assert e.high - e.low > 1 / (len(members) + len(nonmembers)) / 2
    assert e.low >= 0
    assert e.high <= 1


def test_interval_shrinks_with_more_examples_when_separated():
    widths = [1 - auc(np.ones(n), np.zeros(n)).low for n in (5, 50, 500)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.02


def test_placements_keep_the_order_of_the_members():
    assert placements([5.0, 0.0, 2.0], [2.0, 1.0]).tolist() == [1.0, 0.0, 0.75]
    for members, nonmembers in SAMPLES:
        assert placements(members, nonmembers).mean() == pytest.approx(auc(members, nonmembers).value)


def test_best_threshold_against_trying_all():
    for members, nonmembers in SAMPLES:
        kind, score = labelled(members, nonmembers)
        best = max(balanced_accuracy_score(kind, score >= t) for t in np.unique(score))
        threshold = best_threshold(members, nonmembers)
        assert balanced_accuracy_score(kind, score >= threshold) == pytest.approx(best)


def test_best_threshold_lies_between_scores_even_neighbouring_floats():
    assert best_threshold([1.0], [0.0]) == 0.5
    above = np.nextafter(1.0, 2.0)
    assert best_threshold([above], [1.0]) == above
    assert best_threshold([1.0, 1.0], [1.0]) == 1.0


def test_balanced_accuracy_is_not_flattered_without_signal():
    random = np.random.default_rng(3)
    trials = [balanced_accuracy(random.normal(size=30), random.normal(size=60), seed=i) for i in range(400)]
    assert np.mean([e.value for e in trials]) == pytest.approx(0.5, abs=0.01)
    assert np.mean([e.low <= 0.5 <= e.high for e in trials]) >= 0.93


def test_balanced_accuracy_nears_the_best_possible():
    random = np.random.default_rng(4)
    e = balanced_accuracy(random.normal(1, 1, 20_000), random.normal(0, 1, 10_000))
    assert e.value == pytest.approx(norm.cdf(0.5), abs=0.01)
    assert e.low <= norm.cdf(0.5) <= e.high
    assert balanced_accuracy(np.ones(9), np.zeros(9)).value == 1
    assert balanced_accuracy(np.ones(9), np.ones(9)).value == 0.5


def test_balanced_accuracy_depends_on_its_seed_only():
    members, nonmembers = SAMPLES[0]
    assert balanced_accuracy(members, nonmembers, seed=5) == balanced_accuracy(members[::-1], nonmembers, seed=5)
    values = {balanced_accuracy(members, nonmembers, seed=s).value for s in range(6)}
    assert len(values) > 1


@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.05, 0.3, 1.0])
@pytest.mark.parametrize(("members", "nonmembers"), SAMPLES)
def test_rate_at_few_false_alarms_against_scikit_learn(members, nonmembers, fpr):
    false, true, _ = roc_curve(*labelled(members, nonmembers), drop_intermediate=False)
    expected = true[false <= fpr + 1e-12].max()
    e = tpr_at_fpr(members, nonmembers, fpr)
    interval = binomtest(round(expected * len(members)), len(members)).proportion_ci(method="exact")
    assert (e.value, e.low, e.high) == pytest.approx((expected, interval.low, interval.high), abs=1e-9)


def test_rate_without_signal_is_the_false_alarm_rate():
    random = np.random.default_rng(5)
    e = tpr_at_fpr(random.normal(size=50_000), random.normal(size=50_000))
    assert e.value == pytest.approx(0.01, abs=0.003)
    assert tpr_at_fpr(np.ones(100), np.ones(100)).value == 0


def test_thinned_curve_keeps_its_ends_and_its_shape():
    random = np.random.default_rng(6)
    curve = roc(random.normal(1, 1, 3000), random.normal(0, 1, 2000))
    thin = curve.thin()
    assert 90 <= len(thin.fpr) <= 100
    assert (thin.fpr[0], thin.tpr[0], thin.fpr[-1], thin.tpr[-1]) == (0, 0, 1, 1)
    assert set(zip(thin.fpr, thin.tpr)) <= set(zip(curve.fpr, curve.tpr))
    assert np.abs(np.interp(curve.fpr, thin.fpr, thin.tpr) - curve.tpr).max() < 0.04
    area = np.trapezoid if hasattr(np, "trapezoid") else np.trapz
    assert area(thin.tpr, thin.fpr) == pytest.approx(area(curve.tpr, curve.fpr), abs=2e-3)
    few = roc([1, 2], [0, 3])
    assert few.thin() is few


@pytest.mark.parametrize("judge", [auc, balanced_accuracy, tpr_at_fpr])
def test_without_examples_the_estimate_says_so(judge):
    for members, nonmembers in ([], [1.0]), ([1.0], []), ([], []):
        e = judge(members, nonmembers)
        assert not e.ok
        assert "members" in e.why


@pytest.mark.parametrize("judge", [roc, best_threshold, placements])
def test_without_examples_there_is_no_curve_or_threshold(judge):
    with pytest.raises(ExpungeError, match="there are 0 and 1"):
        judge([], [1.0])


@pytest.mark.parametrize("judge", [roc, auc, balanced_accuracy, tpr_at_fpr])
def test_scores_that_cannot_be_ordered_are_refused(judge):
    with pytest.raises(ExpungeError, match="1 of 2 numbers in member scores"):
        judge([np.nan, 1.0], [0.0, 1.0])
    with pytest.raises(ExpungeError, match="non-member scores must have shape"):
        judge([0.0, 1.0], [[0.0, 1.0]])
