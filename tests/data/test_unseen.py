"""Unseen rows: which are refused, and which are spoken of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from expunge.data import Rows, load
from expunge.data.adapt import rows_like
from expunge.data.unseen import shared_rows
from expunge.errors import ExpungeError


@pytest.fixture(scope="module")
def sets() -> tuple[Rows, Rows]:
    return load("digits")


@pytest.mark.parametrize("given", ["part", "pair", "dataset", "renamed", "scaled otherwise"])
def test_a_part_of_the_training_rows_is_refused_however_it_is_given(given, sets):
    train, test = sets
    some = torch.arange(200, 250)
    forms = {
        "part": train.take(some),
        "pair": (train.source[some], train.y[some]),
        "dataset": list(zip(train.source[some], train.y[some])),
        "renamed": Rows(train.source[some], train.y[some], ids=[f"new-{i}" for i in some.tolist()], name="new"),
        "scaled otherwise": train.take(some).scaled_like(Rows(train.source // 2, train.y)),
    }
    with pytest.raises(ExpungeError, match="all of these 50 are among the training rows of digits"):
        rows_like(forms[given], train)
    mixed = Rows(torch.cat([train.source[some], test.source[:1]]), torch.cat([train.y[some], test.y[:1]]))
    assert len(rows_like(mixed, train)) == 51  # a row of another origin among them: told, not refused


def test_floats_of_a_pair_are_recognised_in_another_precision():
    x, y = np.random.default_rng(0).normal(size=(60, 5)), np.arange(60) % 3
    train = Rows(x.astype(np.float32), y)
    with pytest.raises(ExpungeError, match="all of these 20"):
        rows_like((x[:20], y[:20]), train)


def test_shared_rows_are_counted(sets):
    train, test = sets
    assert shared_rows(test, train) == []
    x_N = test.source.clone()
    x_N[[3, 30, 300]] = train.source[[5, 5, 7]]
    x_N[8] = train.source[9].clone()
    x_N[8, 0, 0, 0] ^= 1  # nearly a training row is none
    (told,) = shared_rows(Rows(x_N, test.y), train)
    assert told.startswith(f"3 of {len(test)} unseen rows have the very input of a training row.")


def test_equal_inputs_prove_nothing_where_training_rows_have_few_values():
    random = np.random.default_rng(0)
    train = Rows(random.integers(0, 2, (200, 4)).astype(np.float32), np.arange(200) % 2, name="table")
    unseen = Rows(random.integers(0, 2, (50, 4)).astype(np.float32), np.arange(50) % 2)
    assert rows_like(unseen, train) is unseen
    assert shared_rows(unseen, train)[0].startswith("50 of 50 unseen rows have the very input")
    with pytest.raises(ExpungeError, match="these are the 200 training rows of table"):
        rows_like((train.source.clone(), train.y.clone()), train)


def test_rows_that_may_not_be_read_are_not(sets):
    train, _ = sets

    class Guarded(TensorDataset):
        def __getitem__(self, i):
            raise AssertionError("read")

    guarded = Rows(Guarded(train.source, train.y), train.y, hash_inputs=False)
    assert shared_rows(train.take(torch.arange(5)), guarded) == []
    assert shared_rows(guarded, train) == []


def test_no_unseen_rows_and_labels_without_a_class_are_told(sets):
    train, test = sets
    with pytest.raises(ExpungeError, match=r"unseen: give rows that no model was trained on, .*; got None"):
        rows_like(None, train)
    with pytest.raises(ExpungeError, match="unseen has no rows"):
        rows_like(test.take([]), train)
    seven = Rows(train.source[train.y < 7], train.y[train.y < 7], name="seven")
    with pytest.raises(ExpungeError, match=r"digits test has label 9, and seven only the classes 0\.\.6"):
        rows_like(test, seven)
