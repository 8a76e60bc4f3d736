"""Each test in a folder of its own, with a cache that they share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _own_cache(shared_cache: None, own_place: None) -> None:
    """Instead of a cache for each test."""
