import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, recall_score

from expunge.audit.accuracy import accuracy, accuracy_by_class, error
from expunge.errors import ExpungeError


@pytest.fixture
def answers():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 300)
    return np.where(random.random(300) < 0.7, labels, random.integers(0, 4, 300)), labels


def test_accuracy_and_error_in_percent(answers):
    predicted, labels = answers
    right = accuracy_score(labels, predicted)
    interval = binomtest(round(300 * right), 300).proportion_ci(method="exact")
    found, wrong = accuracy(torch.tensor(predicted), labels), error(predicted, torch.tensor(labels))
    assert (found.value, found.low, found.high) == pytest.approx((100 * right, 100 * interval.low, 100 * interval.high))
    assert (wrong.value, wrong.low, wrong.high) == pytest.approx((100 - found.value, 100 - found.high, 100 - found.low))


def test_by_class_is_recall_and_empty_classes_fail(answers):
    predicted, labels = answers
    by_class = accuracy_by_class(predicted, labels, classes=5)
    assert [e.value for e in by_class[:4]] == pytest.approx(100 * recall_score(labels, predicted, average=None))
    assert not by_class[4].ok
    assert [e.ok for e in accuracy_by_class([], [], classes=2)] == [False, False]


def test_no_rows_fail_and_shapes_are_checked():
    assert not accuracy([], []).ok
    with pytest.raises(ExpungeError, match=r"\(1,\) and \(2,\)"):
        accuracy([1], [1, 2])
    with pytest.raises(ExpungeError, match="one predicted class"):
        error(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ExpungeError, match=r"0\.\.1; got \[2\.0\]"):
        accuracy_by_class([0, 1], [0, 2], classes=2)
