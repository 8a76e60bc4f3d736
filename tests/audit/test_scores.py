import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import log_loss

from expunge.audit.attacks import scores
from expunge.audit.attacks.scores import FEATURES, membership_score
from expunge.errors import ExpungeError

P = np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])
Y = np.array([0, 1])


@pytest.fixture
def logits():
    return np.log(P) + np.array([[3.0], [-40.0]])  # a constant for each row changes nothing


def test_modified_entropy_by_hand(logits):
    first = -0.3 * math.log(0.7) - 0.2 * math.log(0.8) - 0.1 * math.log(0.9)
    second = -0.75 * math.log(0.25) - 0.25 * math.log(0.75) - 0.5 * math.log(0.5)
    assert scores.modified_entropy(logits, Y) == pytest.approx([first, second])


def test_the_other_features_by_hand(logits):
    assert scores.confidence(logits, Y) == pytest.approx([0.7, 0.25])
    assert scores.loss(logits, Y) == pytest.approx([-math.log(0.7), -math.log(0.25)])
    assert scores.margin(logits, Y) == pytest.approx([math.log(0.7 / 0.3), math.log(0.25 / 0.75)])
    assert scores.entropy(logits, Y) == pytest.approx(scipy_entropy(P, axis=1))
    assert scores.correctness(logits, Y).tolist() == [1, 0]


def test_against_references_on_random_logits():
    random = np.random.default_rng(0)
    z, y = 4 * random.normal(size=(200, 7)), random.integers(0, 7, 200)
    p, p_y = softmax(z, axis=1), softmax(z, axis=1)[np.arange(200), y]
    assert scores.loss(z, y).mean() == pytest.approx(log_loss(y, p, labels=range(7)))
    others = np.where(np.arange(7) == y[:, None], 0, p * np.log(1 - p)).sum(axis=1)
    assert scores.modified_entropy(z, y) == pytest.approx(-(1 - p_y) * np.log(p_y) - others)
    assert scores.margin(z, y) == pytest.approx(np.log(p_y) - np.log(1 - p_y))


@pytest.mark.parametrize("name", FEATURES)
def test_finite_where_probabilities_round_to_0_and_1(name):
    z = np.array([[1000.0, 0.0, 0.0], [0.0, 1000.0, 0.0], [0.0, 0.0, 0.0]])
    assert np.isfinite(membership_score(name, z, np.zeros(3))).all()


def test_values_where_probabilities_round_to_0_and_1():
    z = np.array([[1000.0, 0.0], [0.0, 1000.0]])
    assert scores.loss(z, [0, 0]) == pytest.approx([0, 1000])
    assert scores.margin(z, [0, 0]) == pytest.approx([1000, -1000])
    assert scores.entropy(z, [0, 0]) == pytest.approx([0, 0])
    # sure and wrong: both the true and the chosen class contribute 1000 nats
    assert scores.modified_entropy(z, [0, 0]) == pytest.approx([0, 2000])


@pytest.mark.parametrize("name", FEATURES)
def test_larger_is_more_like_a_member(name):
    sure, wrong = [[6.0, 0.0, 0.0]], [[0.0, 1.0, 0.5]]
    assert membership_score(name, sure, [0]) > membership_score(name, wrong, [0])


def test_tensors_of_low_precision_are_computed_in_float64():
    z = torch.tensor([[2.0, 1.0, -1.0]], dtype=torch.bfloat16, requires_grad=True)
    expected = scores.margin(np.array([[2.0, 1.0, -1.0]]), [2])
    assert scores.margin(z, torch.tensor([2])) == pytest.approx(expected, abs=1e-14)


def test_no_rows_give_no_scores():
    for name in FEATURES:
        assert membership_score(name, np.zeros((0, 3)), np.zeros(0)).shape == (0,)


@pytest.mark.parametrize(
    ("logits", "labels", "says"),
    [
        ([[math.nan, 0.0], [1.0, 0.0]], [0, 1], "1 of 2 examples"),
        ([[1.0, 0.0]], [2], r"0\.\.1"),
        ([[1.0, 0.0]], [0.5], r"0\.\.1"),
        ([[1.0, 0.0]], [math.nan], r"0\.\.1"),
        ([[1.0, 0.0]], [0, 1], r"\(1, 2\) and \(2,\)"),
        ([[1.0]], [0], "C >= 2"),
    ],
)
def test_refusals(logits, labels, says):
    with pytest.raises(ExpungeError, match=says):
        scores.loss(logits, labels)


def test_a_misspelt_feature_is_told_its_near_name():
    with pytest.raises(ExpungeError, match="Did you mean 'confidence'"):
        membership_score("confidense", [[1.0, 0.0]], [0])
