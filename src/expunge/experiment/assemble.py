"""From a YAML file to an `Experiment`; everything wrong with it is told at once, before any compute."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from expunge import io
from expunge.artifact.ledger import Settings
from expunge.artifact.ledger.ahead import request_problems, touches_all
from expunge.audit.generation.fit import generation_problems
from expunge.audit.lineup import ORIGINAL, Terms
from expunge.data.rows import Rows
from expunge.data.unseen import check_unseen
from expunge.errors import ExpungeError, near, raise_if
from expunge.experiment import parts
from expunge.experiment.parts import collecting
from expunge.experiment.text import changed, parse_file
from expunge.gone import Record, judged_after, record
from expunge.method import Method
from expunge.recipe import OwnRecipe, Recipe, TrainedBy
from expunge.request import GONE, Request
from expunge.run import Run
from expunge.unlearning import default_task

# every setting of a file, with an example of its value
SETTINGS = {
    "model": "{name: lenet}",
    "data": "{name: digits}",
    "request": "{classes: [3]}",
    "recipe": "{epochs: 10, lr: 0.05}",
    "methods": "[{name: finetune}]",
    "models": "{original: original.safetensors, mine: mine.safetensors}",
    "audit": "{seeds: 3}",
    "import": "[my_project.methods]",
    "device": "cuda",
    "out": "runs/mnist-3",
}


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
        out: the folder to write to.
        given: files of models that exist, by the name of their row.
        held: rows never trained on that methods may choose by; none of them is in `unseen`.
    """

    config: dict[str, Any]
    train: Rows
    unseen: Rows
    request: Request
    recipe: TrainedBy | None
    methods: dict[str, Method]
    terms: Terms
    out: Path
    given: dict[str, list[Path]] = field(default_factory=dict)
    held: Rows | None = None

    @property
    def weights(self) -> Path | None:
        """The weights of the original, where the file names some."""
        return _weights(self.config)

    @property
    def device(self) -> str | None:
        """Where to compute; none for the CPU."""
        return self.config.get("device")

    @property
    def ledger(self) -> Settings | None:
        """How the training of originals is recorded; none when it is not."""
        return Settings.of(self.recipe.ledger) if isinstance(self.recipe, Recipe) and self.weights is None else None

    def blank(self) -> nn.Module | None:
        """An untrained model as the file describes it; none where only the user's own recipe knows the model."""
        config = self.config.get("model")
        if config is None and isinstance(self.recipe, OwnRecipe):
            return None
        with Run().isolated():
            return parts.build_model(config or {}, self.train)

    def load(self, path: Path) -> tuple[nn.Module, dict[str, Any]]:
        """A model with the weights in a file, and what the file says about them.

        Raises:
            ExpungeError: the file does not say how the model is built, or the weights do not fit.
        """
        model = self.blank()
        if model is None:
            raise ExpungeError(f"to read {path}, give the model it is for: model: {SETTINGS['model']}.")
        about = io.load_weights(path, model)
        return model.eval(), about


def read(
    path: str | Path, changes: Sequence[str] = (), seeds: Sequence[int] | None = None, out: Path | None = None
) -> Experiment:
    """The experiment in a YAML file.

    Args:
        path: the file.
        changes: settings to replace, such as `methods.0.epochs=5`.
        seeds: to use in place of the file's.
        out: folder to use in place of the file's.

    Raises:
        ExpungeError: everything that is wrong, at once.
    """
    config = parse_file(Path(path))
    for change in changes:
        config = changed(config, change)
    if seeds is not None:
        config["audit"] = {**_section(config, "audit"), "seeds": list(seeds)}
    if out is not None:
        config["out"] = str(out)
    for folder in (str(Path(path).resolve().parent), os.getcwd()):  # a user's own modules lie beside the file
        if folder not in sys.path:
            sys.path.insert(0, folder)
    return from_dict(config)


def from_dict(config: Mapping[str, Any]) -> Experiment:
    """The experiment in plain data; see `read`."""
    config = {key: value for key, value in config.items() if value is not None}
    base = [  # what is wrong with that by which the rest is judged
        f"There is no setting {key!r}.{near(key, SETTINGS)} The settings are {', '.join(SETTINGS)}."
        for key in config
        if key not in SETTINGS
    ]
    problems: list[str] = []
    rows: tuple[Rows, Rows] | None = None
    held: Rows | None = None
    request: Request | None = None
    recipe: TrainedBy | None = None
    terms, given, out = Terms(seeds=(0,)), dict[str, list[Path]](), Path()
    fitting: Experiment | None = None
    with collecting(problems, "import"):
        parts.import_modules(config.get("import", []))
    with collecting(problems, "device"):
        parts.check_device(config.get("device", "cpu"))
    with collecting(problems, "data"):
        section = _section(config, "data", needed=True)
        train, unseen = parts.load_data(section)
        check_unseen(unseen, train)
        unseen, held = parts.set_aside(section, unseen)
        rows = train, unseen
    with collecting(problems, "request"):
        asked = _section(config, "request", needed=True)
        parts.check_request(asked)
        if rows is not None:
            request = parts.make_request(rows[0], asked)
    with collecting(base, "model"):
        _check_model(config)
    if "recipe" in config:
        with collecting(base, "recipe"):
            model = config.get("model")
            recipe = parts.make_recipe(_section(config, "recipe"), model if isinstance(model, Mapping) else {})
    placed = parts.name_methods(config.get("methods", []), problems)
    places = {row: place for row, (place, _) in placed.items()}
    methods = {row: method for row, (_, method) in placed.items()}
    with collecting(problems, "audit"):
        terms = parts.audit_terms(_section(config, "audit"))
    with collecting(problems, "models"):
        given = parts.given_models(_section(config, "models"))
    with collecting(problems, "out"):
        out = _folder(config.get("out", "runs/expunge"))
    if recipe is None and not {"recipe", "models"} & set(config) and _weights(config) is None:
        problems.append("recipe: needed to train the original; or give its weights, model: {weights: a.safetensors}.")
    if rows is not None and request is not None and not base:
        with collecting(problems):
            whole = Experiment(config, *rows, request, recipe, methods, terms, out, given, held)
            fitting = _fitting(whole, places)
    raise_if(list(dict.fromkeys(base + problems)))
    if fitting is None:  # cannot be: what is missing would have left a problem
        raise ExpungeError("data and request are needed.")
    return fitting


