"""How images are drawn and judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from expunge.errors import ExpungeError, UnknownName, raise_if
from expunge.recipe import Recipe

# a small network; how often it is right on unseen rows stands in the notes of every audit
CLASSIFIER = {"model": {"name": "resnet9", "width": 16}, "epochs": 3, "lr": 0.1}


@dataclass(frozen=True)
class Generation:
    """How the images of a denoiser are drawn and judged.

    Args:
        samples: images of each class, 2 or more. Default 100.
        steps: DDIM steps of an image. Default 30.
        guidance: w of guided predictions. Default: the task's, 2.
        eta: 0 (default) for deterministic DDIM, 1 for as much new noise as DDPM draws.
        seed: of the noise that images begin with, the same for every model. Default 0.
        batch_size: images drawn at a time. Default 250.
        real: rows that FID compares with at most. Default 10000.
        classifier: what looks at the images: a trained module, or the fields of a `Recipe` to train one by on the
            training rows. Default: resnet9 of width 16, 3 epochs.
    """

    samples: int = 100
    steps: int = 30
    guidance: float | None = None
    eta: float = 0.0
    seed: int = 0
    batch_size: int = 250
    real: int = 10_000
    classifier: Any = None

    def __post_init__(self) -> None:
        found = []
        for name, least in (("samples", 2), ("steps", 1), ("seed", 0), ("batch_size", 1), ("real", 2)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                found.append(f"generation.{name} must be a whole number, {least} or more; got {value!r}.")
        for name, number in (("guidance", self.guidance), ("eta", self.eta)):
            if number is not None and not (isinstance(number, (int, float)) and 0 <= number < float("inf")):
                found.append(f"generation.{name} must be 0 or more; got {number!r}.")
        if isinstance(self.classifier, Mapping):
            known = Recipe.__dataclass_fields__
            raise_if([str(UnknownName("field of a recipe", k, known)) for k in self.classifier if k not in known])
            Recipe(**self.classifier)
        elif not (self.classifier is None or isinstance(self.classifier, (nn.Module, Recipe))):
            found.append(f"generation.classifier is a module or the fields of a recipe; got {self.classifier!r}.")
        raise_if(found)

    @classmethod
    def of(cls, given: Generation | Mapping[str, Any] | None) -> Generation:
        """Settings out of plain data.

        Raises:
            ExpungeError: settings that there are not, and values out of range.
        """
        if isinstance(given, Generation):
            return given
        if not isinstance(given, Mapping | None):
            raise ExpungeError(f"generation must be settings such as {{samples: 200}}; got {given!r}.")
        raise_if([str(UnknownName("setting of generation", k, FIELDS)) for k in given or {} if k not in FIELDS])
        return cls(**(given or {}))

    @property
    def recipe(self) -> Recipe:
        """How the classifier is trained, where none is given."""
        return self.classifier if isinstance(self.classifier, Recipe) else Recipe(**(self.classifier or CLASSIFIER))


FIELDS = tuple(Generation.__dataclass_fields__)
