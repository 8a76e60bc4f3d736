"""Whether rows that are said to be unseen are; attacks would otherwise hold members against members."""

from __future__ import annotations

import numpy as np

from expunge.data.rows import Rows
from expunge.errors import ExpungeError

TELLING = 0.5  # where more than this share of the training inputs differ, equal inputs are the same examples


def check_unseen(unseen: Rows, train: Rows) -> None:
    """Refuse unseen rows that cannot be judged by, or that are training rows, all or a part of them.

    Inputs are compared where both sets are held in memory. Where many training rows have equal inputs, as in tables of
    few values, equal inputs prove nothing, and only the whole training set is refused.

    Raises:
        ExpungeError: no rows, a label that no class has, one digest of both sets, or none whose input is not that of a
            training row.

    Cost: a digest of every row, once.
    """
    if not len(unseen):
        raise ExpungeError("unseen has no rows; give rows that no model was trained on, such as a test set.")
    top = int(unseen.y.max())
    if top >= train.num_classes:
        raise ExpungeError(
            f"{unseen.name} has label {top}, and {train.name} only the classes 0..{train.num_classes - 1}; unseen rows "
            "must be of the classes that models were trained on."
        )
    told = unseen.hash_inputs and train.hash_inputs and len(unseen) == len(train)
    if unseen is train or (told and unseen.hash == train.hash):
        raise ExpungeError(
            f"unseen must be rows that no model was trained on, such as a test set; these are the {len(train):,} "
            f"training rows of {train.name}."
        )
    equal, telling = _equal(unseen, train)
    if equal == len(unseen) and telling:
        raise ExpungeError(
            f"unseen must be rows that no model was trained on, such as a test set; all of these {len(unseen):,} are "
            f"among the training rows of {train.name}."
        )


def shared_rows(unseen: Rows, train: Rows) -> list[str]:
    """Sentences about unseen rows that may be training rows: by their inputs, and by ids that are not just positions.

    Cost: as for `check_unseen`.
    """
    found = []
    if equal := _equal(unseen, train)[0]:
        found.append(
            f"{equal:,} of {len(unseen):,} unseen rows have the very input of a training row. If they are the same "
            "examples, models have seen them, and what is measured on unseen rows is not what it says."
        )
    if _own(unseen.ids) and _own(train.ids) and len(shared := np.intersect1d(unseen.ids, train.ids)):
        found.append(
            f"{len(shared):,} of {len(unseen):,} unseen rows have the id of a training row, e.g. {str(shared[0])!r}. "
            "If they are the same examples, models have seen them, and what is measured on unseen rows is not what it "
            "says."
        )
    return found


def _equal(unseen: Rows, train: Rows) -> tuple[int, bool]:
    """How many unseen rows have the input of a training row, and whether that makes them the same examples."""
    known = set(train.input_hashes)
    return sum(one in known for one in unseen.input_hashes), len(known) > TELLING * len(train)


def _own(ids: np.ndarray) -> bool:
    """Whether ids are text that is not just the positions."""
    return ids.dtype.kind in "US" and not bool((ids == np.arange(len(ids)).astype(ids.dtype)).all())
