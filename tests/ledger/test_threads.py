"""Side by side: what comes out is in order, few items ahead, and an error stands where its item stood."""

from __future__ import annotations

import threading
import time

import pytest

from expunge.artifact.ledger.threads import side_by_side


def test_in_order_whatever_takes_longest():
    def work(i: int) -> int:
        time.sleep(0.02 if i % 3 == 0 else 0)
        return i * i

    assert list(side_by_side(work, range(20), threads=4)) == [i * i for i in range(20)]
    assert list(side_by_side(work, [])) == []


def test_two_at_once():
    together = threading.Barrier(2, timeout=5)  # broken, an error, if nobody else comes
    assert list(side_by_side(lambda _: together.wait() >= 0, range(4), threads=2)) == [True] * 4


def test_no_more_than_a_few_are_taken_ahead():
    taken = []
    found = side_by_side(lambda i: i, (taken.append(i) or i for i in range(100)), threads=3)
    for asked in range(1, 5):
        next(found)
        assert len(taken) <= asked + 3
    found.close()
    assert len(taken) <= 7


@pytest.mark.parametrize("where", ["work", "items"])
def test_an_error_comes_in_place_of_its_item(where):
    def items():
        for i in range(10):
            if where == "items" and i == 5:
                raise KeyError(i)
            yield i

    def work(i: int) -> int:
        if where == "work" and i == 5:
            raise KeyError(i)
        return i

    found = side_by_side(work, items(), threads=2)
    before = []
    with pytest.raises(KeyError):
        before.extend(found)  # those that `items` gave before may be lost with it
    assert before == list(range(len(before)))
    assert len(before) >= 3
