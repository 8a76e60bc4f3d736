"""`expunge data`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shell import Shell


def test_digits_are_always_there_and_more_is_said_to_be_possible(expunge: Shell) -> None:
    outcome = expunge("data")
    assert outcome.code == 0
    line = next(line for line in outcome.out.splitlines() if line.split()[:1] == ["digits"])
    assert {"1,438", "359", "1×8×8"} <= set(line.split())
    assert "EXPUNGE_DATA" in outcome.out


def test_a_folder_of_datasets(expunge: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.zeros((6, 4, 4), np.uint8), np.array([0, 1] * 3)
    np.savez(tmp_path / "tiny.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    monkeypatch.setenv("EXPUNGE_DATA", str(tmp_path))
    outcome = expunge("data")
    assert outcome.code == 0
    line = next(line for line in outcome.out.splitlines() if line.split()[:1] == ["tiny"])
    assert {"6", "2", "1×4×4"} <= set(line.split())
    assert "Set EXPUNGE_DATA" not in outcome.out


def test_a_broken_file_is_listed_with_its_problem(
    expunge: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "half.npz", x_train=np.zeros((6, 4, 4), np.uint8))
    monkeypatch.setenv("EXPUNGE_DATA", str(tmp_path))
    outcome = expunge("data")
    assert outcome.code == 0
    assert "lacks" in outcome.out
    assert "digits" in outcome.out
    line = next(line for line in outcome.out.splitlines() if line.split()[:1] == ["half"])
    assert line.split()[1] == "unknown"


def test_a_variable_that_names_no_folder_is_told(
    expunge: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPUNGE_DATA", str(tmp_path / "absent"))
    outcome = expunge("data")
    assert outcome.code == 0
    assert f"EXPUNGE_DATA is {tmp_path / 'absent'}, which is not a folder" in outcome.out.replace("\n", " ")
