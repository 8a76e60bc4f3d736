"""The two sets that every reader returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from expunge.data.layout import inputs
from expunge.data.rows import Rows
from expunge.errors import ExpungeError


def pair(
    name: str,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    *,
    classes: Sequence[str] | None = None,
    ids: tuple[Any, Any] = (None, None),
    texts: tuple[Any, Any] = (None, None),
    vocabulary: Sequence[str] | None = None,
) -> tuple[Rows, Rows]:
    """Training and test rows from inputs and labels; the test rows are scaled as the training rows are.

    Args:
        name: what reports call the training rows; the test rows are `"NAME test"`.
        train: inputs and labels of the training rows, as `layout.inputs` and `Rows` take them.
        test: likewise of the test rows.
        classes: names in label order. Default: the labels of both sets as text.
        ids: ids of the training and of the test rows. Default: positions.
        texts: raw text of the training and of the test rows.
        vocabulary: the word of each token number.

    Raises:
        ExpungeError: the two sets have inputs of different shape, or what `inputs` and `Rows` raise.
    """
    x_train, x_test = inputs(train[0], name), inputs(test[0], f"{name} test")
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ExpungeError(
            f"{name}: training inputs have shape {tuple(x_train.shape[1:])}, "
            f"test inputs {tuple(x_test.shape[1:])}; they must be the same."
        )
    if classes is None:
        classes = _numbered(train[1], test[1])
    first = Rows(x_train, train[1], ids=ids[0], classes=classes, name=name, texts=texts[0], vocabulary=vocabulary)
    second = Rows(
        x_test,
        test[1],
        ids=ids[1],
        classes=classes,
        name=f"{name} test",
        scale=first.scale,
        texts=texts[1],
        vocabulary=vocabulary,
    )
    return first, second


def _numbered(*labels: Any) -> list[str] | None:
    """All labels up to the largest of both sets as text; none where some are no labels, which `Rows` refuses."""
    arrays = [np.asarray(y) for y in labels]
    if any(y.dtype.kind not in "iuf" or not y.size or not np.isfinite(y).all() for y in arrays):
        return None
    return [str(c) for c in range(int(max(y.max() for y in arrays)) + 1)]
