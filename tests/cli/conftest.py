"""One command line for every test of it; models that were trained once are found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from shell import SMALL, Shell, write_yaml


@pytest.fixture(autouse=True)
def _own_cache(shared_cache: None, own_place: None) -> None:
    """Instead of a cache for each test."""


@pytest.fixture
def expunge(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small experiment that works; it writes to `out` beside it."""
    return write_yaml(tmp_path / "run.yaml", SMALL, out=str(tmp_path / "out"))


@pytest.fixture(scope="session")
def finished(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small experiment, run once without interruption. Tests copy it before they change it."""
    from expunge.conduct import conduct
    from expunge.experiment import from_dict

    out = tmp_path_factory.mktemp("finished") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPUNGE_CACHE", str(cache))
        conduct(from_dict({**SMALL, "out": str(out)}), command="expunge run run.yaml")
    return out
