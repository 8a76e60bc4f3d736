"""`expunge report`: redraw from saved measurements."""

from __future__ import annotations

import shutil
from pathlib import Path

from shell import Shell


def test_the_page_is_drawn_anew_to_the_same_bytes(expunge: Shell, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "moved"
    shutil.copytree(finished, out)
    (out / "report.html").unlink()
    outcome = expunge("report", out)
    assert outcome.code == 0, outcome.err
    assert (out / "report.html").read_bytes() == (finished / "report.html").read_bytes()
    assert "random_label" in outcome.out
    assert str(out / "report.html") in outcome.out


def test_a_folder_without_measurements(expunge: Shell, tmp_path: Path) -> None:
    assert "no results.json" in expunge.refuses("report", tmp_path)
    assert "no results.json" in expunge.refuses("report", tmp_path / "absent")
    assert not list(tmp_path.iterdir())


def test_measurements_that_are_none(expunge: Shell, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{")
    assert "not readable JSON" in expunge.refuses("report", tmp_path)
    (tmp_path / "results.json").write_text('{"schema": 99}')
    assert "schema version 99" in expunge.refuses("report", tmp_path)
