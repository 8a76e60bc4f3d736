"""Source: what a function of a user's own is, told so that another one is noticed, and how it can be called."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import Any


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
    """A function's name with a digest of its source, its defaults and the plain values that it captured.

    What has no source is told by its representation. Functions that it calls and objects that it captured are not
    looked into.
    """
    inner = inspect.unwrap(function)
    try:
        source = inspect.getsource(inner)
    except (OSError, TypeError):
        source = repr(function)
    cells = getattr(inner, "__closure__", None) or ()
    captured = [
        c.cell_contents for c in cells if isinstance(c.cell_contents, (int, float, str, bytes, tuple, type(None)))
    ]
    known = repr((source, getattr(inner, "__defaults__", None), getattr(inner, "__kwdefaults__", None), captured))
    name = f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', type(function).__name__)}"
    return f"{name}#{hashlib.blake2b(known.encode(), digest_size=8).hexdigest()}"
