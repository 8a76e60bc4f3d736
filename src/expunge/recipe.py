"""Recipe: how the model was trained. Retraining, the exact reference, is the recipe run without the forgotten rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, MappingView
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from expunge.artifact import Store
from expunge.artifact.ledger import Ledger, Recording, Settings
from expunge.artifact.ledger.ahead import sensitive_problems, training_problems
from expunge.batching import describe_together, groups_of, together_problems
from expunge.data.adapt import as_rows
from expunge.data.augment import check_augment
from expunge.data.rows import Rows
from expunge.descend import Checkpoint, Log, descend
from expunge.errors import ExpungeError, collected, raise_if
from expunge.fields import Named
from expunge.io import index_digest
from expunge.optimizers import Make
from expunge.phase import Phase, Schedule, Term, descent_problems
from expunge.run import Precision, Run
from expunge.source import call_problem, describe_function
from expunge.task import Classification, Task, is_denoiser, task_of
from expunge.task.diffusion import UNTRAINED, diffusion_problems
from expunge.untrained import Build, blank, model_problems
from expunge.weights import sparse_problems


class TrainedBy(Protocol):
    """What retraining needs of a recipe: `Recipe`, or a user's own function wrapped by `own_recipe`."""

    def train(self, rows: Rows, index: Tensor, run: Run, checkpoint: Checkpoint | None = None) -> tuple[nn.Module, Log]:
        """A model trained on the rows at these positions, and what it took."""
        ...

    def describe(self) -> dict[str, Any]:
        """Everything the outcome depends on besides data and seed, as plain data."""
        ...

    def blank(self, rows: Rows) -> nn.Module | None:
        """An untrained model of the same shape, or none when the recipe cannot make one."""
        ...


