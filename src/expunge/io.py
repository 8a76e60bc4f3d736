"""The only place that reads or writes weights: safetensors out, nothing that can run code in."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from expunge.errors import ExpungeError, raise_if

CONVERT = (
    "Convert it once, where you trust it: "
    "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors'), and give that file."
)

WRAPPERS = ("state_dict", "model_state_dict", "model")  # under which training programs keep weights beside other things
WRAPPED = {  # what wrappers put before every name, and what to save in their place
    "module.": "a DataParallel or DistributedDataParallel model do; save model.module",
    "_orig_mod.": "a model from torch.compile do; save model._orig_mod",
}


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Make a file by writing a temporary one beside it and renaming; an old file stays intact if that fails.

    Raises:
        ExpungeError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}"
        temporary.touch(exist_ok=False)  # with the usual permissions, which tempfile does not give
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise ExpungeError(f"{path} could not be written: {error}. What was there before is untouched.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Write plain data as JSON, atomically."""
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, lambda temporary: temporary.write_bytes((text + "\n").encode()))


def plain(data: Any) -> Any:
    """Data as JSON gives it back: tuples are lists, keys are text, other things are told as text."""
    as_text = json.loads(json.dumps(data, default=str))  # sorted afterwards: numbers and text are not compared
    return json.loads(json.dumps(as_text, sort_keys=True))


def read_json(path: Path) -> Any:
    """The plain data of a JSON file.

    Raises:
        ExpungeError: the file is missing or damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExpungeError(f"{path} cannot be read: {error}") from error


def file_digest(path: Path) -> str:
    """The blake2b digest of a file's bytes."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def model_digest(model: nn.Module | Mapping[str, Tensor]) -> str:
    """A digest of names, shapes and values of all weights and buffers: equal digests, equal models."""
    state = model.state_dict() if isinstance(model, nn.Module) else model
    digest = hashlib.blake2b(digest_size=16)
    for name, value in state.items():
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def index_digest(index: Tensor) -> str:
    """A digest of positions, in their order."""
    return hashlib.blake2b(index.cpu().numpy().tobytes(), digest_size=16).hexdigest()


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors as safetensors, with plain data about them in the header; atomically.

    Args:
        path: where to; its folder is made.
        tensors: by name; copied to contiguous CPU memory first.
        about: plain data that JSON can hold.
    """
    flat = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    data = to_bytes(flat, metadata={"expunge": json.dumps(about, sort_keys=True)})
    write_atomically(Path(path), lambda temporary: temporary.write_bytes(data))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a safetensors file, or of a PyTorch file that holds nothing but tensors, and what is said of them.

    What a file holds says which of the two it is, whatever its name, except for one called `.safetensors`.

    Raises:
        ExpungeError: the file is missing, damaged, or a pickle of more than tensors (which is never executed).
    """
    path = Path(path)
    if not path.is_file():
        raise ExpungeError(f"There are no weights at {path}.")
    if path.suffix == ".safetensors" or _is_safetensors(path):
        try:
            with safe_open(str(path), framework="pt") as file:
                header = file.metadata() or {}
            about = json.loads(header.get("expunge", "{}"))
            return load_file(str(path)), about
        except (SafetensorError, OSError, ValueError) as error:
            raise ExpungeError(f"{path} is not a readable safetensors file: {error}") from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files it does not trust
        raise ExpungeError(
            f"{path} was not loaded: it is not a plain file of tensors, and a pickle of anything else could run "
            f"code. {CONVERT}"
        ) from error
    while isinstance(loaded, dict) and (fit := [name for name in WRAPPERS if isinstance(loaded.get(name), dict)]):
        if len(fit) > 1:
            raise ExpungeError(f"{path} holds weights under {' and '.join(fit)}; save the ones that are meant alone.")
        loaded = loaded[fit[0]]
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise ExpungeError(f"{path} holds no dictionary of tensors by name (a state_dict). {CONVERT}")
    return loaded, {}


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: with the length of a JSON object, and then that object."""
    try:
        with open(path, "rb") as file:
            begins = file.read(9)
    except OSError:
        return False  # who reads it next says why
    return begins[8:] == b"{" and int.from_bytes(begins[:8], "little") <= path.stat().st_size - 8


def save_weights(path: Path, model: nn.Module, about: Mapping[str, Any] | None = None) -> None:
    """Write a model's weights and buffers as safetensors, with plain data about them, atomically.

    Raises:
        ExpungeError: the arguments are no path and no model, or the file cannot be written.
    """
    _check_order("save_weights", path, model)
    gone = getattr(model, "_expunge_gone", {})
    save_tensors(path, model.state_dict(), {**(about or {}), "gone": gone})


def load_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Put saved weights into a model, in place; returns what the file says about them.

    Raises:
        ExpungeError: every name that is missing, not expected, or of another shape, at once; nothing is loaded then.
            Or the arguments are no path and no model.
    """
    _check_order("load_weights", path, model)
    tensors, about = read_tensors(path)
    put_weights(model, tensors, about, str(path))
    return about


def put_weights(model: nn.Module, tensors: Mapping[str, Tensor], about: Mapping[str, Any], source: str) -> None:
    """Put what `read_tensors` found into a model, with its history; see `load_weights`."""
    fit_weights(model, tensors, source)
    model._expunge_gone = about.get("gone", {})


def _check_order(function: str, path: object, model: object) -> None:
    if not isinstance(path, (str, os.PathLike)) or not isinstance(model, nn.Module):
        raise ExpungeError(
            f"{function} takes a file and then a model; got a {type(path).__name__} and a {type(model).__name__}."
        )


def fit_weights(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Put tensors into a model, in place, if every one of them fits; see `load_weights`."""
    state = model.state_dict()
    for prefix, whole in WRAPPED.items():
        inside = all(name.startswith(prefix) for name in tensors)
        if tensors and inside and not any(name.startswith(prefix) for name in state):
            raise ExpungeError(f"{source}: all names begin with {prefix!r}, as those of {whole}.state_dict() instead.")
    problems = [f"{source} lacks {name}, which the model has." for name in state if name not in tensors]
    problems += [f"{source} has {name}, which the model does not have." for name in tensors if name not in state]
    problems += [
        f"{source}: {name} has shape {tuple(tensors[name].shape)}, the model's has {tuple(state[name].shape)}."
        for name in state
        if name in tensors and tensors[name].shape != state[name].shape
    ]
    raise_if(problems)
    model.load_state_dict(dict(tensors))


def output_folder(path: Path, force: bool = False) -> Path:
    """A folder to write into: made, writable, and empty unless `force`.

    Raises:
        ExpungeError: it cannot be made or written, or holds files already.
    """
    path = Path(path)
    raise_if(folder_problems(path, force))
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExpungeError(f"{path} cannot be written: {error}") from error
    return path


def folder_problems(path: Path, force: bool = False) -> list[str]:
    """Why `output_folder` would refuse a folder, a sentence each; nothing is made."""
    if path.is_dir() and any(path.iterdir()) and not force:
        return [f"{path} is not empty; choose another folder, or --force to write into it all the same."]
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not there.is_dir():
        deeper = f"{path} cannot be written: {there} is a file."
        return [f"{path} is a file; give a folder for the output." if there == path else deeper]
    try:
        with tempfile.TemporaryFile(dir=there):
            return []
    except OSError as error:
        return [f"{path} cannot be written: {error}"]
