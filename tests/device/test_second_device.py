"""Everything computes where the model is: on a device where a tensor left on the CPU is an error, as on a GPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from device.stand_in import compiled

HERE = Path(__file__).parent
# Trained from the beginning in float32: rounding grows until the weights differ, and only the place can be compared.
GROWS = ("retrain", "unsir", "scrub", "bad_teacher", "search")


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to build a stand-in for a GPU")
def test_all_methods_and_what_is_around_them(tmp_path):
    path = os.pathsep.join(filter(None, sys.path))
    work = [sys.executable, str(HERE / "work.py"), str(compiled(tmp_path)), str(tmp_path)]
    done = subprocess.run(
        work, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) > 55
    wrong = {what: why for what, why in found.items() if isinstance(why, str) or why is False}
    assert not wrong, "\n".join(f"{what}: {why}" for what, why in wrong.items())
    apart = {what: far for what, far in found.items() if not isinstance(far, bool)}
    for what, far in apart.items():
        assert far < (1.0 if what.split(": ")[1] in GROWS else 1e-5), what