@dataclass(frozen=True, kw_only=True)
class Recipe(Named):
    """The standard way to train a classifier; call it: `recipe(train, ids=None, seed=0) -> nn.Module`.

    Args:
        model: a name of `expunge.models`, a mapping `{"name": ..., field: value}`, or a function of the `Rows` that
            returns an untrained module.
        epochs: passes over the data, 0 or more. Default 10.
        lr: the peak rate, above 0. Default 0.05.
        batch_size: rows in a batch at most. Default 128.
        optimizer: `"sgd"` (default), `"adam"`, `"adamw"` or another name of `torch.optim`, such as `"rmsprop"`; or a
            function of the weights that returns one.
        momentum: of SGD, and of others that have it. Default 0.9.
        weight_decay: default 5e-4.
        schedule: `"one_cycle"` (default), `"cosine"` or `"constant"`.
        label_smoothing: from 0 (default) to below 1.
        augment: `"crop"`, `"flip"`, `"crop_flip"`, or none (default).
        precision: `"auto"` (default), `"float32"` or `"bfloat16"`.
        together: rows that share batches, so that few steps touch them: `"class"`, the ids of one group, a mapping from
            id to group, or a CSV file with the columns `id` and `group`. Default none: every batch is a random draw.
        groups_per_batch: about how many groups meet in a batch, 1..`batch_size`; more is closer to random, and touches
            more steps. Default 5, from benchmarks/grouped_batches.py.
        ledger: record what every step does to the weights, so that rows can be taken back by subtraction: settings of
            the ledger, such as `{"keep": 0.1}`. It changes no bit of the training. Default none.
        diffusion: fields of `expunge.Diffusion`, where the model is a denoiser. Default: as they are there.

    The initial weights depend on the seed and not on the rows, so an original and its retraining form a pair.

    Cost: `epochs` passes over the rows, forward and backward.
    """

    model: str | Mapping[str, Any] | Build = "convnet"
    epochs: int = 10
    lr: float = 0.05
    batch_size: int = 128
    optimizer: str | Make = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "one_cycle"
    label_smoothing: float = 0.0
    augment: str | None = None
    precision: Precision = "auto"
    together: str | Path | Mapping[Hashable, Hashable] | Iterable[Hashable] | None = None
    groups_per_batch: int = 5
    ledger: Settings | Mapping[str, Any] | None = None
    diffusion: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.together, (Iterator, MappingView)):  # read once only, or with its mapping
            object.__setattr__(self, "together", tuple(self.together))
        problems = descent_problems(vars(self))
        if not isinstance(self.label_smoothing, (int, float)) or not 0 <= self.label_smoothing < 1:
            problems.append(f"label_smoothing must be from 0 to below 1; got {self.label_smoothing!r}.")
        problems += model_problems(self.model)
        if self.precision not in ("auto", "float32", "bfloat16"):
            problems.append(f"precision must be auto, float32 or bfloat16; got {self.precision!r}.")
        if self.augment is not None:
            with collected(problems):
                check_augment(self.augment)
        with collected(problems, "ledger: "):
            object.__setattr__(self, "ledger", Settings.of(self.ledger))
        problems += together_problems(self.together, self.groups_per_batch, self.batch_size)
        problems += diffusion_problems(self.diffusion)
        raise_if(problems)

    def __call__(
        self,
        train: Any,
        ids: Iterable[Hashable] | None = None,
        seed: int = 0,
        ledger: Ledger | str | Path | None = None,
    ) -> nn.Module:
        """A model trained on the rows with these ids (default: all), the same bits for the same seed on a CPU.

        Args:
            train: the training set: `Rows`, a dataset, or a pair (x, y).
            ids: of the rows to train on, in any order; one that is named twice counts once.
            seed: of the initial weights and the order of rows.
            ledger: the ledger to record in, or its folder. Default: in the cache, when the recipe has a ledger;
                `expunge.unlearn` finds it there by itself.
        """
        rows = as_rows(train)
        index, run = _positions(rows, ids), Run(seed=seed)
        if ledger is None and self.ledger is not None:
            ledger = ledger_folder(self, rows, index, run, Store())
        if isinstance(ledger, (str, Path)):
            ledger = self.open_ledger(ledger, rows, index, run)
        return self.train(rows, index, run, ledger=ledger)[0]

    def open_ledger(self, folder: str | Path, rows: Rows, index: Tensor, run: Run) -> Ledger:
        """The ledger of such a training in a folder, whether anything is recorded yet or not."""
        settings = Settings.of(self.ledger)
        given = {} if settings is None else settings.plain()
        return Ledger(folder, data=rows.hash, recipe=training_key(self, rows, index, run), **given)

    def train(
        self,
        rows: Rows,
        index: Tensor,
        run: Run,
        checkpoint: Checkpoint | None = None,
        ledger: Ledger | None = None,
    ) -> tuple[nn.Module, Log]:
        """A model trained on the rows at these positions, in eval mode, and what it took; in a ledger where given."""
        with run.isolated():
            model = self.blank(rows)
        task = self.task(rows, model)
        problems = task.problems(model, rows) + sparse_problems(model)
        raise_if(problems + (sensitive_problems(ledger.settings, rows) if ledger is not None else []))
        run = self.circumstances(run)
        parts, phases = {"train": index}, [self.phase(rows)]
        if ledger is None or ledger.deletions:  # which recording the same training anew would lose
            log = descend(model, rows, parts, task, phases, run, None, checkpoint)
            if ledger is not None:
                ledger.check(model)
        else:
            with ledger:
                recording = Recording(ledger, rows, index, checkpoint)
                log = descend(model, rows, parts, task, phases, run, None, recording, recording)
        if ledger is not None:
            model._expunge_ledger = str(ledger.path)  # type: ignore[assignment]
        model.eval()
        return model, log

    def ledger_problems(self, rows: Rows, model: nn.Module) -> list[str]:
        """Why the ledger that this recipe asks for could not record such a training, a sentence each."""
        settings, make = Settings.of(self.ledger), Phase.of(self, terms=(Term("train"),)).make_optimizer
        return [] if settings is None else training_problems(settings, model, make, rows)

    def phase(self, rows: Rows) -> Phase:
        """The training as the one phase that it is, on the part `"train"`."""
        return replace(Phase.of(self, terms=(Term("train"),)), groups=self.grouping(rows))

    def grouping(self, rows: Rows) -> Tensor | None:
        """The group of each row, (number of rows,) int64, -1 for none; nothing when batches are random draws."""
        return None if self.together is None else groups_of(self.together, rows)

    def task(self, rows: Rows, model: nn.Module | None = None) -> Task:
        """What the model computes while it is trained, label smoothing included."""
        if is_denoiser(model):
            return task_of(model, rows, diffusion=self.diffusion)
        return Classification(classes=rows.num_classes, label_smoothing=self.label_smoothing)

    def circumstances(self, run: Run) -> Run:
        """The run with this recipe's augmentation and precision, where it says nothing of its own."""
        precision = self.precision if run.precision == "auto" else run.precision
        return replace(run, augment=run.augment or self.augment, precision=precision)

    def blank(self, rows: Rows) -> nn.Module:
        """An untrained model that fits the rows; draws from the global random state."""
        return blank(self.model, rows)

    def describe(self) -> dict[str, Any]:
        """All fields that matter as plain data; a function is told by its name and a digest of its source."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if callable(self.model):
            fields["model"] = describe_function(self.model)
        if callable(self.optimizer):
            fields["optimizer"] = describe_function(self.optimizer)
        del fields["ledger"]  # the weights do not depend on it
        if self.diffusion is None:
            del fields["diffusion"]
        if self.together is None:
            del fields["together"], fields["groups_per_batch"]
        else:
            fields["together"] = describe_together(self.together)
        return {"kind": "standard", "version": 1, **fields}


@dataclass(frozen=True)
class OwnRecipe:
    """A user's own training function as a recipe; see `own_recipe`."""

    function: Callable[[Rows, Any, int], nn.Module]

    def __post_init__(self) -> None:
        given: object = self.function
        module = f"got a module, {type(given).__name__}" if isinstance(given, nn.Module) else ""
        if wrong := module or call_problem(given, "dataset", "ids", "seed"):
            raise ExpungeError(f"A recipe is an expunge.Recipe or a function (dataset, ids, seed) -> model; {wrong}.")

    def __call__(self, train: Any, ids: Iterable[Hashable] | None = None, seed: int = 0) -> nn.Module:
        """The model that the function trains on the rows with these ids (default: all)."""
        rows = as_rows(train)
        return self.train(rows, _positions(rows, ids), Run(seed=seed))[0]

    def train(self, rows: Rows, index: Tensor, run: Run, checkpoint: Checkpoint | None = None) -> tuple[nn.Module, Log]:
        """The model that the function trains on the rows at these positions."""
        began = time.perf_counter()
        with run.isolated():
            model = self.function(rows, rows.ids[index.numpy()], run.seed)
        if not isinstance(model, nn.Module):
            raise ExpungeError(f"The recipe must return a torch.nn.Module; it returned {type(model).__name__}.")
        model.eval()
        return model, Log(seconds=time.perf_counter() - began)

    def describe(self) -> dict[str, Any]:
        """The function's name and a digest of its source."""
        return {"kind": "own", "function": describe_function(self.function)}

    def blank(self, rows: Rows) -> nn.Module | None:
        """None: only the function knows how its model is built."""
        return None


