"""The methods: one file or folder for each paper; the file's name is the method's name.

The classes are here as well, imported when first used: `expunge.methods.FineTune(epochs=5)`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expunge.methods.amnesiac import Amnesiac as Amnesiac
    from expunge.methods.chain import Chain as Chain
    from expunge.methods.finetune import FineTune as FineTune
    from expunge.methods.gradient import GradientMethod as GradientMethod
    from expunge.methods.gradient_ascent import GradientAscent as GradientAscent
    from expunge.methods.l1_sparse import L1Sparse as L1Sparse
    from expunge.methods.last_layers import LastLayers as LastLayers
    from expunge.methods.neggrad_plus import NegGradPlus as NegGradPlus
    from expunge.methods.original import Original as Original
    from expunge.methods.partial_amnesiac import PartialAmnesiac as PartialAmnesiac
    from expunge.methods.partial_label_flip import PartialLabelFlip as PartialLabelFlip
    from expunge.methods.partial_optimization import PartialOptimization as PartialOptimization
    from expunge.methods.random_label import RandomLabel as RandomLabel
    from expunge.methods.retrain import Retrain as Retrain
    from expunge.methods.svd_forget import SVDForget as SVDForget
    from expunge.methods.unsir import Unsir as Unsir

# a method's name, which is its module's, to its class
BUILT_IN = {
    "original": "Original",
    "retrain": "Retrain",
    "finetune": "FineTune",
    "gradient_ascent": "GradientAscent",
    "neggrad_plus": "NegGradPlus",
    "random_label": "RandomLabel",
    "l1_sparse": "L1Sparse",
    "last_layers": "LastLayers",
    "amnesiac": "Amnesiac",
    "partial_amnesiac": "PartialAmnesiac",
    "partial_label_flip": "PartialLabelFlip",
    "partial_optimization": "PartialOptimization",
    "svd_forget": "SVDForget",
    "unsir": "Unsir",
    "chain": "Chain",
}
_MODULE_OF = {"GradientMethod": "gradient"} | {cls: module for module, cls in BUILT_IN.items()}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"expunge.methods.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'expunge.methods' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_MODULE_OF)
