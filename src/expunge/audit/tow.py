"""One number for closeness to retraining: tug-of-war (ToW), and the average gap of SalUn's tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from expunge.errors import raise_if


@dataclass(frozen=True)
class Tow:
    """A tug-of-war score and its factors: the product hides which one failed.

    Args:
        value: the product of the three factors, in [0, 1]; 1 is indistinguishable by these accuracies.
        forget: 1 - |difference to retraining| on forget examples (of the attack's share in `tow_mia`).
        retain: the same on retain examples.
        test: the same on unseen examples.
    """

    value: float
    forget: float
    retain: float
    test: float


def tow(model: Mapping[str, float], retrain: Mapping[str, float]) -> Tow:
    """Tug-of-war: the product of 1 - |accuracy - retrain's accuracy| over forget, retain and test.

    Pair each model with the retraining of the same seed and average the scores, not the accuracies. A second
    retraining does not reach 1: differences of .006, .0002 and .002 give .9918. Print that beside.

    Args:
        model: accuracies as fractions in [0, 1] under "forget", "retain" and "test".
        retrain: those of the model retrained without the forget examples.

    Raises:
        ExpungeError: a missing entry, or one outside [0, 1] (percent, NaN).

    Source: Zhao et al. (RUM), NeurIPS 2024, section 3.
    """
    return _tow(model, retrain, "forget")


def tow_mia(model: Mapping[str, float], retrain: Mapping[str, float]) -> Tow:
    """`tow` with the attack's share of non-members, "mia" as a fraction in [0, 1], in place of "forget"."""
    return _tow(model, retrain, "mia")


def avg_gap(model: Mapping[str, float], retrain: Mapping[str, float]) -> float:
    """The mean of |difference to retraining| over ua, ra, ta and mia, in percentage points; 0 is best.

    Args:
        model: "ua", "ra", "ta" and "mia" in percent.
        retrain: those of the model retrained without the forget examples.

    Raises:
        ExpungeError: a missing entry, or one outside [0, 100].

    Source: Fan et al. (SalUn), ICLR 2024.
    """
    names = ("ua", "ra", "ta", "mia")
    _check(model, retrain, names, 100.0, "percent")
    return sum(abs(model[name] - retrain[name]) for name in names) / len(names)


def _tow(model: Mapping[str, float], retrain: Mapping[str, float], first: str) -> Tow:
    names = (first, "retain", "test")
    _check(model, retrain, names, 1.0, "a fraction")
    forget, retain, test = (1 - abs(model[name] - retrain[name]) for name in names)
    return Tow(forget * retain * test, forget, retain, test)


def _check(
    model: Mapping[str, float], retrain: Mapping[str, float], names: tuple[str, ...], top: float, unit: str
) -> None:
    problems = []
    for whose, values in (("the model", model), ("retraining", retrain)):
        for name in names:
            if name not in values:
                problems.append(f"{name!r} of {whose} is missing; there are: {', '.join(values) or 'none'}.")
            elif not 0 <= values[name] <= top:
                problems.append(f"{name!r} of {whose} is {values[name]}; expected {unit} in [0, {top:g}].")
    raise_if(problems)
