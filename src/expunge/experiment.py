"""Experiment: from a YAML file to a dossier. Everything wrong with the file is told at once, before any compute."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml
from torch import nn

from expunge import data, io, models
from expunge.audit.lineup import AGAIN, ORIGINAL, RETRAIN, Terms
from expunge.audit.measure import ATTACKS
from expunge.data.rows import Rows
from expunge.errors import ExpungeError, Problems, UnknownName, near, raise_if
from expunge.method import Method, check
from expunge.phase import descent_problems
from expunge.recipe import OwnRecipe, Recipe, TrainedBy
from expunge.registry import from_config
from expunge.request import Request
from expunge.run import Run
from expunge.unlearning import default_task

KEYS = ("model", "data", "request", "recipe", "methods", "models", "audit", "out")
AUDIT_KEYS = ("attacks", "seeds", "relearn")


@dataclass(frozen=True)
class Built:
    """A builder `module:function` of the user's, called without arguments.

    Args:
        path: where the function is.
    """

    path: str

    def __call__(self, rows: Rows | None = None) -> nn.Module:
        """The untrained module that the function returns."""
        made = locate(self.path)()
        if not isinstance(made, nn.Module):
            raise ExpungeError(f"{self.path} must return a torch.nn.Module; it returned {type(made).__name__}.")
        return made


@dataclass(frozen=True)
class Experiment:
    """What a YAML file asks for, with its data loaded and everything checked.

    Args:
        config: the plain data it was read from.
        train: training rows.
        unseen: rows never trained on.
        request: what must go.
        recipe: how models are trained; none when the file does not say.
        methods: by the name of their row.
        terms: what the audit is to do.
        relearn: settings of relearning, as plain data.
        out: the folder to write to.
    """

    config: dict[str, Any]
    train: Rows
    unseen: Rows
    request: Request
    recipe: TrainedBy | None
    methods: dict[str, Method]
    terms: Terms
    relearn: Any
    out: Path
    given: dict[str, list[str]] = field(default_factory=dict)

    def blank(self) -> nn.Module:
        """An untrained model as the file describes it."""
        return build_model(self.config.get("model", {}), self.train)

    def weights(self) -> Path | None:
        """The weights of the original, where the file names some."""
        path = self.config.get("model", {}).get("weights")
        return Path(path) if path else None


def read(path: str | Path, changes: Sequence[str] = (), seeds: Sequence[int] | None = None) -> Experiment:
    """The experiment in a YAML file.

    Args:
        path: the file.
        changes: settings to replace, such as `methods.0.epochs=5`.
        seeds: to use in place of the file's.

    Raises:
        ExpungeError: everything that is wrong, at once.
    """
    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ExpungeError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ExpungeError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(config, dict):
        raise ExpungeError(f"{path} must hold settings under {', '.join(KEYS)}; got {type(config).__name__}.")
    for change in changes:
        config = changed(config, change)
    if seeds is not None:
        config["audit"] = {**(config.get("audit") or {}), "seeds": list(seeds)}
    for folder in (str(Path(path).resolve().parent), os.getcwd()):  # a user's own modules lie beside the file
        if folder not in sys.path:
            sys.path.insert(0, folder)
    return from_dict(config)


def from_dict(config: Mapping[str, Any]) -> Experiment:
    """The experiment in plain data; see `read`."""
    problems: list[str] = []
    config = dict(config)
    for key in config:
        if key not in KEYS:
            problems.append(f"There is no setting {key!r}.{near(key, KEYS)} The settings are {', '.join(KEYS)}.")
    rows: tuple[Rows, Rows] | None = None
    request = recipe = None
    methods: dict[str, Method] = {}
    with collecting(problems, "data"):
        rows = load_data(_mapping(config, "data"))
    with collecting(problems, "recipe"):
        recipe = make_recipe(config.get("recipe"), _mapping(config, "model", {}))
    with collecting(problems, "methods"):
        methods = name_methods(config.get("methods") or [])
    terms, relearn = Terms((0, 1, 2)), True
    with collecting(problems, "audit"):
        terms, relearn = audit_terms(_mapping(config, "audit", {}))
    if rows is not None:
        with collecting(problems, "request"):
            request = make_request(rows[0], _mapping(config, "request"))
    if rows is not None and request is not None:
        with collecting(problems, "model"):
            _check_model(config, rows[0], request, recipe, methods)
    raise_if(problems)
    if rows is None or request is None:  # cannot be: each would have left a problem
        raise ExpungeError("data and request are needed.")
    given = {name: _listed(paths) for name, paths in (config.get("models") or {}).items()}
    out = Path(config.get("out") or "runs/expunge")
    return Experiment(config, *rows, request, recipe, methods, terms, relearn, out, given)


def changed(config: Mapping[str, Any], change: str) -> dict[str, Any]:
    """The settings with one of them replaced, e.g. by `methods.0.epochs=5`; the value is read as YAML.

    Raises:
        ExpungeError: no `=`, or a place that does not exist.
    """
    where, equals, value = change.partition("=")
    if not equals:
        raise ExpungeError(f"--set takes place=value, e.g. --set recipe.epochs=5; got {change!r}.")
    copied = cast(dict[str, Any], yaml.safe_load(yaml.safe_dump(dict(config))))
    at: Any = copied
    *steps, last = where.split(".")
    for step in steps:
        try:
            at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
        except (ValueError, IndexError, AttributeError) as error:
            raise ExpungeError(f"--set {change}: there is no {step!r} in the file at that place.") from error
    try:
        at[int(last) if isinstance(at, list) else last] = yaml.safe_load(value)
    except (ValueError, IndexError, TypeError) as error:
        raise ExpungeError(f"--set {change}: there is no {last!r} in the file at that place.") from error
    return copied


def parse_seeds(text: str) -> list[int]:
    """Seeds from text such as `0-4` or `0,2,5`.

    Raises:
        ExpungeError: anything else.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match:
            raise ExpungeError(f"Seeds are given as 0-4 or 0,2,5; got {text!r}.")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return list(dict.fromkeys(found))


