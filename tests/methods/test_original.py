"""The original: nothing is done."""

from __future__ import annotations

import expunge as ex
from kit import bits


def test_nothing_is_done_and_nothing_counts_as_gone(train, mlp, three):
    result = ex.unlearn(mlp, three, "original")
    assert bits(result.model) == bits(mlp)
    assert (result.log.steps, result.log.examples, result.moved) == (0, 0, 0)
    assert not getattr(result.model, "_expunge_gone", {})
