"""Kept memory: pages are not fetched again inside the block, and go back to the system after it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import expunge
from expunge.memory import kept_memory

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")

STEPS = """
import resource
import numpy as np
from contextlib import nullcontext
from expunge.memory import kept_memory

def step():
    blocks = [np.ones(3 * 2**20, np.uint8) for _ in range(4)]  # 768 pages each

def faults(block):
    with block:
        step(), step()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            step()
        return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10
"""
RESIDENT = """
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
"""


def answer(code: str, **env: str) -> list[float]:
    """The numbers that a process of its own prints: thresholds belong to a process, and cannot be undone."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    path = {"PYTHONPATH": str(Path(expunge.__file__).parent.parent)}
    told = subprocess.run(
        [sys.executable, "-c", STEPS + code], env=clean | path | env, capture_output=True, text=True, check=True
    )
    return [float(number) for number in told.stdout.split()]


@needs_glibc
def test_pages_are_fetched_once_inside_the_block() -> None:
    usual, kept = answer("print(faults(nullcontext()), faults(kept_memory()))")
    assert usual > 1000  # the control: of 3,072 pages a step
    assert kept < 10


@needs_glibc
@pytest.mark.parametrize(
    "setting", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}]
)
def test_thresholds_that_the_environment_sets_are_left_alone(setting: dict[str, str]) -> None:
    (kept,) = answer("print(faults(kept_memory()))", **setting)
    assert kept > 1000


@needs_glibc
def test_memory_goes_back_to_the_system_afterwards() -> None:
    code = """
before = resident()
with kept_memory():
    blocks = [np.ones(2**24, np.uint8) for _ in range(16)]
    del blocks
    inside = resident()
step()
print(before, inside, resident())
"""
    before, inside, after = answer(RESIDENT + code)
    assert inside > before + 250
    assert after < before + 80  # 64 MiB may stay


@needs_glibc
def test_afterwards_it_is_no_slower_than_usual() -> None:
    code = "usual = faults(nullcontext())\nwith kept_memory(): pass\nprint(usual, faults(nullcontext()))"
    usual, after = answer(code)
    assert after <= usual


def test_an_error_inside_comes_out() -> None:
    with pytest.raises(KeyError), kept_memory():
        raise KeyError
