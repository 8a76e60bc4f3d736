"""Limits of single classes, against counts by NumPy."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from expunge.data import Rows, load
from expunge.data.limit import class_limited
from expunge.errors import ExpungeError, Problems, UnknownName
from expunge.experiment import load_data


def named(counts: list[int]) -> Rows:
    y = np.repeat(np.arange(len(counts)), counts)
    return Rows(torch.zeros(len(y), 2), y, classes=["cat", "dog", "frog"])


def test_only_the_named_classes_shrink_and_rows_stay_in_order_with_their_ids() -> None:
    whole, test = load("digits")
    part, same_test = load("digits", class_limit={3: 20, 7: 1, 9: 10_000})
    before, after = np.bincount(whole.y), np.bincount(part.y)
    assert after[[3, 7]].tolist() == [20, 1]
    others = [c for c in range(10) if c not in (3, 7)]
    assert after[others].tolist() == before[others].tolist()
    assert np.isin(part.ids, whole.ids).all()
    at = whole.positions(part.ids)
    assert bool((at.diff() > 0).all())
    assert torch.equal(whole.x(at), part.x(torch.arange(len(part))))
    assert part.scale == whole.scale
    assert same_test.hash == test.hash


def test_the_part_is_random_under_the_seed() -> None:
    parts = {seed: load("digits", class_limit={3: 50}, seed=seed)[0] for seed in (0, 1)}
    assert load("digits", class_limit={3: 50})[0].hash == parts[0].hash != parts[1].hash
    threes = [set(p.ids[p.y == 3].tolist()) for p in parts.values()]
    whole = load("digits")[0]
    expected = 50 * 50 / int((whole.y == 3).sum())  # of two independent draws
    assert abs(len(threes[0] & threes[1]) - expected) < 12
    first = set(whole.ids[whole.y == 3][:50].tolist())
    assert threes[0] != first


def test_it_comes_after_the_limit() -> None:
    limited, _ = load("digits", limit=200)
    both, _ = load("digits", limit=200, class_limit={3: 5})
    assert set(both.ids.tolist()) < set(limited.ids.tolist())
    assert np.bincount(both.y)[3] == 5
    assert len(both) == 200 - np.bincount(limited.y)[3] + 5


def test_a_class_by_name_number_or_text() -> None:
    rows = named([6, 5, 4])
    hashes = {class_limited(rows, {c: 2}, seed=0).hash for c in ("dog", 1, "1", np.int64(1))}
    assert len(hashes) == 1
    assert np.bincount(class_limited(rows, {"cat": 1, 2: 3}, 0).y).tolist() == [1, 5, 3]


def test_nothing_to_cut_is_the_same_data() -> None:
    rows = named([6, 5, 4])
    assert class_limited(rows, {"cat": 6}, 0) is class_limited(rows, {}, 0) is class_limited(rows, None, 0) is rows


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"dgo": 3}, "Unknown class 'dgo'. Did you mean 'dog'"),
        ({3: 3}, r"no class 3: labels run 0\.\.2 \(cat, dog, frog\)"),
        ({-1: 3}, "no class -1"),
        ({True: 3}, "Unknown class 'True'"),
        ({1: 0}, "1 or more; got 0 for 1"),
        ({1: -4}, "1 or more; got -4"),
        ({1: 0.5}, "got 0.5"),
        ({1: True}, "got True"),
        ({1: 3, "dog": 3}, "class 1 is limited twice"),
        ([3], r"e\.g\. \{3: 100\}; got \[3\]"),
    ],
)
def test_impossible_limits(limits, message: str) -> None:
    with pytest.raises(ExpungeError, match=message):
        class_limited(named([6, 5, 4]), limits, 0)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(Problems) as caught:
        class_limited(named([6, 5, 4]), {"dgo": 1, 0: 0, 7: 1}, 0)
    assert len(caught.value.problems) == 3
    with pytest.raises(UnknownName):
        load("digitz", class_limit={3: 0})


def test_in_yaml() -> None:
    rows, _ = load_data({"name": "digits", "class_limit": {3: 20}})
    assert rows.hash == load("digits", class_limit={3: 20})[0].hash
    with pytest.raises(ExpungeError, match="cut your own data"):
        load_data({"build": "my_project:load", "class_limit": {3: 20}})


def test_settings_with_numbers_for_keys_can_be_set_and_recorded() -> None:
    from expunge import io
    from expunge.experiment.text import changed

    config = {"data": {"name": "digits", "class_limit": {3: 20}}}
    assert changed(config, "data.class_limit.3=5")["data"]["class_limit"] == {3: 5}
    assert changed(config, "data.class_limit.4=5")["data"]["class_limit"] == {3: 20, "4": 5}
    assert list(io.plain({"b": 1, 3: 2, "a": 3})) == sorted(json.loads('{"b": 1, "3": 2, "a": 3}'))