def own_recipe(function: Callable[[Rows, Any, int], nn.Module]) -> OwnRecipe:
    """A recipe from a function `(dataset, ids, seed) -> model`.

    The dataset is a `Rows` (a map-style PyTorch dataset), `ids` an array of the ids to train on:
    `dataset.take(dataset.positions(ids))` is the part to train on.

    Raises:
        ExpungeError: anything that cannot be called so.
    """
    return OwnRecipe(function)


def as_recipe(recipe: Any) -> TrainedBy:
    """A recipe from a recipe or a function `(dataset, ids, seed) -> model`.

    Raises:
        ExpungeError: anything else.
    """
    return recipe if isinstance(recipe, (Recipe, OwnRecipe)) else OwnRecipe(recipe)


def _positions(rows: Rows, ids: Iterable[Hashable] | None) -> Tensor:
    """Which rows these are, in the order of the data; all without ids."""
    return torch.arange(len(rows)) if ids is None else rows.positions(ids).unique()


def training_key(recipe: TrainedBy, rows: Rows, index: Tensor, run: Run) -> dict[str, Any]:
    """Everything that the model trained on these positions depends on, as plain data."""
    part = index_digest(index.sort().values)
    told = recipe.describe()
    noising = {k: v for k, v in (told.pop("diffusion", None) or {}).items() if k not in UNTRAINED}
    told |= {"diffusion": noising} if noising else {}
    where = {"device": torch.device(run.device or "cpu").type, "precision": run.precision}
    if isinstance(recipe, Recipe):  # a run may say the same once more, or override it
        where["precision"] = "auto" if run.precision == recipe.precision else run.precision
        where |= {} if run.augment in (None, recipe.augment) else {"augment": run.augment}
    return {"data": rows.hash, "part": part, "recipe": told, "seed": run.seed, **where}


def ledger_folder(recipe: Recipe, rows: Rows, index: Tensor, run: Run, store: Store) -> Path:
    """Where in a store the ledger of such a training lies."""
    settings = Settings.of(recipe.ledger)
    about = None if settings is None else settings.plain()
    return store.folder({**training_key(recipe, rows, index, run), "ledger": about})
