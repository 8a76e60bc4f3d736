"""A run that was interrupted goes on to the same numbers; a finished one is not made again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shell import SMALL, Shell, numbers, write_yaml

# a shell that runs tests in the background lets its children ignore Ctrl-C
COMMAND = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
COMMAND += "from expunge.cli import main; main()"


@contextmanager
def started(code: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    """A process that runs this code with these arguments; it does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-uc", code, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as in this process: the last bits depend on it
    )
    try:
        yield process
    finally:
        process.kill()


def test_the_same_command_again_reuses_every_model_and_gives_the_same_numbers(
    expunge: Shell, small: Path, tmp_path: Path, finished: Path
) -> None:
    shutil.copytree(finished, tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "models").iterdir()}
    outcome = expunge("run", small)
    assert outcome.code == 0, outcome.err
    assert len(before) == 6
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "models").iterdir()}
    assert numbers(tmp_path / "out") == numbers(finished)


def test_a_damaged_model_is_made_again(expunge: Shell, small: Path, tmp_path: Path, finished: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    (tmp_path / "out" / "models" / "finetune-seed1.safetensors").write_bytes(b"cut off")
    (tmp_path / "out" / "models" / "random_label-seed0.safetensors").unlink()
    outcome = expunge("run", small)
    assert outcome.code == 0, outcome.err
    assert numbers(tmp_path / "out") == numbers(finished)


def test_a_flipped_byte_in_a_model_is_seen(expunge: Shell, small: Path, tmp_path: Path, finished: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    path = tmp_path / "out" / "models" / "finetune-seed1.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 64
    path.write_bytes(data)
    assert "damaged: its checksum does not match. expunge run makes it again" in expunge.refuses("audit", small)
    with pytest.warns(UserWarning, match="checksum does not match; it is made anew"):
        assert expunge("run", small).code == 0
    assert numbers(tmp_path / "out") == numbers(finished)


def test_interrupted_where_nothing_is_kept(tmp_path: Path) -> None:
    file = write_yaml(tmp_path / "run.yaml", SMALL, out=str(tmp_path / "out"))
    slow = "import time; from expunge import experiment; experiment.read = lambda *a: print('ready') or time.sleep(60);"
    with started(slow + COMMAND, "check", file) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said.strip()) == (1, "Interrupted.")


def test_interrupted_and_gone_on_with(expunge: Shell, tmp_path: Path, finished: Path) -> None:
    # the second method is slow, so that there is time to interrupt it; without it the rest is as in `finished`
    slow = {"name": "random_label", "row": "slow", "epochs": 100_000}
    methods = [SMALL["methods"][0], slow, SMALL["methods"][1]]
    file = write_yaml(tmp_path / "run.yaml", SMALL, methods=methods, out=str(tmp_path / "out"))
    done = tmp_path / "out" / "models" / "finetune-seed0.safetensors"
    with started(COMMAND, "run", file) as process:
        deadline = time.monotonic() + 60
        while not done.is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None, process.communicate()
        time.sleep(0.3)  # into the slow method
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "the same command goes on" in said
    assert "Traceback" not in said
    left = sorted(p.name for p in (tmp_path / "out" / "models").iterdir())
    assert left == ["finetune-seed0.safetensors", "original-seed0.safetensors"]
    assert not (tmp_path / "out" / "results.json").exists()

    kept = done.stat().st_mtime_ns
    record = tmp_path / "out" / "run.json"
    slow["epochs"] = 1
    write_yaml(file, SMALL, methods=methods, out=str(tmp_path / "out"))
    record.write_text(record.read_text().replace("100000", "1"))  # as if it had not been slow
    outcome = expunge("run", file)
    assert outcome.code == 0, outcome.err
    assert done.stat().st_mtime_ns == kept
    assert [row for row in numbers(tmp_path / "out") if row["method"] != "slow"] == numbers(finished)
