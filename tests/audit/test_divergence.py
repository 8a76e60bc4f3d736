import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import euclidean, jensenshannon
from scipy.special import softmax
from scipy.stats import t

from expunge.audit.divergence import activation_distance, agreement, js, mean_js, zrf, zrf_legacy
from expunge.errors import ExpungeError


@pytest.fixture
def two():
    random = np.random.default_rng(0)
    return 3 * random.normal(size=(50, 6)), random.normal(size=(50, 6))


def test_js_against_scipy(two):
    p, q = (softmax(z, axis=1) for z in two)
    assert js(*two) == pytest.approx(jensenshannon(p, q, base=2, axis=1) ** 2)
    assert js(two[1], torch.tensor(two[0])) == pytest.approx(js(*two))


def test_js_where_probabilities_round_to_0_and_1():
    a, b = [[2000.0, 0.0], [2000.0, 0.0], [2000.0, 0.0]], [[0.0, 2000.0], [2000.0, 0.0], [0.0, 0.0]]
    half = jensenshannon([1, 0], [0.5, 0.5], base=2) ** 2
    assert js(a, b) == pytest.approx([1, 0, half])


def test_mean_js_has_a_student_t_interval(two):
    values = js(*two)
    expected = t.interval(0.95, 49, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(50))
    e = mean_js(*two)
    assert (e.value, e.low, e.high) == pytest.approx((values.mean(), *expected))


def test_intervals_stay_in_the_unit_range():
    far = [[50.0, 0.0], [0.0, 0.0]], [[0.0, 50.0], [0.0, 0.0]]
    for e in mean_js(*far), zrf(*far):
        assert (e.low, e.high) == (0, 1)


def test_activation_distance(two):
    p, q = (softmax(z, axis=1) for z in two)
    lengths = [euclidean(a, b) for a, b in zip(p, q)]
    expected = t.interval(0.95, 49, loc=np.mean(lengths), scale=np.std(lengths, ddof=1) / np.sqrt(50))
    e = activation_distance(*two)
    assert (e.value, e.low, e.high) == pytest.approx((np.mean(lengths), *expected))
    far = activation_distance([[2000.0, 0.0], [0.0, 0.0]], [[0.0, 2000.0], [0.0, 0.0]])
    assert (far.value, far.low, far.high) == pytest.approx((2**0.5 / 2, 0, 2**0.5))
    assert activation_distance(two[0], two[0]).value == 0


def test_zrf(two):
    untrained = two[1]
    assert zrf(untrained, untrained).value == 1
    assert zrf(two[0], untrained).value == pytest.approx(1 - mean_js(two[0], untrained).value)
    opposite = zrf([[2000.0, 0.0]], [[0.0, 2000.0]])
    assert opposite.value == pytest.approx(0)
    assert 0 < zrf(*two).value < 1


def nearly_one_hot_and_uniform(classes):
    p = np.full((1, classes), 1e-4)
    p[0, 0] = 1 - 1e-4 * (classes - 1)
    return np.log(p), np.zeros((1, classes))


@pytest.mark.parametrize(("classes", "printed"), [(10, 0.844), (20, 0.919), (100, 0.984)])
def test_legacy_zrf_reproduces_the_published_numbers(classes, printed):
    assert zrf_legacy(*nearly_one_hot_and_uniform(classes)).value == pytest.approx(printed, abs=0.005)


def test_zrf_where_the_legacy_one_crowds_towards_1():
    assert zrf(*nearly_one_hot_and_uniform(10)).value == pytest.approx(0.247, abs=5e-4)


def test_legacy_zrf_is_what_torch_computes_with_the_arguments_turned(two):
    p, q = (torch.softmax(torch.tensor(z), dim=1) for z in two)
    m = (p + q) / 2
    turned = 0.5 * F.kl_div(p.log(), m, reduction="none") + 0.5 * F.kl_div(q.log(), m, reduction="none")
    assert zrf_legacy(*two).value == pytest.approx(1 - float(turned.mean()))


def test_agreement():
    a = np.eye(3)[[0, 1, 2, 0]]
    b = 5 * np.eye(3)[[0, 1, 1, 0]] - 9
    assert agreement(a, b).value == 75
    assert agreement(a, a).value == 100
    assert agreement(a, a).low < 50  # four examples prove little


@pytest.mark.parametrize("judge", [mean_js, activation_distance, zrf, zrf_legacy, agreement])
def test_no_examples_fail(judge):
    assert not judge(np.zeros((0, 3)), np.zeros((0, 3))).ok


@pytest.mark.parametrize("judge", [js, mean_js, activation_distance, zrf, zrf_legacy, agreement])
def test_refusals(judge, two):
    with pytest.raises(ExpungeError, match="same examples and classes"):
        judge(two[0], two[1][:, :5])
    broken = two[1].copy()
    broken[[3, 7], 0] = np.nan
    with pytest.raises(ExpungeError, match=r"second model's logits .* 2 of 50"):
        judge(two[0], broken)
