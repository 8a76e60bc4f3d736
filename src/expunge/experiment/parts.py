"""One function for each setting of a YAML file: from plain data to the object it describes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from expunge import data, models
from expunge.audit.lineup import AGAIN, ORIGINAL, RETRAIN, Terms
from expunge.data.rows import Rows
from expunge.data.split import stratified
from expunge.dossier import make_terms
from expunge.errors import ExpungeError, Problems, UnknownName, raise_if
from expunge.experiment import own
from expunge.experiment.text import parse_seeds
from expunge.method import Method
from expunge.recipe import OwnRecipe, Recipe, TrainedBy
from expunge.registry import from_config
from expunge.request import Request, check_form

Config = Mapping[str, Any]


def load_data(config: Config) -> tuple[Rows, Rows]:
    """Training and unseen rows: `{name: mnist, limit: 10000}`, `{path: x.npz}` or `{build: "module:function"}`."""
    cuts = ("limit", "seed", "class_limit")
    _known(config, ("name", "path", "build", "validation", *cuts))
    sources = [key for key in ("name", "path", "build") if config.get(key) is not None]
    if len(sources) != 1:
        raise ExpungeError(f"give one of name, path and build, e.g. {{name: digits}}; got {_listing(sources)}.")
    if sources != ["build"]:
        return data.load(str(config[sources[0]]), **{key: config[key] for key in cuts if key in config})
    if set(config) - {"build", "validation"}:
        raise ExpungeError(
            "limit, class_limit and seed are for data given by name or path; cut your own data where you build it."
        )
    made = own.call(config["build"])
    if not isinstance(made, (tuple, list)) or len(made) != 2:
        raise ExpungeError(f"{config['build']} must return a pair: training data, unseen data.")
    train = data.as_rows(made[0])
    unseen = data.as_rows(made[1], classes=None if isinstance(made[1], Rows) else train.classes)
    return train, unseen.scaled_like(train)


def set_aside(config: Config, unseen: Rows) -> tuple[Rows, Rows | None]:
    """Unseen rows to judge by, and those for methods that choose by them: `{validation: 0.3}`, a share of all alike."""
    share = config.get("validation")
    if share is None:
        return unseen, None
    if not isinstance(share, float) or not 0 < share < 1:
        raise ExpungeError(
            f"validation is a share of the unseen rows, for methods to choose by, e.g. 0.3; got {share!r}."
        )
    count = round(share * len(unseen))
    if not 0 < count < len(unseen):
        raise ExpungeError(f"validation of {share:g} leaves no row on one side; there are {len(unseen)} unseen ones.")
    chosen = stratified(unseen.y, count, 0)
    rest = torch.ones(len(unseen), dtype=torch.bool)
    rest[chosen] = False
    return unseen.take(rest), unseen.take(chosen)


def make_request(train: Rows, config: Config) -> Request:
    """A request: `{classes: [3]}`, `{ids: [...]}`, `{ids: file.csv}` or `{fraction: 0.1, seed: 0}`."""
    check_request(config)
    return Request(train, **config)


def check_request(config: Config) -> None:
    """Refuse a request that cannot be, whatever the data."""
    _known(config, ("classes", "ids", "fraction", "seed", "stratify", "gone"))
    check_form(**{key: value for key, value in config.items() if key != "gone"})


def check_model(config: Config) -> None:
    """Refuse a model that cannot be, whatever the data: an unknown name or field, a function that is not there."""
    if "build" in config:
        _known(config, ("build", "weights"))
        own.locate(config["build"])
        return
    name, fields = config.get("name"), {k: v for k, v in config.items() if k not in ("name", "weights")}
    if name is None:
        raise ExpungeError(f"give name or build, e.g. {{name: lenet}}; names: {', '.join(models.names())}.")
    models.check(name, **fields)


def build_model(config: Config, train: Rows) -> nn.Module:
    """An untrained model: `{name: lenet}` with its fields, or `{build: "module:function"}`."""
    check_model(config)
    if "build" in config:
        return own.call_builder(config["build"])
    return Recipe(model=_described(config)).blank(train)


def make_recipe(config: Config, model: Config) -> TrainedBy:
    """A recipe: the fields of `Recipe`, or `{train: "module:function"}`."""
    if "train" in config:
        _known(config, ("train",))
        return OwnRecipe(own.locate(config["train"]))
    names = [name for name in Recipe.__dataclass_fields__ if name != "model"]
    problems: list[str] = []
    with collecting(problems):
        _known(config, names)
    with collecting(problems):
        recipe = Recipe(**own.with_optimizers({k: v for k, v in config.items() if k in names}))
    with collecting(problems):
        recipe_model = own.as_build(model["build"]) if "build" in model else _described(model)
    raise_if(problems)
    return Recipe(**{**vars(recipe), "model": recipe_model})


def name_methods(configs: Any, problems: list[str]) -> dict[str, tuple[str, Method]]:
    """Methods by the name of their row: `row:` where it is given, otherwise their own, numbered when it recurs.

    Each with its place in the list, e.g. `methods.0`. What is wrong with others is added to `problems`.
    """
    named: dict[str, tuple[str, Method]] = {}
    for i, config in enumerate(configs if isinstance(configs, (list, tuple)) else [configs]):
        with collecting(problems, f"methods.{i}"):
            if not isinstance(config, (str, Mapping)):
                raise ExpungeError(f"give a method by name, e.g. {{name: finetune, epochs: 5}}; got {config!r}.")
            fields = {"name": config} if isinstance(config, str) else own.with_optimizers(config)
            row = fields.pop("row", None)
            method = from_config(fields)
            if method.name in (ORIGINAL, RETRAIN):
                continue  # they are always there
            named[_free(str(row or method), named)] = f"methods.{i}", method
    return named


def check_device(name: Any) -> None:
    """Refuse a device that is not there: `cpu`, `cuda` or `cuda:1`."""
    try:
        torch.empty(1, device=str(name))
    except (RuntimeError, AssertionError) as error:
        raise ExpungeError(f"{name} cannot be used: {str(error).splitlines()[0]}") from error


def import_modules(names: Any) -> None:
    """Import modules of the user's own, such as those that register methods: `[my_project.methods]`."""
    some = [names] if isinstance(names, str) else names
    if not isinstance(some, (list, tuple)) or not all(isinstance(n, str) for n in some):
        raise ExpungeError(f"give names of modules, e.g. import: [my_project.methods]; got {names!r}.")
    for name in some:
        own.bring(name)


