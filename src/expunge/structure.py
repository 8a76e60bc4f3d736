"""What a model computes with its weights: kinds, settings, hooks and code, as a digest.

Models of the same weights may differ in an activation, a factor kept as a plain attribute, or a `forward` that somebody
has edited since. What is kept for one must not be handed out for another.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Iterator, Mapping, Set
from types import CodeType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_CLASSES: WeakKeyDictionary[type, str] = WeakKeyDictionary()
OF_TORCH = frozenset(vars(nn.Module()))  # every module has these; what they hold is weights, mode or bookkeeping


def structure_digest(model: nn.Module) -> str:
    """A digest of all that a model's answers depend on beside weights and mode; globals that its code reads are not in.

    Cost: a walk over the modules; code is read once for each class.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, module in model.named_modules():
        own = {k: v for k, v in vars(module).items() if k in HOOKS or not (k in OF_TORCH or k.startswith("_expunge_"))}
        parts = (name, module.extra_repr(), _of_class(type(module)), *_told(own, {id(module)}))
        for part in parts:
            digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()


def _of_class(kind: type) -> str:
    """Its name, the code of its methods and the values it holds, down to PyTorch's own classes."""
    if kind not in _CLASSES:
        _CLASSES[kind] = ""  # a class may hold itself
        theirs = [c for c in kind.__mro__ if not (c is object or c.__module__.split(".")[0] == "torch")]
        told = [part for c in theirs for name, member in vars(c).items() for part in _of_member(name, member)]
        _CLASSES[kind] = repr((kind.__module__, kind.__qualname__, told))
    return _CLASSES[kind]


def _of_member(name: str, member: Any) -> Iterator[str]:
    code = list(_code(member))
    yield from code
    if not code and not name.startswith("__"):
        yield name
        yield from _told(member, set())


def _told(value: Any, seen: Set[int]) -> Iterator[str]:
    """A value as texts that are the same in another process."""
    if isinstance(value, PLAIN):
        yield repr(value)
    elif isinstance(value, (Tensor, np.ndarray)):
        yield f"{value.dtype}{tuple(value.shape)}{_bytes(value)}"
    elif id(value) in seen:
        yield "again"
    elif isinstance(value, Mapping):
        named = all(isinstance(key, str) for key in value)  # others are numbered as they come, like hooks
        for key in sorted(value) if named else value:
            yield key if named else ""
            yield from _told(value[key], seen | {id(value)})
    elif isinstance(value, (list, tuple, Set)):
        texts = [list(_told(one, seen | {id(value)})) for one in value]
        # diffusers keeps a set of names as a list, in an order of its own in each process
        unordered = isinstance(value, Set) or all(isinstance(one, str) for one in value)
        for parts in sorted(texts) if unordered else texts:
            yield from parts
    elif isinstance(value, functools.partial):
        yield from _told((value.func, value.args, value.keywords), seen | {id(value)})
    elif inspect.isroutine(value):
        yield getattr(value, "__qualname__", "")
        yield from _code(value)
    elif isinstance(value, type):
        yield _of_class(value)
    else:
        yield _of_class(type(value))
        if not isinstance(value, nn.Module):
            yield from _told(getattr(value, "__dict__", {}), seen | {id(value)})


def _bytes(value: Tensor | npt.NDArray[Any]) -> str:
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.device.type == "meta":
            return ""
        value = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(value.tobytes(), digest_size=16).hexdigest()


def _code(function: Any, seen: Set[int] = frozenset()) -> Iterator[str]:
    """The code of a function, method or property, with what it has closed over; nothing of one that is compiled."""
    if isinstance(function, property):
        function = function.fget
    function = getattr(function, "__func__", function)
    code: CodeType | None = getattr(function, "__code__", None)
    if code is None or id(function) in seen:
        return
    yield from _instructions(code)
    cells: tuple[Any, ...] = getattr(function, "__closure__", None) or ()
    held = (getattr(function, "__defaults__", None) or (), getattr(function, "__kwdefaults__", None) or {})
    for value in (*_contents(cells), *held[0], *held[1].values()):
        if isinstance(value, PLAIN):
            yield repr(value)
        elif inspect.isroutine(value):  # what a decorator wraps
            yield from _code(value, seen | {id(function)})


def _contents(cells: tuple[Any, ...]) -> Iterator[Any]:
    for cell in cells:
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            yield None


def _instructions(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield repr(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _instructions(constant)
        else:
            yield repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)
