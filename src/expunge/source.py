"""Source: a function of a user's own told so that another one is noticed."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import Any


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
