"""Loads `stand_in.cpp`: a device `gpu` on which a tensor of the CPU is in the wrong place, as on a real one."""

from __future__ import annotations

import subprocess
import types
from pathlib import Path

import torch
import torch.utils.cpp_extension

SOURCE = Path(__file__).with_name("stand_in.cpp")


def compiled(folder: Path) -> Path:
    """The library, made by g++ in some 15 seconds.

    Raises:
        RuntimeError: what the compiler says.
    """
    library, torch_folder = folder / "stand_in.so", Path(torch.__file__).parent
    includes = [f"-I{path}" for path in torch.utils.cpp_extension.include_paths()]
    links = [f"-L{torch_folder / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10"]
    command = ["g++", "-std=c++20", "-O0", "-shared", "-fPIC", *includes, str(SOURCE), "-o", str(library), *links]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise RuntimeError(made.stderr)
    return library


def load(library: str) -> None:
    """Make the device known to this process, for good."""
    torch.ops.load_library(library)
    torch.utils.rename_privateuse1_backend("gpu")
    module = types.ModuleType("torch.gpu")
    module.is_available = lambda: True
    module.device_count = lambda: 1
    module.current_device = lambda: 0
    module.manual_seed_all = lambda seed: None
    module.get_amp_supported_dtype = lambda: []
    module._is_in_bad_fork = lambda: False
    torch._register_device_module("gpu", module)
    torch.utils.generate_methods_for_privateuse1_backend()
