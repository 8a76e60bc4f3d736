"""scikit-learn's digits as every other format's material."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from expunge.data import load


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """1,797 images (N, 8, 8) uint8 in 0..255, and their labels."""
    bunch = load_digits()
    return np.rint(bunch.images * (255 / 16)).astype(np.uint8), bunch.target


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that EXPUNGE_DATA names."""
    monkeypatch.setenv("EXPUNGE_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def real() -> Callable[[str], tuple]:
    """Loads a dataset of the EXPUNGE_DATA folder the tests were started with, or skips."""
    from expunge.data.catalogue import find

    def load_real(name: str) -> tuple:
        if find(name) is None:
            pytest.skip(f"no {name} in EXPUNGE_DATA")
        return load(name)

    return load_real
