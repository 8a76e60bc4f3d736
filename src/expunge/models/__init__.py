"""The architectures of the papers, small ones, by name.

Classifiers take float images (B, C, H, W) with H = W and return logits (B, classes). In each of them the last layer,
the one that yields the logits, is called ``head``. The denoiser ``unet`` is diffusers' own class.
Importing this package, listing names and checking arguments need no torch; `build` does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from expunge.errors import UnknownName, raise_if
from expunge.models.field import is_count
from expunge.models.table import TABLE, Architecture

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build", "check", "fields", "names", "source"]


def names(family: str = "classifier") -> list[str]:
    """The names that `build` knows, in alphabetical order.

    Args:
        family: `"classifier"` (default), or `"diffusion"` for denoisers.
    """
    return sorted(name for name, found in TABLE.items() if found.family == family)


def fields(name: str) -> dict[str, Any]:
    """The settings of an architecture beyond channels, size and classes, each with its default.

    Args:
        name: one of `names`.

    Raises:
        UnknownName: if there is no such architecture.
    """
    return _find(name).defaults()


def source(name: str) -> str:
    """The paper an architecture is from, in a few words.

    Args:
        name: one of `names`.

    Raises:
        UnknownName: if there is no such architecture.
    """
    return _find(name).source


def check(name: str, *, channels: int = 3, size: int = 32, classes: int = 10, **fields: Any) -> dict[str, Any]:
    """All fields of the model that `build` would make, defaults filled in; nothing is built.

    Args:
        name: as for `build`; so are the others.
        channels: see `build`.
        size: see `build`.
        classes: see `build`.
        fields: see `build`.

    Raises:
        UnknownName: if there is no such architecture.
        Problems: everything else that is wrong, at once.
    """
    found = _find(name)
    problems = [
        f"{name}: {what} must be a whole number of at least {least}, not {value!r}{why}."
        for what, value, least, why in (
            ("channels", channels, 1, ""),
            ("size", size, 1, " (images are size x size pixels)"),
            ("classes", classes, 2, " (with fewer there is nothing to tell apart)"),
        )
        if not is_count(value, least)
    ]
    values = found.defaults()
    for key, value in fields.items():
        if key not in found.fields:
            none = "" if found.fields else "It has none beyond channels, size and classes."
            problems.append(str(UnknownName(f"field of {name}", key, found.fields, none)))
        elif not found.fields[key].accepts(value):
            problems.append(f"{name}: {key} must be {found.fields[key].wants}, not {value!r}.")
        else:
            values[key] = found.fields[key].convert(value)
    if is_count(size):
        problems += _size_problems(name, found, int(size), values)
    raise_if(problems)
    return values


def build(name: str, *, channels: int = 3, size: int = 32, classes: int = 10, **fields: Any) -> nn.Module:
    """A new model on the CPU, in training mode, with weights drawn from torch's global generator.

    Args:
        name: one of `names`.
        channels: C of the images, at least 1; default 3 (colour).
        size: H and W of the images, in pixels; default 32 (CIFAR). Each architecture has a smallest size.
        classes: how many logits, at least 2; default 10 (CIFAR-10, MNIST).
        fields: settings of the architecture, see `fields`.

    Raises:
        UnknownName: if there is no such architecture.
        Problems: unknown fields, values out of range, images too small; all at once, before building.
    """
    values = check(name, channels=channels, size=size, classes=classes, **fields)
    module, made_by = TABLE[name].made_by.split(":")
    make = getattr(import_module(module), made_by)
    return cast("nn.Module", make(channels=int(channels), size=int(size), classes=int(classes), **values))


def _find(name: str) -> Architecture:
    if not isinstance(name, str) or name not in TABLE:
        raise UnknownName("model", name, TABLE)
    return TABLE[name]


def _size_problems(name: str, found: Architecture, size: int, values: dict[str, Any]) -> list[str]:
    smallest = found.smallest(values)
    if size >= smallest:
        return found.problems(size, values)
    fitting = [other for other in names(found.family) if TABLE[other].smallest(TABLE[other].defaults()) <= size]
    with_fields = " with these fields" if smallest != found.smallest(found.defaults()) else ""
    return [
        f"{name}{with_fields} needs images of at least {smallest}x{smallest} pixels, not {size}x{size}: "
        f"resize them{', or take a model that fits: ' if fitting else ''}{', '.join(fitting)}."
    ]
