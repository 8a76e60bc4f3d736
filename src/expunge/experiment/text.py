"""What people type, as plain data: a YAML file, one changed setting, a range of seeds."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from expunge.errors import ExpungeError, Problems, raise_if


class _Loader(yaml.SafeLoader):
    """The safe loader with YAML 1.2's numbers: `1e-3` is one, where YAML 1.1 reads a word. No key counts twice."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.twice: list[str] = []

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Take note of a second value for a key, which would win without a word."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], list[int]] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                lines.setdefault((key.tag, key.value), []).append(key.start_mark.line + 1)
        found = {key: some for (_, key), some in lines.items() if len(some) > 1}
        often = {key: "twice" if len(some) == 2 else f"{len(some)} times" for key, some in found.items()}
        places = {key: " and ".join(map(str, some)) for key, some in found.items()}
        self.twice += [f"key {key!r} {often[key]}, lines {places[key]}; keep one." for key in found]
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Say in each problem where it was found."""
    try:
        yield
    except Problems as error:
        raise_if([f"{where}: {problem}" for problem in error.problems])


def _safe_load(text: str) -> Any:
    loader = _Loader(text)
    try:
        found = loader.get_single_data()
        raise_if(loader.twice)
        return found
    finally:
        loader.dispose()


def parse_file(path: Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        ExpungeError: it cannot be read, or holds something else.
    """
    try:
        with _naming(str(path)):
            config = _safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ExpungeError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ExpungeError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(config, dict):
        raise ExpungeError(f"{path} must hold settings, e.g. data: {{name: digits}}; it holds {_said(config)}.")
    return config


def parse_value(text: str, where: str) -> Any:
    """A value as YAML reads it, e.g. `5`, `1e-3`, `[a, b]` or `{epochs: 3}`.

    Raises:
        ExpungeError: it is not valid YAML.
    """
    try:
        with _naming(where):
            return _safe_load(text)
    except yaml.YAMLError as error:
        raise ExpungeError(f"{where}: {text!r} is not valid YAML: {error}") from error


def changed(config: Mapping[str, Any], change: str) -> dict[str, Any]:
    """The settings with one of them replaced, e.g. by `methods.0.epochs=5`; the value is read as YAML.

    Raises:
        ExpungeError: no `=`, a place that does not exist, or a value that is not valid YAML.
    """
    place, equals, text = change.partition("=")
    if not equals or not place:
        raise ExpungeError(f"--set takes place=value, e.g. --set recipe.epochs=5; got {change!r}.")
    value = parse_value(text, f"--set {place}")
    copied = copy.deepcopy(dict(config))
    at: Any = copied
    *steps, last = place.split(".")
    try:
        for key in steps:
            at = _inside(at, key)
        at[_key(at, last)] = value
    except (ValueError, IndexError, TypeError) as error:
        raise ExpungeError(f"--set {change}: the file has no place {place!r}; lists are counted from 0.") from error
    return copied


def _inside(at: Any, key: str) -> Any:
    """What lies under a key, made where there is nothing; a method given by its name alone gets room for fields."""
    index = _key(at, key)
    inner = at.get(index) if isinstance(at, dict) else at[index]
    if inner is None:
        inner = {}
    elif isinstance(inner, str) and isinstance(at, list):
        inner = {"name": inner}
    at[index] = inner
    return inner


def _key(at: Any, text: str) -> int | str:
    """A place in a list is a number, and so may a key be, such as the label of a class."""
    numbered = isinstance(at, dict) and text not in at and text.isdecimal() and int(text) in at
    return int(text) if isinstance(at, list) or numbered else text


def parse_seeds(text: str) -> list[int]:
    """Seeds from text such as `0-4` or `0,2,5`.

    Raises:
        ExpungeError: anything else.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise ExpungeError(f"Seeds are given as 0-4 or 0,2,5; got {text!r}.")
        found += range(first, last + 1)
    return list(dict.fromkeys(found))


def _said(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