def audit_terms(config: Config) -> Terms:
    """What the audit is to do: `{attacks: [loss], seeds: [0, 1, 2], relearn: {max_epochs: 20}, examples: 0}`."""
    keys, problems = ("attacks", "seeds", "relearn", "examples", "generation"), list[str]()
    with collecting(problems):
        _known(config, keys)
    given = {key: config[key] for key in keys if config.get(key) is not None}
    with collecting(problems):
        if isinstance(given.get("seeds"), str):
            given["seeds"] = parse_seeds(given.pop("seeds"))
    for key, value in given.items():  # each alone first, so that none hides another's problem
        with collecting(problems):
            make_terms(**{key: value})
    raise_if(problems)
    return make_terms(**given)


def given_models(config: Config) -> dict[str, list[Path]]:
    """The weights of models that exist, by the name of their row: `{original: a.safetensors, mine: [b, c]}`."""
    found = {}
    for row, paths in config.items():
        some = paths if isinstance(paths, (list, tuple)) else [paths]
        if not some or not all(isinstance(p, (str, Path)) for p in some):
            raise ExpungeError(f"{row} must name a file of weights, or a list of them; got {paths!r}.")
        found[str(row)] = [Path(p).expanduser() for p in some]
    return found


@contextmanager
def collecting(problems: list[str], where: str = "") -> Iterator[None]:
    """Add what goes wrong inside the block to `problems`, with the place in front."""
    try:
        yield
    except Problems as error:
        problems += [_placed(where, p) for p in error.problems]
    except (TypeError, ValueError) as error:  # an ExpungeError is a ValueError; a value of a wrong type raises others
        problems.append(_placed(where, str(error)))


def _placed(where: str, problem: str) -> str:
    return problem if not where or problem.startswith(where) else f"{where}: {problem}"


def _free(row: str, taken: Mapping[str, object]) -> str:
    """The name of a row, with a number after it where it is taken."""
    if row in (ORIGINAL, RETRAIN, AGAIN):
        raise ExpungeError(f"{row} is the name of a row that is always there; choose another one.")
    return next(name for n in range(1, len(taken) + 2) if (name := row if n == 1 else f"{row} {n}") not in taken)


def _described(model: Config) -> dict[str, Any]:
    return {k: v for k, v in model.items() if k != "weights"} or {"name": "convnet"}


def _known(config: Config, known: Sequence[str]) -> None:
    raise_if([str(UnknownName("setting", key, known)) for key in config if key not in known])


def _listing(names: Sequence[str]) -> str:
    return " and ".join(names) or "none of them"
