"""The judges: models and a request in, measurements with intervals and verdicts out.

The package can be called, `expunge.audit(models, request, ...)`: that is `expunge.dossier.audit`, which adds the report
to what the judges in here find. Nothing in here imports methods or reports.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return import_module("expunge.dossier").audit(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:  # for help() and editors
        return inspect.signature(import_module("expunge.dossier").audit)


sys.modules[__name__].__class__ = _Callable
