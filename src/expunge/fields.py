"""Fields: whether the values of a dataclass are of the kinds that it declares, told in words before they are used."""

from __future__ import annotations

import functools
import inspect
from abc import ABC
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from expunge.errors import Problems, collected, near, raise_if

if TYPE_CHECKING:
    from typing_extensions import Self

_OTHER = object()  # in place of a value that is of another kind


class Named:
    """A base of dataclasses whose fields are given by name, and one that there is not is told with near ones.

    Raises:
        ExpungeError: all unknown names.
    """

    def __new__(cls, *given: Any, **named: Any) -> Self:
        """Look at the names before `__init__` sees them."""
        known = inspect.signature(cls).parameters
        listing = ", ".join(known)
        problems = [
            f"{cls.__name__} has no field {name!r}.{near(name, known)} Its fields: {listing}."
            for name in named
            if name not in known
        ]
        if given and all(p.kind is p.KEYWORD_ONLY for p in known.values()):
            problems.append(f"The fields of {cls.__name__} are given by name: {listing}; got {given[0]!r} without one.")
        raise_if(problems)
        return super().__new__(cls)


class Typed(Named, ABC):
    """A base of dataclasses whose values are held against their annotations before any `__post_init__` reads them.

    An int stands for a float, a list for a tuple, and a scalar of NumPy or PyTorch for its number, and become such; a
    bool is no number, and nothing is read out of text. A default is never refused. Fields of a class that reads plain
    data itself (`from_config`) are left to it.

    Raises:
        ExpungeError: all fields that hold a value of another kind.
    """

    name: ClassVar[str]

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        own = cls.__dict__.get("__post_init__")
        if own is not None:  # so that no subclass has to remember it
            setattr(cls, "__post_init__", _after_check(own))  # noqa: B010 (mypy refuses the assignment)

    def __post_init__(self) -> None:
        raise_if(list(settle(self).values()))


def settle(made: Any) -> dict[str, str]:
    """Put each field of a dataclass, frozen or not, into the kind that its annotation names.

    Returns what is wrong with those that hold another kind, a sentence for the name of each.
    """
    cls: Any = type(made)
    problems, hints = {}, _hints(cls)
    for field in fields(made):
        value, hint = getattr(made, field.name), hints.get(field.name, Any)
        settled = _as(value, hint)
        if settled is not _OTHER:
            object.__setattr__(made, field.name, settled)
        elif value is not field.default:
            hinted = near(value, _words(hint)) if isinstance(value, str) else ""
            name = getattr(cls, "name", cls.__name__)
            problems[field.name] = f"{name}: {field.name} must be {_said(hint)}; got {value!r}.{hinted}"
    return problems


def _after_check(own: Any) -> Any:
    @functools.wraps(own)
    def checked(self: Any, *given: Any) -> None:
        wrong = settle(self)
        if not wrong:
            own(self, *given)
            return
        problems, defaults = list(wrong.values()), {f.name: f.default for f in fields(self) if f.name in wrong}
        if MISSING not in defaults.values():
            for name, default in defaults.items():  # so that what else is wrong is told at once
                object.__setattr__(self, name, default)
            with collected(problems):
                own(self, *given)
        raise Problems(problems)

    return checked


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    try:
        return get_type_hints(cls)
    except NameError:  # a class of somebody's own, with names that only a type checker sees
        return {}


def _as(value: Any, hint: Any) -> Any:
    """The value as this kind has it, or `_OTHER`; the value itself where the kind reads plain data by itself."""
    from pydantic import ValidationError

    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    strict = None if any(hasattr(kind, "from_config") for kind in kinds) else _strict(hint)
    try:
        return value if strict is None else strict.validate_python(_plain(value))
    except ValidationError:
        return _OTHER


@functools.cache
def _strict(hint: Any) -> Any:
    """What checks a kind; none for a protocol, which cannot be asked."""
    from pydantic import ConfigDict, TypeAdapter
    from pydantic_core import SchemaError

    try:
        return TypeAdapter(hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
    except SchemaError:
        return None


def _plain(value: Any) -> Any:
    """Tuples for lists, and numbers for scalars of NumPy and PyTorch."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


_KINDS = {NoneType: "none", bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _said(hint: Any) -> str:
    """A kind in words."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return ", or ".join(_said(part) for part in parts)
    if origin is Literal:
        return " or ".join(filter(None, [", ".join(map(str, parts[:-1])), str(parts[-1])]))
    if origin is tuple:
        each = parts[:1] if parts[-1:] == (...,) else parts
        return f"a list, each {' and '.join(dict.fromkeys(map(_said, each)))}"
    return _KINDS.get(hint, f"a {getattr(origin or hint, '__name__', hint)}")


def _words(hint: Any) -> list[str]:
    """The words that a kind is made of, where it is one of some."""
    if get_origin(hint) is Literal:
        return [str(part) for part in get_args(hint)]
    return [word for part in get_args(hint) for word in _words(part)]
