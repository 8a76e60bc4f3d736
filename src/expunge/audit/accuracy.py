"""Accuracy with its interval: overall, as error, and class by class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge.audit.stats import Estimate, float64
from expunge.errors import ExpungeError


def accuracy(predicted_N: Any, labels_N: Any) -> Estimate:
    """The share of right predictions in percent, with its Clopper-Pearson interval; failed for no examples.

    Args:
        predicted_N: tensor or array (N,), the predicted class of each example.
        labels_N: tensor or array (N,), the true class.

    Raises:
        ExpungeError: predictions and labels of different shape, or not one for each example.
    """
    right_N = _right(predicted_N, labels_N)
    return Estimate.share(int(right_N.sum()), len(right_N), 100.0)


def error(predicted_N: Any, labels_N: Any) -> Estimate:
    """100 - accuracy, in percent, with its interval: `ua` on forget rows. Args, Raises as in `accuracy`."""
    right_N = _right(predicted_N, labels_N)
    return Estimate.share(len(right_N) - int(right_N.sum()), len(right_N), 100.0)


def accuracy_by_class(predicted_N: Any, labels_N: Any, classes: int) -> list[Estimate]:
    """The accuracy in percent on the rows of each class 0..classes-1; failed for a class without rows.

    Args:
        predicted_N: as in `accuracy`.
        labels_N: as in `accuracy`.
        classes: how many classes there are.

    Raises:
        ExpungeError: as in `accuracy`, or a label that is not 0..classes-1.
    """
    right_N, label_N = _right(predicted_N, labels_N), float64(labels_N)
    known = np.isin(label_N, np.arange(classes))
    if not known.all():
        raise ExpungeError(f"Labels must be integers 0..{classes - 1}; got {label_N[~known][:5].tolist()}.")
    rows_C = [right_N[label_N == c] for c in range(classes)]
    return [Estimate.share(int(rows.sum()), len(rows), 100.0) for rows in rows_C]


def _right(predicted_N: Any, labels_N: Any) -> NDArray[np.bool_]:
    predicted, labels = float64(predicted_N), float64(labels_N)
    if predicted.ndim != 1 or predicted.shape != labels.shape:
        raise ExpungeError(
            "Accuracy needs one predicted class and one label for each example, both (N,); "
            f"got {predicted.shape} and {labels.shape}."
        )
    return np.asarray(predicted == labels)