def _fitting(experiment: Experiment, places: Mapping[str, str]) -> Experiment:
    """The experiment, if its parts work together; rows that the original forgot earlier count as gone in it.

    Args:
        experiment: with data, request, model, recipe and methods that are sound each by itself.
        places: where in the file the method of each row is.

    Raises:
        ExpungeError: whatever does not fit, at once.
    """
    problems: list[str] = []
    model: nn.Module | None = None
    with collecting(problems, "model"):
        model = experiment.blank()
    if isinstance(experiment.recipe, Recipe):
        with collecting(problems, "recipe"):
            experiment.recipe.grouping(experiment.train)
    files = {f"models.{row}": paths for row, paths in experiment.given.items()}
    if experiment.weights is not None:
        files["model.weights"] = [experiment.weights]
    request, records = experiment.request, dict[str, list[Record]]()
    for where, paths in files.items() if not problems else ():
        for path in paths:
            with collecting(problems, where):
                records.setdefault(where, []).append(record(experiment.load(path)[0]))
    originals = [one for where in ("model.weights", f"models.{ORIGINAL}") for one in records.pop(where, ())]
    with collecting(problems):
        request = judged_after(request, originals, records)
    if model is not None:
        task = default_task(request, model, experiment.recipe)
        problems += [f"model: {problem}" for problem in task.problems(model, experiment.train)]
        if isinstance(experiment.recipe, Recipe) and experiment.ledger is not None:
            told = experiment.recipe.ledger_problems(experiment.train, model)
            problems += [f"recipe: ledger: {problem}" for problem in told]
        problems += [f"audit: {problem}" for problem in generation_problems(experiment.terms.generation, task, request)]
        ledger, asked = experiment.ledger, request.rows.ids[request.forget.numpy()]
        has = {"recipe": experiment.recipe, "ledger": ledger, "unseen": experiment.held}
        given = {name: there for name, there in has.items() if there is not None}
        within = {row: method.within for row, method in experiment.methods.items()}
        subtracting = [row for row, ms in within.items() if any(getattr(m, "allow_full", None) is False for m in ms)]
        whole: list[str] = []
        with collecting(problems, "recipe"):  # rows that cannot be grouped, as above
            whole = _whole(experiment) if subtracting else []
        for row, method in experiment.methods.items():
            told = method.problems(model, request, task, given)
            if ledger is not None:
                told += method.ledger_problems(ledger)
                told += request_problems(ledger, asked) if any("ledger" in m.card.needs for m in within[row]) else []
            if row in subtracting:
                told += whole
            problems += [f"{places[row]} ({row}): {problem}" for problem in told]
    raise_if(list(dict.fromkeys(problems)))
    return Experiment(**{**vars(experiment), "request": request})


def _whole(experiment: Experiment) -> list[str]:
    """That the training shows rows that must go in every step, so that what subtracts steps would refuse."""
    request, recipe, ledger, seed = experiment.request, experiment.recipe, experiment.ledger, experiment.terms.seeds[0]
    if not isinstance(recipe, Recipe) or ledger is None or ledger.record == "sample":
        return []
    there = (request.state != GONE).nonzero().flatten()
    if not touches_all(recipe.phase(request.rows), there, request.forget, Run(seed=seed)):
        return []
    return [
        f"Every step of the training (seed {seed}) shows some of the {len(request.forget):,} rows that must go, so "
        "that subtracting them would leave nothing. Keep rows together in few batches, recipe: {together: class}, "
        "retrain, or set allow_full."
    ]


def _check_model(config: Mapping[str, Any]) -> None:
    model = _section(config, "model")
    own_training = isinstance(config.get("recipe"), Mapping) and "train" in config["recipe"]
    if model or not own_training:
        parts.check_model(model)


def _section(config: Mapping[str, Any], key: str, needed: bool = False) -> Mapping[str, Any]:
    value = config.get(key, None if needed else {})
    if not isinstance(value, Mapping):
        got = "" if value is None else f"; got {value!r}"
        raise ExpungeError(f"{key}: needed, as settings such as {key}: {SETTINGS[key]}{got}.")
    return value


def _weights(config: Mapping[str, Any]) -> Path | None:
    model = config.get("model")
    path = model.get("weights") if isinstance(model, Mapping) else None
    return Path(path).expanduser() if path else None


def _folder(path: Any) -> Path:
    if not isinstance(path, (str, Path)):
        raise ExpungeError(f"give a folder, e.g. out: {SETTINGS['out']}; got {path!r}.")
    return Path(path).expanduser()
