"""The two sets that every reader returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from expunge.data.labels import labels
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
        classes: names in label order. Default: the labels of the training rows as text, up to the largest.
        ids: ids of the training and of the test rows. Default: positions.
        texts: raw text of the training and of the test rows.
        vocabulary: the word of each token number.

    Raises:
        ExpungeError: the two sets have inputs of different shape, test labels lie above all training labels and
            `classes` does not name them, or what `inputs` and `Rows` raise.
    """
    x_train, x_test = inputs(train[0], name), inputs(test[0], f"{name} test")
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ExpungeError(
            f"{name}: training inputs have shape {tuple(x_train.shape[1:])}, "
            f"test inputs {tuple(x_test.shape[1:])}; they must be the same."
        )
    first = Rows(x_train, train[1], ids=ids[0], classes=classes, name=name, texts=texts[0], vocabulary=vocabulary)
    y_test = labels(test[1])
    added = y_test[y_test >= first.num_classes].unique().tolist() if classes is None else []
    if added:
        raise ExpungeError(
            f"{name}: test rows have the label{'s' * (len(added) > 1)} {', '.join(map(str, added[:10]))}, and "
            f"training rows none above {first.num_classes - 1}. If classes without training rows are meant, name all "
            'classes ({"classes": [...]} in NAME.json beside the data).'
        )
    second = Rows(
        x_test,
        y_test,
        ids=ids[1],
        classes=first.classes,
        name=f"{name} test",
        scale=first.scale,
        texts=texts[1],
        vocabulary=vocabulary,
    )
    return first, second
