"""A measured number with its interval, and the intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit
from torch import Tensor

from expunge.errors import ExpungeError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A measured number with its interval, or the reason why there is none.

    Args:
        value: the number, in the unit of its metric. NaN or infinity makes the estimate a failed one.
        low: the lower end of the 95 % interval; None where no interval can be given (e.g. one seed).
        high: the upper end.
        why: the reason of the failure; empty for a number.
        censored: `"at least"` or `"at most"` where counting ended before the number was known; empty for a number.
    """

    value: float
    low: float | None = None
    high: float | None = None
    why: str = ""
    censored: Literal["", "at least", "at most"] = ""

    def __post_init__(self) -> None:
        value = float(self.value)
        if not math.isfinite(value):
            object.__setattr__(self, "why", self.why or f"the value is {value}, not a finite number")
            value = math.nan
        object.__setattr__(self, "value", value)
        for name in ("low", "high"):
            end = getattr(self, name)
            known = end is not None and math.isfinite(end) and not self.why
            object.__setattr__(self, name, float(end) if known else None)

    @classmethod
    def failed(cls, why: str) -> Estimate:
        """An entry that says why there is no number; never a default, never a missing column."""
        return cls(math.nan, why=why)

    @classmethod
    def share(cls, k: int, n: int, scale: float = 1.0) -> Estimate:
        """`scale · k / n` with its Clopper-Pearson interval (`scale=100` for percent); failed when n is 0."""
        if n == 0:
            return cls.failed("there are no examples to count")
        low, high = proportion(k, n)
        return cls(scale * k / n, scale * low, scale * high)

    @classmethod
    def mean(cls, values: Sequence[float] | Array) -> Estimate:
        """The mean with its Student-t interval; without interval for one value, failed for none."""
        values = vector(values, "the values")
        if not len(values):
            return cls.failed("there are no values to average")
        return cls(float(values.mean()), *mean_interval(values))

    @property
    def ok(self) -> bool:
        """Whether there is a number."""
        return not self.why

    def to_json(self) -> dict[str, Any]:
        """`{"value", "low", "high"}`, or `{"failed": why}`; never NaN or infinity, which JSON cannot hold.

        A number that is only a bound has `"censored": "at least"`, or "at most", beside it.
        """
        if not self.ok:
            return {"failed": self.why}
        bound = {"censored": self.censored} if self.censored else {}
        return {"value": self.value, "low": self.low, "high": self.high, **bound}


def proportion(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The Clopper-Pearson interval of a proportion, two-sided; its coverage is never below `level`.

    Args:
        k: successes, 0..n.
        n: trials, at least 1.
        level: confidence level in (0, 1). Default .95.

    Raises:
        ExpungeError: no trials, or more successes than trials.

    Source: Clopper & Pearson, Biometrika 26 (1934).
    """
    if n < 1 or not 0 <= k <= n:
        raise ExpungeError(f"A proportion needs n >= 1 trials and 0 <= k <= n successes; got k={k} of n={n}.")
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def mean_interval(values: Sequence[float] | Array) -> tuple[float, float]:
    """The Student-t interval of a mean, 95 %; (-inf, inf) for a single value, which says nothing of its spread.

    Args:
        values: (N,), independent measurements, e.g. one for each seed.

    Raises:
        ExpungeError: no values, or values that are not finite.
    """
    values = vector(values, "the values")
    n = len(values)
    if n == 0:
        raise ExpungeError("An interval of a mean needs at least one value; got none.")
    if n == 1:
        return -math.inf, math.inf
    half = float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / math.sqrt(n))
    return float(values.mean()) - half, float(values.mean()) + half


def balanced(caught: int, members: int, cleared: int, nonmembers: int) -> Estimate:
    """Balanced accuracy, in [0, 1], of `caught` members and `cleared` non-members, with its interval.

    The Clopper-Pearson intervals of the two rates are joined by Newcombe's rule for sums of proportions, so
    that the interval has a width also where both rates are 0 or 1. Failed when either kind is missing.

    Source: Newcombe, Statistics in Medicine 17 (1998), method 10, with exact instead of Wilson limits.
    """
    if not members or not nonmembers:
        return Estimate.failed("balanced accuracy needs members and non-members")
    hit, clear = caught / members, cleared / nonmembers
    (hit_low, hit_high), (clear_low, clear_high) = (
        proportion(caught, members),
        proportion(cleared, nonmembers),
    )
    value = (hit + clear) / 2
    low = value - math.hypot(hit - hit_low, clear - clear_low) / 2
    high = value + math.hypot(hit_high - hit, clear_high - clear) / 2
    return Estimate(value, max(low, 0.0), min(high, 1.0))


def float64(values: Any) -> Array:
    """A tensor on any device and of any precision, or anything array-like, as a float64 array."""
    if isinstance(values, Tensor):
        values = values.detach().double().cpu().numpy()  # NumPy has no bfloat16: widen before handing over
    return np.asarray(values, dtype=np.float64)


def vector(values: Any, what: str) -> Array:
    """`values` as finite float64 of shape (N,); otherwise an ExpungeError that names `what`."""
    array = float64(values)
    if array.ndim != 1:
        raise ExpungeError(f"{what} must have shape (N,), one number each; got shape {array.shape}.")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise ExpungeError(f"{bad} of {len(array)} numbers in {what} are NaN or infinite; nothing can be said of them.")
    return array
