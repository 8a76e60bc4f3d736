"""Pool: the models that a recipe trains on parts of the data, each trained once and kept."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from expunge.artifact import Store, TrainingCheckpoint
from expunge.artifact.ledger import Ledger
from expunge.data.rows import Rows
from expunge.errors import ExpungeError, raise_if
from expunge.io import fit_weights
from expunge.recipe import Recipe, TrainedBy, ledger_folder, training_key
from expunge.run import Run


@dataclass(frozen=True)
class Trained:
    """A trained model and what it took.

    Args:
        model: in eval mode.
        seconds: wall-clock time of its training, on the machine that trained it.
        examples: rows shown, counted each time; 0 when unknown.
        cached: whether it was trained before this process.
    """

    model: nn.Module
    seconds: float
    examples: int
    cached: bool


class Pool:
    """Trains a recipe on parts of the data; the same part and seed is trained once.

    Args:
        recipe: how.
        rows: the whole training data.
        store: where models are kept between processes, and where interrupted trainings go on from. Default: they
            are kept in memory only.
        like: a model of the right shape, for recipes that cannot build one; saved weights are put into a copy. Without
            it such a recipe trains one model before others can be read back.
    """

    def __init__(
        self, recipe: TrainedBy, rows: Rows, store: Store | None = None, like: nn.Module | None = None
    ) -> None:
        self.recipe, self.rows, self.store, self.like = recipe, rows, store, like
        self.memory: dict[str, Trained] = {}

    def key(self, index: Tensor, run: Run) -> dict[str, Any]:
        """Everything that the model trained on these positions depends on."""
        return training_key(self.recipe, self.rows, index, run)

    def train(self, index: Tensor, run: Run) -> Trained:
        """The model trained on the rows at these positions with the run's seed."""
        index = index.sort().values
        key = self.key(index, run)
        if str(key) not in self.memory:
            self.memory[str(key)] = self._kept(key, run) or self._made(key, index, run)
        return self.memory[str(key)]

    def recorded(self, index: Tensor, run: Run) -> tuple[Trained, Ledger]:
        """As `train`, with the ledger of that training, which is made where it is not kept.

        Raises:
            ExpungeError: the recipe has no ledger, or there is no store to keep one in.
        """
        index = index.sort().values
        if not isinstance(self.recipe, Recipe) or self.recipe.ledger is None or self.store is None:
            raise ExpungeError("Only a recipe with a ledger, recipe: {ledger: {keep: 0.1}}, records its training.")
        folder = ledger_folder(self.recipe, self.rows, index, run, self.store)
        ledger = self.recipe.open_ledger(folder, self.rows, index, run)
        key = self.key(index, run)
        kept = self._kept(key, run)
        if kept is None or not ledger.ends_at(kept.model):
            kept = self._made(key, index, run, ledger)
        self.memory[str(key)] = kept
        return kept, ledger

    def _kept(self, key: dict[str, Any], run: Run) -> Trained | None:
        skeleton = self._skeleton()
        entry = self.store.get(key) if self.store is not None and skeleton is not None else None
        if entry is None or skeleton is None:
            return None
        tensors, about = entry
        try:
            fit_weights(skeleton, tensors, "the cached model")
        except ExpungeError:  # the architecture has changed since
            return None
        skeleton.eval().to(run.device or "cpu")
        return Trained(skeleton, float(about["seconds"]), int(about["examples"]), cached=True)

    def _skeleton(self) -> nn.Module | None:
        """A model to put weights into: an untrained one, or a copy of one that is there; none where there is none."""
        if self.like is None:
            with Run().isolated():
                blank = self.recipe.blank(self.rows)
            if blank is not None:
                return blank
        at_hand = (self.like, *(trained.model for trained in self.memory.values()))
        skeleton = copy.deepcopy(next((model for model in at_hand if model is not None), None))
        if skeleton is not None:
            vars(skeleton).pop("_expunge_gone", None)  # what the other model forgot, this one has never seen
        return skeleton

    def _made(self, key: dict[str, Any], index: Tensor, run: Run, ledger: Ledger | None = None) -> Trained:
        if self.store is None:
            model, log = self.recipe.train(self.rows, index, run)
            return Trained(model, log.seconds, log.examples, cached=False)
        raise_if(self.store.problems())
        checkpoint = TrainingCheckpoint(self.store.folder(key) / "unfinished.safetensors")
        if ledger is not None and isinstance(self.recipe, Recipe):
            model, log = self.recipe.train(self.rows, index, run, checkpoint, ledger)
        else:
            model, log = self.recipe.train(self.rows, index, run, checkpoint)
        seconds = log.seconds + checkpoint.spent
        self.store.put(key, model.state_dict(), {"seconds": seconds, "examples": log.examples})
        checkpoint.remove()
        return Trained(model, seconds, log.examples, cached=False)
