"""Do gates explain a class? Their maps beside other explainers', as pictures and as scores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from expunge import explain
from expunge.artifact.gates.gated import Gated
from expunge.data.rows import Rows
from expunge.explain.look import Explainer

IMAGES, PICTURES, STEPS = 40, 4, 12
PLACES = 4  # of a side of the coarse control: maps of layers are coarse, too


def explained(gated: Gated, unseen: Rows, classes: Sequence[int]) -> dict[str, Any]:
    """What speaks for these classes in unseen images of them, by the gates and by others; the model has no gates then.

    Args:
        gated: with gates that were learned.
        unseen: rows never trained on.
        classes: those that are forgotten.

    Returns:
        Plain data: ``scores``, a row of insertion and deletion for each explainer as `explain.compare` has it, and
        ``pictures`` of some images as `explain.pictures` has them. Empty without images of these classes.

    Cost: of 40 images, the explainers, and 26 forward passes for each of them.
    """
    there = torch.isin(unseen.y, torch.tensor(classes, dtype=torch.long)).nonzero().flatten()
    if len(unseen.shape) != 3 or not len(there):
        return {}
    index = there[torch.linspace(0, len(there) - 1, min(IMAGES, len(there))).long()]
    x_BCHW, y_B = unseen.x(index), unseen.y[index]
    ways: dict[str, Explainer] = {
        "gates": explain.gate_maps(gated.closed(unseen.num_classes)),
        "grad_cam": explain.grad_cam,
        "integrated_gradients": explain.integrated_gradients,
        "chance": explain.chance,
        "chance, coarse": partial(explain.chance, side=PLACES),
    }
    scores = explain.compare(gated.frozen, x_BCHW, y_B, ways, steps=STEPS)
    sound = [row["explainer"] for row in scores if "failed" not in row]
    few = slice(0, PICTURES)
    maps = {name: ways[name](gated.frozen, x_BCHW[few], y_B[few]) for name in sound}
    return {"scores": scores, "pictures": explain.pictures(x_BCHW[few], maps) if sound else []}
