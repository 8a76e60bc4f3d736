"""Explain: where in an image a model sees a class, and how far such a map can be trusted.

Every explainer is a function ``(model, x_BCHW, classes_B) -> maps_BHW``, whose further settings have defaults. The
model is unchanged afterwards, and so is the global random state.
"""

from __future__ import annotations

from expunge.errors import UnknownName
from expunge.explain.cam import cam
from expunge.explain.chance import chance
from expunge.explain.compare import compare
from expunge.explain.gates import gate_maps
from expunge.explain.grad_cam import default_layer, grad_cam
from expunge.explain.gradients import integrated_gradients, saliency
from expunge.explain.insertion_deletion import Curves, blur, deletion, insertion
from expunge.explain.layers import normalise, upsample
from expunge.explain.look import Explainer
from expunge.explain.pictures import pictures

# What needs nothing but the model. An explanation that was learned joins as a function that holds what was learned:
# `compare(model, x, y, {**EXPLAINERS, "gates": gate_maps(gated.closed(10))})`.
EXPLAINERS: dict[str, Explainer] = {
    "cam": cam,
    "grad_cam": grad_cam,
    "saliency": saliency,
    "integrated_gradients": integrated_gradients,
    "chance": chance,
}

__all__ = [
    "EXPLAINERS",
    "Curves",
    "Explainer",
    "blur",
    "cam",
    "chance",
    "compare",
    "default_layer",
    "deletion",
    "gate_maps",
    "get",
    "grad_cam",
    "insertion",
    "integrated_gradients",
    "normalise",
    "pictures",
    "saliency",
    "upsample",
]


def get(name: str) -> Explainer:
    """The explainer of this name.

    Raises:
        UnknownName: there is none; near names are offered.
    """
    if name not in EXPLAINERS:
        raise UnknownName("explainer", name, EXPLAINERS)
    return EXPLAINERS[name]
