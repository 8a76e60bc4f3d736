"""The user's own code: functions named in a YAML file as `module:function`."""

from __future__ import annotations

import functools
import importlib
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from expunge.data.rows import Rows
from expunge.errors import ExpungeError


def bring(module: str, name: str = "") -> Any:
    """A module, or what goes by a name in it, imported from where Python finds modules.

    Raises:
        ExpungeError: it cannot be imported.
    """
    try:
        imported = importlib.import_module(module)
        return getattr(imported, name) if name else imported
    except Exception as error:  # a user's module may raise anything while it is imported
        raise ExpungeError(f"{module}{':' * bool(name)}{name} cannot be imported: {_told(error)}.") from error


def locate(path: object) -> Callable[..., Any]:
    """The function at `module:function`, imported from where Python finds modules.

    Raises:
        ExpungeError: it cannot be imported, or cannot be called.
    """
    module, colon, name = str(path).partition(":")
    if not (colon and module and name):
        raise ExpungeError(f"A function of your own is given as module:function; got {path!r}.")
    found = bring(module, name)
    if not callable(found):
        raise ExpungeError(f"{path} must be a function; it is a {type(found).__name__}.")
    function: Callable[..., Any] = found
    return function


def call(path: object) -> Any:
    """What the function at `module:function` returns, called without arguments.

    Raises:
        ExpungeError: it cannot be imported, or raises anything itself.
    """
    function = locate(path)
    try:
        return function()
    except ExpungeError:
        raise
    except Exception as error:
        raise ExpungeError(f"{path} failed: {_told(error)}.") from error


def call_builder(path: object) -> nn.Module:
    """The untrained module that the function at `module:function` returns.

    Raises:
        ExpungeError: it returns something else, or as for `call`.
    """
    made = call(path)
    if not isinstance(made, nn.Module):
        raise ExpungeError(f"{path} must return a torch.nn.Module; it returned {type(made).__name__}.")
    return made


def as_build(path: object) -> Callable[[Rows], nn.Module]:
    """The same as a recipe's `model`. It wraps the user's function, so a change of its source trains anew."""

    @functools.wraps(locate(path))
    def build(rows: Rows) -> nn.Module:
        return call_builder(path)

    return build


def with_optimizers(config: Any) -> Any:
    """A recipe or method as plain data, with each optimizer that is named `module:function` as that function."""
    if isinstance(config, Mapping):
        return {k: _optimizer(v) if k == "optimizer" else with_optimizers(v) for k, v in config.items()}
    return [with_optimizers(one) for one in config] if isinstance(config, (list, tuple)) else config


def _optimizer(given: object) -> object:
    return locate(given) if isinstance(given, str) and ":" in given else given


def _told(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})"