def locate(path: str) -> Any:
    """The object at `module:name`, imported from where Python finds modules.

    Raises:
        ExpungeError: it cannot be imported.
    """
    module, colon, name = str(path).partition(":")
    if not colon:
        raise ExpungeError(f"A function of your own is given as module:function; got {path!r}.")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ExpungeError(f"{path} cannot be imported: {error}.") from error


def load_data(config: Mapping[str, Any]) -> tuple[Rows, Rows]:
    """Training and unseen rows: `{name: mnist, limit: 10000}`, `{path: x.npz}` or `{build: "module:function"}`."""
    _known(config, ("name", "path", "build", "limit", "seed"))
    if "build" in config:
        made = locate(config["build"])()
        if not isinstance(made, tuple) or len(made) != 2:
            raise ExpungeError(f"{config['build']} must return a pair: training data, unseen data.")
        train, unseen = data.as_rows(made[0]), data.as_rows(made[1])
        return train, unseen.scaled_like(train)
    source = config.get("name") or config.get("path")
    if not source:
        raise ExpungeError("data is given by name, path or build, e.g. {name: digits}.")
    return data.load(source, limit=config.get("limit"), seed=config.get("seed", 0))


def make_request(train: Rows, config: Mapping[str, Any]) -> Request:
    """A request: `{classes: [3]}`, `{ids: [...]}`, `{ids: file.csv}` or `{fraction: 0.1, seed: 0}`."""
    _known(config, ("classes", "ids", "fraction", "seed", "stratify"))
    return Request(train, **config)


def make_recipe(config: Mapping[str, Any] | None, model: Mapping[str, Any]) -> TrainedBy | None:
    """A recipe: the fields of `Recipe`, or `{train: "module:function"}`; none when there is nothing."""
    if config is None:
        return None
    if not isinstance(config, Mapping):
        raise ExpungeError("give fields, e.g. {epochs: 10, lr: 0.05}.")
    if "train" in config:
        _known(config, ("train",))
        return OwnRecipe(locate(config["train"]))
    known = [name for name in Recipe.__dataclass_fields__ if name != "model"]
    _known(config, known)
    raise_if(descent_problems(config))
    if "build" in model:
        return Recipe(model=Built(model["build"]), **config)
    described = {k: v for k, v in model.items() if k != "weights"}
    return Recipe(model=described or "convnet", **config)


