"""Exact retraining: the reference that every other method is measured against."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from expunge.errors import ExpungeError
from expunge.io import fit_weights
from expunge.method import NEEDED, Card, Job, Method


@dataclass(frozen=True, kw_only=True)
class Retrain(Method):
    """Train again from fresh weights on the rows that are kept, by the recipe.

    Cost: the recipe's epochs, over the retain rows; nothing when the store has this model already.
    """

    name: ClassVar[str] = "retrain"
    card: ClassVar[Card] = Card(
        title="Train again from fresh weights without the forgotten rows; exact",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier", "diffusion"}),
        needs=frozenset({"retain", "recipe"}),
        cost="the recipe's epochs over retain",
        paper="–",
    )

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        """A model that has never seen the forgotten rows."""
        if job.pool is None:
            raise ExpungeError(f"{self.name} {NEEDED['recipe']}")
        with job.run.isolated():
            blank = job.pool.recipe.blank(job.request.rows)
        if blank is not None:  # another architecture is told before the training, not after it
            fit_weights(copy.deepcopy(model), blank.state_dict(), "The recipe's model")
        trained = job.pool.train(job.request.keep, job.run)
        job.log.examples += trained.examples
        fit_weights(model, trained.model.state_dict(), "The recipe's model")
        return model
