"""Stratified parts against counts by hand, and their properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.data.split import stratified, train_test
from expunge.errors import ExpungeError

LABELS = st.lists(st.integers(0, 5), min_size=2, max_size=80)


@pytest.mark.parametrize(
    ("counts", "size", "expected"),
    [
        ([50, 30, 20], 10, [5, 3, 2]),  # exact
        ([5, 3, 2], 3, [1, 1, 1]),  # quotas 1.5, 0.9, 0.6
        ([6, 3, 3], 2, [1, 1, 0]),  # quotas 1, 0.5, 0.5: the tie goes to the lower label
        ([97, 2, 1], 10, [8, 1, 1]),  # quotas 9.7, 0.2, 0.1: one row of each rare class all the same
        ([97, 2, 1], 2, [2, 0, 0]),  # too few for one of each
        ([47, 16, 158, 81, 2], 100, [15, 5, 52, 27, 1]),  # quotas 15.46, 5.26, 51.97, 26.64, 0.66
    ],
)
def test_counts_by_hand(counts, size, expected):
    y = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(0).shuffle(y)
    part = stratified(y, size, seed=3)
    assert np.bincount(y[part.numpy()], minlength=len(counts)).tolist() == expected


@settings(max_examples=200, deadline=None)
@given(LABELS, st.data())
def test_parts_are_exact_distinct_and_proportional(labels, data):
    y = np.array(labels)
    size = data.draw(st.integers(1, len(y)))
    part = stratified(y, size, data.draw(st.integers(0, 2**32 - 1))).numpy()
    assert len(part) == size == len(set(part.tolist()))
    assert (np.diff(part) > 0).all()
    counts, taken = np.bincount(y, minlength=6), np.bincount(y[part], minlength=6)
    assert (taken <= counts).all()
    present = counts > 0
    if size >= present.sum():
        assert (taken[present] >= 1).all()
    quota = size * counts / len(y)
    if (quota[present] >= 1).all():  # then no rare class takes from the others
        assert (np.abs(taken - quota) < 1).all()


@settings(max_examples=50, deadline=None)
@given(LABELS, st.integers(0, 100))
def test_train_and_test_are_a_partition(labels, seed):
    train, test = train_test(labels, seed)
    assert sorted(train.tolist() + test.tolist()) == list(range(len(labels)))
    assert len(test) == max(1, round(0.2 * len(labels))) or len(test) == round(0.2 * len(labels)) or len(labels) < 3
    assert len(train) >= 1


def test_seed_decides_and_every_row_can_be_drawn():
    y = torch.arange(100) % 4
    assert torch.equal(stratified(y, 40, 1), stratified(y, 40, 1))
    assert not torch.equal(stratified(y, 40, 1), stratified(y, 40, 2))
    drawn = set()
    for seed in range(100):
        drawn |= set(stratified(y, 20, seed).tolist())
    assert drawn == set(range(100))


def test_the_draw_never_changes():
    """Recorded: saved requests and limits must mean the same rows with later versions of the libraries."""
    assert stratified(np.arange(40) % 4, 8, seed=0).tolist() == [7, 8, 10, 13, 14, 21, 27, 32]


def test_the_global_random_state_is_untouched():
    np.random.seed(5)
    expected = np.random.RandomState(5).rand()
    stratified([0, 1, 0, 1], 2, 0)
    assert np.random.rand() == expected


@pytest.mark.parametrize("size", [0, -1, 5])
def test_impossible_sizes(size):
    with pytest.raises(ExpungeError, match=r"1\.\.4 rows"):
        stratified([0, 1, 0, 1], size)


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5])
def test_impossible_seeds(seed):
    with pytest.raises(ExpungeError, match="seed"):
        stratified([0, 1, 0, 1], 2, seed)


def test_one_row_cannot_be_split():
    with pytest.raises(ExpungeError, match="at least 2"):
        train_test([0])
