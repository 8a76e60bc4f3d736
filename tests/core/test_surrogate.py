"""Surrogates: other labels, evenly drawn, never the own one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from expunge import Rows
from expunge.surrogate import Relabel
from expunge.task import Classification


@pytest.fixture(scope="module")
def rows() -> Rows:
    y = np.random.default_rng(0).integers(0, 5, 20_000)
    return Rows(np.zeros((20_000, 1), np.float32), y, classes=list("abcde"))


def relabelled(rows: Rows, task: Classification, seed: int = 0) -> np.ndarray:
    stand_in = Relabel().stand_in(rows, task, torch.Generator().manual_seed(seed))
    index = torch.arange(len(rows))
    return stand_in(rows.x(index), rows.y, index)[1].numpy()


def test_labels_are_never_the_own_one_and_evenly_any_other(rows):
    new, old = relabelled(rows, Classification(classes=5)), rows.y.numpy()
    assert not (new == old).any()
    for c in range(5):
        counts = np.bincount(new[old == c], minlength=5)
        assert counts[c] == 0
        assert chisquare(np.delete(counts, c)).pvalue > 1e-4


def test_classes_that_are_gone_are_no_label_for_anything(rows):
    new = relabelled(rows, Classification(classes=5, without=(1, 4)))
    assert not np.isin(new, [1, 4]).any()
    assert not (new == rows.y.numpy()).any()
    of_gone = new[rows.y.numpy() == 4]  # rows of a class that must go get the others' labels, evenly
    assert chisquare(np.bincount(of_gone, minlength=5)[[0, 2, 3]]).pvalue > 1e-4


def test_a_row_has_one_label_for_the_whole_draw_in_whichever_batch_it_is(rows):
    task = Classification(classes=5)
    stand_in = Relabel().stand_in(rows, task, torch.Generator().manual_seed(0))
    index = torch.tensor([7, 19_999, 7, 3])
    x = torch.full((4, 1), 2.0)
    shown, labels = stand_in(x, rows.y[index], index)
    assert shown is x
    whole = relabelled(rows, task)
    np.testing.assert_array_equal(labels, whole[index.numpy()])
    assert (relabelled(rows, task, seed=1) != whole).any()
