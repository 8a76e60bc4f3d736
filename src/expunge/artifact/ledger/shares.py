"""Shares: gradients of a step as a whole or row by row, and how far each reaches through the optimiser's memory."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from expunge.artifact.ledger.ids import plain, spelled
from expunge.artifact.ledger.settings import Settings
from expunge.errors import ExpungeError


class Shares:
    """What the gradients of one step are made of.

    Args:
        optimizer: `SGD` (without Nesterov and dampening), `Adam` or `AdamW` where gradients are recorded.
        layers: the recorded parameters.
        settings: of the ledger.

    Raises:
        ExpungeError: an optimiser whose later use of a gradient is not known.
    """

    def __init__(self, optimizer: Optimizer, layers: Sequence[nn.Parameter], settings: Settings) -> None:
        self.optimizer, self.layers, self.settings = optimizer, list(layers), settings
        self.held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self.sensitive = None if settings.sensitive is None else spelled(plain(settings.sensitive))
        self.rows: list[Hashable] = []
        self.gradients: list[Tensor] = []
        self.pull = [torch.zeros_like(p) for p in layers] if not settings.decay else []
        if settings.record != "update" or not settings.decay:
            self._check()

    def _check(self) -> None:
        known = (SGD, Adam, AdamW)
        groups = self.optimizer.param_groups
        first = _rates(self.optimizer, groups[0])
        purpose = "decay: false" if self.settings.record == "update" else f"record: {self.settings.record}"
        if not isinstance(self.optimizer, known) or any(_rates(self.optimizer, g) != first for g in groups):
            raise ExpungeError(
                f"{purpose} needs SGD, Adam or AdamW with the same settings for all parameters; this is "
                f"{type(self.optimizer).__name__} with {len(groups)} groups. Record updates instead."
            )
        odd = [n for n in ("nesterov", "dampening", "maximize", "amsgrad") if groups[0].get(n)]
        coupled = isinstance(self.optimizer, Adam) and not isinstance(self.optimizer, AdamW)
        if odd:
            raise ExpungeError(f"{purpose} does not know an optimiser with {', '.join(odd)}. Record updates instead.")
        if coupled and groups[0]["weight_decay"]:
            raise ExpungeError(
                f"{purpose} cannot tell Adam's weight decay from gradients, as both are scaled together. "
                "Use AdamW, set weight_decay=0, or record updates."
            )

    def _moving(self, p: nn.Parameter) -> Tensor | None:
        """The gradient that the step moves a layer by; one that the optimiser does not hold may have an old one."""
        return p.grad if id(p) in self.held else None

    def whole(self) -> None:
        """Take the gradients of the step as they stand."""
        gradients = [self._moving(p) for p in self.layers]
        self.gradients = [torch.zeros_like(p) if g is None else g.clone() for g, p in zip(gradients, self.layers)]

    def take(self, ids: Sequence[Hashable], losses: Tensor | None) -> None:
        """Take each sensitive row's own gradient out of the graph of its loss, which stays usable.

        Args:
            ids: of the batch's rows.
            losses: what each row adds to the loss that is about to be differentiated, (B,).
        """
        fit = isinstance(losses, Tensor) and losses.shape == (len(ids),) and losses.grad_fn is not None
        if losses is None or not fit:
            shape = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
            got = "none" if losses is None else shape
            raise ExpungeError(
                "record: sample needs what each row adds to the step's loss, before backward: "
                f"ledger.uses(ids, losses=losses_B / len(losses_B)); got {got} for {len(ids)} ids."
            )
        chosen = [i for i, row in enumerate(ids) if self.sensitive is None or row in self.sensitive]
        learning = [p for p in self.layers if p.requires_grad]  # the others are frozen, now or for good
        if not learning:
            raise ExpungeError(
                "No recorded layer requires a gradient any more, so the next step would record nothing; are the layers "
                "not all frozen? Close the ledger where they are."
            )
        taken: list[Tensor] = []
        for i in chosen:  # one backward pass each; exact with BatchNorm as well, where rows cannot be told apart
            try:
                found = iter(torch.autograd.grad(losses[i], learning, retain_graph=True, allow_unused=True))
            except RuntimeError as error:  # the graph is gone after backward
                raise ExpungeError(
                    f"The rows' own gradients cannot be computed from their losses: {error} Call ledger.uses(ids, "
                    "losses) before loss.backward()."
                ) from error
            gradients = [next(found) if p.requires_grad else None for p in self.layers]
            taken += [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, self.layers)]
        self.rows += [ids[i] for i in chosen]
        self.gradients += taken

    def release(self) -> tuple[tuple[Hashable, ...], list[Tensor]]:
        """Rows and gradients of the step that was just taken; with Adam, as its step scaled them."""
        rows, gradients = tuple(self.rows), self.gradients
        self.rows, self.gradients = [], []
        if not isinstance(self.optimizer, SGD):
            scales = [self._scale(p) for p in self.layers]
            gradients = [g * scales[i % len(scales)] for i, g in enumerate(gradients)]
        return rows, gradients

    def drop(self) -> None:
        """Forget what was taken for a step that was not."""
        self.rows, self.gradients = [], []

    def _scale(self, p: nn.Parameter) -> Tensor | float:
        """What Adam multiplies a gradient with: one over the root of its mean square."""
        state, group = self.optimizer.state.get(p), self.optimizer.param_groups[0]
        if not state:
            return 0.0
        correction = 1 - group["betas"][1] ** float(state["step"])
        scale: Tensor = 1 / ((state["exp_avg_sq"] / correction).sqrt() + group["eps"])
        return scale

    def rates(self) -> dict[str, Any]:
        """What must be known of this step to follow a gradient through it; `still` are the layers it passed over."""
        still = [
            str(i) for i, p in enumerate(self.layers) if self._moving(p) is None
        ]  # as text, which outlives a purge
        rates = _rates(self.optimizer, self.optimizer.param_groups[0])
        return {**rates, "still": " ".join(still)} if still else rates

    def without_decay(self, updates: list[Tensor], before: list[Tensor]) -> list[Tensor]:
        """The updates without weight decay's part of them, momentum's memory of it included."""
        rates = self.rates()
        found = []
        for update, pull, weights, p in zip(updates, self.pull, before, self.layers):
            if self._moving(p) is not None:  # others were not touched by the step, and so by no decay
                pull.mul_(rates["momentum"] if rates["kind"] == "sgd" else 0.0).add_(weights, alpha=rates["decay"])
                update = update + rates["lr"] * pull
            found.append(update)
        return found


def _rates(optimizer: Optimizer, group: dict[str, Any]) -> dict[str, Any]:
    adam = "betas" in group
    return {
        "kind": "adam" if adam else "sgd",
        "lr": float(group["lr"]),
        "momentum": float(group["betas"][0] if adam else group.get("momentum", 0)),
        "decay": float(group.get("weight_decay", 0)),
    }


def reach(rates: Sequence[dict[str, Any]]) -> list[float]:
    """How far each step's gradient moved the final weights, as a factor on it: below 0 for descent.

    The other gradients are taken as they were; the factor is then exact for SGD with momentum and weight decay. For
    Adam the scale of each step stands for that of all later ones, an approximation.

    Args:
        rates: of all steps, first to last; an empty mapping for a step that was skipped.

    Source: the recursion v ← μ v + λ θ + g, θ ← θ − η v, followed backwards from the last step.
    """
    factors = [0.0] * len(rates)
    taken = [s for s, r in enumerate(rates) if r]
    on_weights, on_velocity = 1.0, 0.0  # what one unit of either, after this step, adds to the final weights
    for count, s in reversed(list(enumerate(taken, start=1))):
        r = rates[s]
        if r["kind"] == "sgd":
            unit = on_velocity - on_weights * r["lr"]
            factors[s] = unit
            on_weights += r["decay"] * unit
            on_velocity = r["momentum"] * unit
        else:
            unit = on_velocity - on_weights * r["lr"] / (1 - r["momentum"] ** count)
            factors[s] = unit * (1 - r["momentum"])
            on_weights *= 1 - r["lr"] * r["decay"]
            on_velocity = r["momentum"] * unit
    return factors
