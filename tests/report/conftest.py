"""Pages to test on; also lets the tests of this folder import what lies beside them."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

from expunge import report

sys.path.insert(0, str(Path(__file__).parent))

from sample import HOSTILE, LONG, sample, save


@pytest.fixture(scope="session")
def measured() -> dict[str, Any]:
    return sample(methods=5, seeds=2)


@pytest.fixture
def results(measured: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(measured)


@pytest.fixture(scope="session")
def page(measured: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of the usual kind: five methods, two seeds, ten classes, pictures."""
    return report.draw(save(tmp_path_factory.mktemp("usual"), measured))


@pytest.fixture(scope="session")
def hard_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with much of everything: twelve methods, twenty classes with long or hostile names, texts."""
    results = sample(methods=12, seeds=2, classes=LONG + HOSTILE, texts=True)
    results["examples"][0]["text"] = HOSTILE[0]
    results["question"]["text"] += HOSTILE[2]
    results["notes"] = HOSTILE
    return report.draw(save(tmp_path_factory.mktemp("hard"), results))


@pytest.fixture(scope="session")
def bare_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with little: one seed, no retraining, a request of samples, no manifest."""
    results = sample(methods=2, seeds=1, retrain=False, scope="samples")
    return report.draw(save(tmp_path_factory.mktemp("bare"), results, with_manifest=False))
