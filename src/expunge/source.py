"""Source: what a function of a user's own is, told so that another one is noticed, and how it can be called."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, ModuleType
from typing import Any

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_INSTALLED = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def call_problem(function: object, *given: str) -> str:
    """Why something cannot be called with such arguments, as an end of a sentence; empty where it can be.

    Args:
        function: anything; what does not tell its arguments passes.
        given: what it would be called with, in words.
    """
    if not callable(function):
        return f"got {function!r}"
    try:
        signature = inspect.signature(function, follow_wrapped=False)  # what wraps may take other arguments
    except (TypeError, ValueError):  # some that are written in C
        return ""
    try:
        signature.bind(*given)
    except TypeError as error:
        name = getattr(function, "__name__", type(function).__name__)
        return f"got {name}{signature}, which cannot be called with ({', '.join(given)}): {error}"
    return ""


def describe_function(function: Callable[..., Any]) -> str:
    """A function's name, with a digest of its source and of what it uses: other functions, classes, plain values.

    These are looked up where its code finds them, in its module or around it, and so is what they use in their turn;
    of installed packages the name counts. Of other objects it is known what they print as, and nothing of the items of
    lists and sets.
    """
    name = f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', type(function).__name__)}"
    inner = inspect.unwrap(function)
    known = repr((_source(inner), list(_told(inner, set()))))
    return f"{name}#{hashlib.blake2b(known.encode(), digest_size=8).hexdigest()}"


def _told(value: Any, seen: set[int]) -> Iterator[str]:
    """A value as texts that are the same in another process."""
    if id(value) in seen:
        yield "again"
    elif isinstance(value, (tuple, Mapping)):
        if isinstance(value, Mapping):  # tuples may be made for the moment, and their place be taken by another
            seen.add(id(value))
        for item in value.items() if isinstance(value, Mapping) else value:
            yield from _told(item, seen)
    elif isinstance(value, (list, set)):
        yield type(value).__name__  # where code notes down what happens as it runs
    elif isinstance(value, functools.partial):
        yield from _told((value.func, value.args, value.keywords), seen)
    elif inspect.ismethod(value):
        yield from _told((value.__func__, value.__self__), seen)
    elif inspect.isfunction(value) or isinstance(value, type):
        yield f"{value.__module__}.{value.__qualname__}"
        if not _installed(value):
            seen.add(id(value))
            yield _source(value)
            yield from _around(value, seen)
    else:
        yield _ADDRESS.sub("", repr(value))
        if not _installed(type(value)):
            seen.add(id(value))
            yield from _told(type(value), seen)
            yield from _told(getattr(value, "__dict__", {}), seen)


def _source(value: Any) -> str:
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):  # typed at a prompt
        code = getattr(value, "__code__", None)
        return "" if code is None else repr([(part.co_code.hex(), part.co_names) for part in _nested(code)])


def _around(value: Any, seen: set[int]) -> Iterator[str]:
    """What a class inherits, holds and uses; what a function captured, has by default, and names of its module."""
    if isinstance(value, type):
        yield from _told(value.__bases__, seen)
        for name, member in vars(value).items():
            inner = getattr(member, "__func__", getattr(member, "fget", member))
            if inspect.isfunction(inner):
                yield from _around(inner, seen)
            elif not name.startswith("__"):
                yield from _told(member, seen)
        return
    yield from _told((value.__defaults__, value.__kwdefaults__), seen)
    names = {name for code in _nested(value.__code__) for name in code.co_names}
    found = {name: v for name, v in value.__globals__.items() if name in names}
    found |= inspect.getclosurevars(value).nonlocals
    for name in sorted(found):
        if not isinstance(found[name], ModuleType):
            yield name
            yield from _told(found[name], seen)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _installed(value: Any) -> bool:
    """Whether a function or class belongs to Python, an installed package, or this one."""
    name = getattr(value, "__module__", None) or "builtins"
    if name.partition(".")[0] in {"builtins", "expunge"}:
        return True
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return file.startswith(_INSTALLED)
