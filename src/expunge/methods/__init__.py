"""The methods: one file or folder for each paper; the file's name is the method's name.

The classes are here as well, imported when first used: `expunge.methods.FineTune(epochs=5)`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expunge.methods.amnesiac import Amnesiac as Amnesiac
    from expunge.methods.bad_teacher import BadTeacher as BadTeacher
    from expunge.methods.boundary_expand import BoundaryExpand as BoundaryExpand
    from expunge.methods.boundary_shrink import BoundaryShrink as BoundaryShrink
    from expunge.methods.chain import Chain as Chain
    from expunge.methods.finetune import FineTune as FineTune
    from expunge.methods.fisher import Fisher as Fisher
    from expunge.methods.gradient import GradientMethod as GradientMethod
    from expunge.methods.gradient_ascent import GradientAscent as GradientAscent
    from expunge.methods.influence import Influence as Influence
    from expunge.methods.l1_sparse import L1Sparse as L1Sparse
    from expunge.methods.last_layers import LastLayers as LastLayers
    from expunge.methods.neggrad_plus import NegGradPlus as NegGradPlus
    from expunge.methods.original import Original as Original
    from expunge.methods.partial_amnesiac import PartialAmnesiac as PartialAmnesiac
    from expunge.methods.partial_label_flip import PartialLabelFlip as PartialLabelFlip
    from expunge.methods.partial_optimization import PartialOptimization as PartialOptimization
    from expunge.methods.random_label import RandomLabel as RandomLabel
    from expunge.methods.retrain import Retrain as Retrain
    from expunge.methods.salun import Salun as Salun
    from expunge.methods.salun_soft import SalunSoft as SalunSoft
    from expunge.methods.scrub import Scrub as Scrub
    from expunge.methods.search import Search as Search
    from expunge.methods.ssd import SSD as SSD
    from expunge.methods.svd_forget import SVDForget as SVDForget
    from expunge.methods.unsir import Unsir as Unsir
    from expunge.methods.weight_filter import WeightFilter as WeightFilter

# a method's name, which is its module's, to its class
BUILT_IN = {
    "original": "Original",
    "retrain": "Retrain",
    "finetune": "FineTune",
    "gradient_ascent": "GradientAscent",
    "neggrad_plus": "NegGradPlus",
    "random_label": "RandomLabel",
    "salun": "Salun",
    "salun_soft": "SalunSoft",
    "l1_sparse": "L1Sparse",
    "last_layers": "LastLayers",
    "amnesiac": "Amnesiac",
    "partial_amnesiac": "PartialAmnesiac",
    "partial_label_flip": "PartialLabelFlip",
    "partial_optimization": "PartialOptimization",
    "svd_forget": "SVDForget",
    "unsir": "Unsir",
    "weight_filter": "WeightFilter",
    "scrub": "Scrub",
    "bad_teacher": "BadTeacher",
    "boundary_shrink": "BoundaryShrink",
    "boundary_expand": "BoundaryExpand",
    "ssd": "SSD",
    "influence": "Influence",
    "fisher": "Fisher",
    "chain": "Chain",
    "search": "Search",
}
_MODULE_OF = {"GradientMethod": "gradient"} | {cls: module for module, cls in BUILT_IN.items()}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"expunge.methods.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'expunge.methods' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_MODULE_OF)
