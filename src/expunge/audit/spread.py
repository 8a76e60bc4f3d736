"""Spread: how far apart two retrainings are, and so how small a difference can be seen at all.

Every number that a verdict rests on is a mean over fixed examples of something each example contributes, such as
being answered wrongly. Retrainings with several seeds show how each contribution varies, and how their mean does.

Shapes: S retrainings, M models of a method, N examples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

Array = NDArray[np.float64]

# How many degrees of freedom the spread of single examples is worth beside that of whole retrainings. Few retrainings
# make a poor estimate of their spread (three leave two degrees of freedom); many examples make a good one of their
# own, which misses only what moves all examples together. Calibrated on digits, see tests/audit/test_calibration.py.
PRIOR = 2.0
LEVEL = 0.95  # of all tests together


@dataclass(frozen=True)
class Difference:
    """A method's mean minus retraining's, with its interval.

    Args:
        value: the difference, in the metric's unit.
        half: half the width of the interval, from the spread of both; none where no spread is known, or seen.
        visible: the smallest difference that would not pass for retraining, whose spread alone counts here; or the
            tolerance if larger.
    """

    value: float
    half: float | None
    visible: float

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """The ends of the interval."""
        return (None, None) if self.half is None else (self.value - self.half, self.value + self.half)

    @property
    def seen(self) -> bool:
        """Whether the difference is more than another retraining would show."""
        return abs(self.value) > self.visible


def spread(contributions_SN: Array) -> float | None:
    """The standard deviation of the mean contribution between retrainings.

    The variance between the S means (S - 1 degrees of freedom) is raised towards the one that would come about if
    examples varied independently of each other, which counts as `PRIOR` degrees of freedom; it is never lowered, as
    examples also vary together. One run alone has none, and so has the one distance between two.

    Args:
        contributions_SN: (S, N).

    Source: variance shrinkage after Smyth 2004 (moderated t), with the examples' own variance as the prior.
    """
    runs, n = contributions_SN.shape
    if runs < 2:
        return None
    between = float(contributions_SN.mean(1).var(ddof=1))
    alone = float(contributions_SN.var(axis=0, ddof=1).sum()) / n**2
    return math.sqrt(max(between, ((runs - 1) * between + PRIOR * alone) / (runs - 1 + PRIOR)))


def difference(
    value: float,
    sd: float | None,
    models: int,
    runs: int,
    tolerance: float,
    tests: int,
    own: float | None = None,
) -> Difference:
    """A difference of two means, held against the spread between retrainings.

    Args:
        value: the mean of a method's models minus that of the retrainings, or of the originals.
        sd: the standard deviation between retrainings, see `spread`; without it there is no interval.
        models: how many independent models the method's mean comes from.
        runs: how many retrainings there are.
        tolerance: differences below this have no practical meaning.
        tests: how many metrics are looked at; `LEVEL` is shared among them (Bonferroni).
        own: the standard deviation between the method's models, see `spread`; counted where it is larger than `sd`.
            Default: not known.
    """
    if sd is None:
        return Difference(value, None, tolerance)
    quantile = float(student.ppf(1 - (1 - LEVEL) / (2 * tests), runs - 1 + PRIOR))
    half = quantile * math.sqrt(max(sd, own or 0.0) ** 2 / models + sd**2 / runs)
    return Difference(value, half or None, max(quantile * sd * math.sqrt(1 / models + 1 / runs), tolerance))
