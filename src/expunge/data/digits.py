"""scikit-learn's handwritten digits: 1,797 real images of 8x8, always there and small enough for a demo."""

from __future__ import annotations

import numpy as np

from expunge.data.pair import pair
from expunge.data.rows import Rows
from expunge.data.split import train_test

SOURCE = "Optical recognition of handwritten digits (Alpaydin, Kaynak 1998; UCI, CC BY 4.0), from scikit-learn"


def read() -> tuple[Rows, Rows]:
    """Training and test rows, 1,438 and 359; ids are the positions in scikit-learn's arrays.

    The values 0..16 become 0..255, rounded. The stratified 80/20 split is always the same.
    """
    from sklearn.datasets import load_digits  # takes most of a second, so only here

    bunch = load_digits()
    x_NHW = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    y_N = bunch.target
    train, test = (index.numpy() for index in train_test(y_N, seed=0))
    return pair(
        "digits",
        (x_NHW[train], y_N[train]),
        (x_NHW[test], y_N[test]),
        classes=[str(c) for c in bunch.target_names],
        ids=(train, test),
    )
