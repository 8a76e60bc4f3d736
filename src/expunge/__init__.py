"""Remove chosen training data from a trained PyTorch model, and judge against real retraining whether it is gone.

import expunge as ex

train, test = ex.data.load("digits")
request = ex.Request(train, classes=[3])
result = ex.unlearn(model, request, "finetune")
report = ex.audit({"original": model, "finetune": result.model}, request, unseen=test, recipe=recipe)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> where it lives; imported when first used, so that `expunge --help` does not wait for torch
_WHERE = {
    "Card": "expunge.method",
    "Classification": "expunge.task",
    "Diffusion": "expunge.task",
    "ExpungeError": "expunge.errors",
    "Job": "expunge.method",
    "Ledger": "expunge.artifact.ledger",
    "Method": "expunge.method",
    "Phase": "expunge.phase",
    "Recipe": "expunge.recipe",
    "Region": "expunge.region",
    "Report": "expunge.dossier",
    "Request": "expunge.request",
    "Result": "expunge.method",
    "Rows": "expunge.data",
    "Run": "expunge.run",
    "Term": "expunge.phase",
    "own_recipe": "expunge.recipe",
    "register": "expunge.registry",
    "saliency": "expunge.unlearning",
    "unlearn": "expunge.unlearning",
}
_MODULES = ("audit", "data", "explain", "io", "methods", "models")

__all__ = [
    "Card",
    "Classification",
    "Diffusion",
    "ExpungeError",
    "Job",
    "Ledger",
    "Method",
    "Phase",
    "Recipe",
    "Region",
    "Report",
    "Request",
    "Result",
    "Rows",
    "Run",
    "Term",
    "__version__",
    "audit",
    "data",
    "explain",
    "io",
    "methods",
    "models",
    "own_recipe",
    "register",
    "saliency",
    "unlearn",
]

if TYPE_CHECKING:
    from expunge import data, explain, io, methods, models
    from expunge.artifact.ledger import Ledger
    from expunge.data import Rows
    from expunge.dossier import Report, audit
    from expunge.errors import ExpungeError
    from expunge.method import Card, Job, Method, Result
    from expunge.phase import Phase, Term
    from expunge.recipe import Recipe, own_recipe
    from expunge.region import Region
    from expunge.registry import register
    from expunge.request import Request
    from expunge.run import Run
    from expunge.task import Classification, Diffusion
    from expunge.unlearning import saliency, unlearn


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"expunge.{name}")
    if name in _WHERE:
        value = getattr(importlib.import_module(_WHERE[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'expunge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
