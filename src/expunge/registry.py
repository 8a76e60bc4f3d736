"""Registry: from a name to a method; modules are imported when a method of theirs is asked for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import InitVar
from typing import Any, TypeVar, get_type_hints

from expunge.errors import ExpungeError, UnknownName, collected, near, raise_if
from expunge.method import NEEDED, Method
from expunge.methods import BUILT_IN

_ADDED: dict[str, type[Method]] = {}

M = TypeVar("M", bound=type[Method])


def register(cls: M) -> M:
    """Class decorator: make a method of one's own known under its `name`.

    Raises:
        ExpungeError: the name is taken by another class, or the class lacks a name or a card.
    """
    name, card = getattr(cls, "name", None), getattr(cls, "card", None)
    if not name or card is None:
        raise ExpungeError(f"{cls.__name__} needs a `name` and a `card` to be registered.")
    if name in BUILT_IN or _ADDED.get(name, cls).__qualname__ != cls.__qualname__:
        raise ExpungeError(f"There is a method {name!r} already; choose another name for {cls.__name__}.")
    _ADDED[name] = cls
    return cls


def names() -> list[str]:
    """All names, the built-in ones first."""
    return [*BUILT_IN, *_ADDED]


def get(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        ExpungeError: an unknown name; near ones are offered.
    """
    if name in _ADDED:
        return _ADDED[name]
    if name not in BUILT_IN:
        raise UnknownName("method", name, names(), "See: expunge methods.")
    cls: type[Method] = getattr(importlib.import_module(f"expunge.methods.{name}"), BUILT_IN[name])
    return cls


def make(name: str, fields: Mapping[str, Any] | None = None) -> Method:
    """A method from its name and fields, e.g. out of YAML.

    Raises:
        ExpungeError: an unknown name, and all unknown fields and wrong values at once.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    cls, given = get(name), dict(fields or {})
    known = set(inspect.signature(cls).parameters)  # fields, and what becomes part of one
    hints = {key: h.type if isinstance(h, InitVar) else h for key, h in get_type_hints(cls).items()}
    problems, values = [], {}
    for key, value in given.items():
        if key not in known:
            problems.append(f"{name} has no field {key!r}.{near(key, known)} Its fields: {', '.join(sorted(known))}.")
        elif key == "region":
            values[key] = value  # the method reads it itself
        elif key in _NESTED:
            with collected(problems):
                values[key] = _NESTED[key](value)
        else:
            try:
                values[key] = TypeAdapter(hints[key], config=ConfigDict(arbitrary_types_allowed=True)).validate_python(
                    value
                )
            except ValidationError as error:
                problems += [f"{name}.{key}: {e['msg']}; got {value!r}." for e in error.errors()]
    if not _NESTED.keys() & (given.keys() - values.keys()):  # it would only say that the method in it is missing
        with collected(problems):
            made: Method = cls(**values)
    raise_if(problems)
    return made


def _steps(given: object) -> tuple[Method, ...]:
    if not isinstance(given, (list, tuple)):
        raise ExpungeError(f"steps of a chain are a list of methods, e.g. [{{name: finetune}}]; got {given!r}.")
    return tuple(step if isinstance(step, Method) else from_config(step) for step in given)


def _one(given: object) -> Method:
    if not isinstance(given, (Method, Mapping, str)):
        raise ExpungeError(f"a method is given by name, e.g. {{name: finetune}}; got {given!r}.")
    return given if isinstance(given, Method) else from_config(given)


_NESTED: dict[str, Callable[[object], Any]] = {"steps": _steps, "of": _one}  # fields that hold methods


def from_config(config: Mapping[str, Any] | str) -> Method:
    """A method from plain data: `{"name": ..., field: value}`, or its name alone."""
    if isinstance(config, str):
        return make(config)
    given: object = config
    fields = dict(config) if isinstance(given, Mapping) else {}
    name = fields.pop("name", None)
    if not isinstance(name, str):
        raise ExpungeError(f"A method is given by name, e.g. {{name: finetune, epochs: 5}}; got {given!r}.")
    return make(name, fields)


def suitable(scope: str, family: str, given: Collection[str] = ()) -> list[str]:
    """The methods that serve such a request on such a model, `given` some of `"recipe"`, `"ledger"` and `"unseen"`."""
    found = []
    for name in names():
        card = get(name).card
        lacking = (card.needs & set(NEEDED)) - set(given)
        fits = scope in card.scope and family in card.families and not lacking
        if fits and name not in ("original", "retrain", "chain", "search"):
            found.append(name)
    return found
