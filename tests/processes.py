"""Two gloo processes on this machine, as `accelerate launch` would start them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest


def run_two(script: str, timeout: float = 120) -> None:
    """Run a script in two processes that find each other; what they say is shown when one fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    places = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    places |= {"ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join(p for p in sys.path if p)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env={**os.environ, **places, "RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [worker.communicate(timeout=timeout)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    if any(worker.returncode for worker in workers):
        pytest.fail("\n".join(said))
