"""Whether rows that are said to be unseen are; attacks would otherwise hold members against members."""

from __future__ import annotations

import numpy as np

from expunge.data.rows import Rows
from expunge.errors import ExpungeError


def refuse_trained(unseen: Rows, train: Rows) -> None:
    """Refuse unseen rows that are the training rows.

    Raises:
        ExpungeError: the two have one digest. Without inputs in it (`hash_inputs`), that says too little.
    """
    told = unseen.hash_inputs and train.hash_inputs and len(unseen) == len(train)
    if unseen is train or (told and unseen.hash == train.hash):
        raise ExpungeError(
            f"unseen must be rows that no model was trained on, such as a test set; these are the {len(train):,} "
            f"training rows of {train.name}."
        )


def shared_ids(unseen: Rows, train: Rows) -> list[str]:
    """A sentence where both have ids of their own, and share some of them; positions say nothing."""
    if not (_own(unseen.ids) and _own(train.ids)):
        return []
    shared = np.intersect1d(unseen.ids, train.ids)
    if not len(shared):
        return []
    return [
        f"{len(shared):,} of {len(unseen):,} unseen rows have the id of a training row, e.g. {str(shared[0])!r}. If "
        "they are the same examples, models have seen them, and what is measured on unseen rows is not what it says."
    ]


def _own(ids: np.ndarray) -> bool:
    """Whether ids are text that is not just the positions."""
    return ids.dtype.kind in "US" and not bool((ids == np.arange(len(ids)).astype(ids.dtype)).all())