def name_methods(configs: Sequence[Any]) -> dict[str, Method]:
    """Methods by the name of their row: `row:` where it is given, otherwise their own, numbered when it recurs."""
    problems: list[str] = []
    named: dict[str, Method] = {}
    for i, config in enumerate(configs):
        with collecting(problems, f"methods.{i}"):
            fields = {"name": config} if isinstance(config, str) else dict(config)
            row = fields.pop("row", None)
            method = from_config(fields)
            if method.name in (ORIGINAL, RETRAIN):
                continue  # they are always there
            base = str(row or method)
            number = 2
            row = base
            while row in named:
                row, number = f"{base} {number}", number + 1
            if row in (ORIGINAL, RETRAIN, AGAIN):
                raise ExpungeError(f"{row} is the name of a row that is always there; choose another one.")
            named[row] = method
    raise_if(problems)
    return named


def audit_terms(config: Mapping[str, Any]) -> tuple[Terms, Any]:
    """What the audit is to do: `{attacks: [loss], seeds: [0, 1, 2], relearn: {max_epochs: 20}}`."""
    _known(config, AUDIT_KEYS)
    seeds = config.get("seeds", 3)
    attacks = tuple(config.get("attacks") or ATTACKS)
    terms = Terms(tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds), attacks)
    return terms, config.get("relearn", True)


def build_model(config: Mapping[str, Any], train: Rows) -> nn.Module:
    """An untrained model: `{name: lenet}` with its fields, or `{build: "module:function"}`."""
    if "build" in config:
        _known(config, ("build", "weights"))
        return Built(config["build"])()
    described = {k: v for k, v in config.items() if k != "weights"}
    if "name" not in described:
        raise ExpungeError(
            f"a model is given by name or build, e.g. {{name: lenet}}; names: {', '.join(models.names())}."
        )
    return Recipe(model=described).blank(train)


def _check_model(
    config: Mapping[str, Any], train: Rows, request: Request, recipe: TrainedBy | None, methods: Mapping[str, Method]
) -> None:
    """Everything that will not work between model, data, recipe and methods."""
    weights = _mapping(config, "model", {}).get("weights")
    if recipe is None and not weights and not config.get("models"):
        raise ExpungeError("give weights of the original, or a recipe to train it by.")
    if isinstance(recipe, OwnRecipe) and not config.get("model"):
        return  # only the user's function knows the model
    with Run().isolated():
        model = build_model(_mapping(config, "model", {}), train)
    task = default_task(request)
    problems = task.problems(model, train)
    if weights:
        with collecting(problems, "weights"):
            io.load_weights(Path(weights), model)
    for row, method in methods.items():
        with collecting(problems, row):
            check(model, request, method, task, recipe is not None)
    raise_if(list(dict.fromkeys(problems)))


@contextmanager
def collecting(problems: list[str], where: str) -> Iterator[None]:
    """Add what goes wrong inside the block to `problems`, with the place in front."""
    try:
        yield
    except Problems as error:
        problems += [p if p.startswith(where) else f"{where}: {p}" for p in error.problems]
    except ExpungeError as error:
        problems.append(f"{where}: {error}")
    except (TypeError, ValueError) as error:
        problems.append(f"{where}: {error}")


def _mapping(config: Mapping[str, Any], key: str, default: Any = None) -> Mapping[str, Any]:
    value = config.get(key, default)
    if not isinstance(value, Mapping):
        raise ExpungeError(f"needed, as settings such as {{name: …}}; got {value!r}.")
    return value


def _known(config: Mapping[str, Any], known: Sequence[str]) -> None:
    raise_if([str(UnknownName("setting", key, known)) for key in config if key not in known])


def _listed(paths: Any) -> list[str]:
    return [str(p) for p in paths] if isinstance(paths, (list, tuple)) else [str(paths)]


__all__ = ["Built", "Experiment", "changed", "from_dict", "locate", "parse_seeds", "read"]
