"""How well a score tells members from non-members: curve, area, best accuracy, and rate at few false alarms.

A score is larger for what looks more like a member (`scores.membership_score`). An area below .5 means that
the "members" look less like training data than the non-members do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit, ndtri, stdtrit

from expunge.audit.stats import Array, Estimate, balanced, vector
from expunge.errors import ExpungeError

Z95 = float(ndtri(0.975))


@dataclass(frozen=True)
class Roc:
    """An ROC curve from (0, 0) to (1, 1), one point for each distinct score.

    Args:
        fpr: (P,), share of non-members called members, rising.
        tpr: (P,), share of members called members, rising.
    """

    fpr: Array
    tpr: Array

    def thin(self, points: int = 100) -> Roc:
        """At most `points` (2 or more) of its points, both ends among them, evenly spread on the curve."""
        if len(self.fpr) <= points:
            return self
        travelled = self.fpr + self.tpr  # both only rise, so this runs from 0 to 2 along the curve
        index = np.unique(np.searchsorted(travelled, np.linspace(0, 2, max(points, 2)) - 1e-12))
        index[-1] = len(travelled) - 1
        return Roc(self.fpr[index], self.tpr[index])


def roc(member_scores: Any, nonmember_scores: Any) -> Roc:
    """The ROC curve of calling "member" whatever scores at or above a threshold.

    Args:
        member_scores: (N,), at least one, finite.
        nonmember_scores: (M,), likewise.

    Raises:
        ExpungeError: no member or no non-member; scores of other shape, or NaN or infinite ones.
    """
    members, nonmembers = _sorted(member_scores, nonmember_scores)
    _needs_both(members, nonmembers)
    thresholds = np.unique(np.concatenate([members, nonmembers]))[::-1]
    fpr, tpr = _rate(nonmembers, thresholds), _rate(members, thresholds)
    return Roc(np.concatenate([[0.0], fpr]), np.concatenate([[0.0], tpr]))


def auc(member_scores: Any, nonmember_scores: Any) -> Estimate:
    """The chance that a random member outscores a random non-member, ties counted half; in [0, 1].

    The 95 % interval is DeLong's, formed on the logit scale so that it stays inside [0, 1], with Student's t
    at Welch's degrees of freedom so that it holds for few examples too. Where DeLong's variance is zero or
    unknown (area 0 or 1, all scores equal, a single example) it is Newcombe's score interval with the
    Hanley-McNeil variance, which always has a width.

    Args:
        member_scores: (N,), finite.
        nonmember_scores: (M,), finite.

    Returns:
        The area; failed when there is no member or no non-member.

    Raises:
        ExpungeError: scores of other shape, or NaN or infinite ones.

    Source: DeLong et al., Biometrics 44 (1988); Newcombe, Statistics in Medicine 25 (2006), method 5.
    """
    members, nonmembers = _sorted(member_scores, nonmember_scores)
    m, n = len(members), len(nonmembers)
    if not m or not n:
        return _empty(m, n)
    beats_m = _midrank(nonmembers, members) / n  # share of non-members below each member
    beaten_n = 1 - _midrank(members, nonmembers) / m  # share of members above each non-member
    area = float(beats_m.mean())
    if m > 1 and n > 1:
        by_m, by_n = float(beats_m.var(ddof=1)) / m, float(beaten_n.var(ddof=1)) / n
        if by_m + by_n > 1e-24 and 0 < area < 1:
            freedom = (by_m + by_n) ** 2 / (by_m**2 / (m - 1) + by_n**2 / (n - 1))
            half = float(stdtrit(freedom, 0.975)) * math.sqrt(by_m + by_n) / (area * (1 - area))
            return Estimate(area, float(expit(logit(area) - half)), float(expit(logit(area) + half)))
    return Estimate(area, *_newcombe(area, m, n))


def placements(member_scores: Any, nonmember_scores: Any) -> Array:
    """For each member, in the order given, the share of non-members it outscores, ties counted half: (N,).

    Their mean is `auc`. Args and Raises as in `roc`.
    """
    members, nonmembers = (
        vector(member_scores, "member scores"),
        vector(nonmember_scores, "non-member scores"),
    )
    _needs_both(members, nonmembers)
    return _midrank(np.sort(nonmembers), members) / len(nonmembers)


def best_threshold(member_scores: Any, nonmember_scores: Any) -> float:
    """The threshold t of the rule "member if score >= t" with the best balanced accuracy on these scores.

    It lies midway between two neighbouring scores. Among equally good ones the highest is taken, so that with
    scores 0 and 1 a 0 is a non-member even where both kinds are always 1. Args and Raises as in `roc`.
    """
    members, nonmembers = _sorted(member_scores, nonmember_scores)
    _needs_both(members, nonmembers)
    candidates = np.unique(np.concatenate([members, nonmembers]))[::-1]
    gain = _rate(members, candidates) - _rate(nonmembers, candidates)
    k = int(np.flatnonzero(gain >= gain.max() - 1e-12)[0])
    best = float(candidates[k])
    below = float(candidates[k + 1]) if k + 1 < len(candidates) else best
    middle = below + (best - below) / 2
    return middle if middle > below else best


def balanced_accuracy(member_scores: Any, nonmember_scores: Any, *, seed: int = 0) -> Estimate:
    """The mean of both hit rates at the best threshold, in [0, 1]; .5 is guessing.

    The threshold is chosen on one random half and scored on the other, both ways, so that the number is not
    flattered by its own choice: on 50 + 50 scores without any signal the best threshold seems better than
    guessing. The 95 % interval is `stats.balanced` on the pooled counts; it covers the true accuracy of the
    thresholds so chosen, which is a little below that of the best possible one.

    Args:
        member_scores: (N,), finite.
        nonmember_scores: (M,), finite.
        seed: of the split into halves.

    Returns:
        The accuracy; failed with fewer than two of either kind, which cannot be halved.

    Raises:
        ExpungeError: scores of other shape, or NaN or infinite ones.
    """
    members, nonmembers = _sorted(member_scores, nonmember_scores)
    if min(len(members), len(nonmembers)) < 2:
        return Estimate.failed(
            f"a threshold needs two of each kind; there are {len(members)} members, {len(nonmembers)} others"
        )
    random = np.random.default_rng(seed)
    halves_m = np.array_split(random.permutation(members), 2)
    halves_n = np.array_split(random.permutation(nonmembers), 2)
    caught = cleared = 0
    for chosen, scored in ((0, 1), (1, 0)):
        threshold = best_threshold(halves_m[chosen], halves_n[chosen])
        caught += int((halves_m[scored] >= threshold).sum())
        cleared += int((halves_n[scored] < threshold).sum())
    return balanced(caught, len(members), cleared, len(nonmembers))


def tpr_at_fpr(member_scores: Any, nonmember_scores: Any, fpr: float = 0.01) -> Estimate:
    """The share of members found when at most a share `fpr` of non-members is called member; in [0, 1].

    The lowest threshold that keeps the false alarms at or below `fpr` is used, without interpolation; with
    fewer than 1 / fpr non-members that means no false alarm at all. The Clopper-Pearson interval is that of
    the share of members at this threshold; it does not include the doubt about the threshold itself.

    Args:
        member_scores: (N,), finite.
        nonmember_scores: (M,), finite.
        fpr: in [0, 1]. Default .01, as in Carlini et al., IEEE S&P 2022.

    Returns:
        The rate; failed when there is no member or no non-member.

    Raises:
        ExpungeError: scores of other shape, or NaN or infinite ones.
    """
    members, nonmembers = _sorted(member_scores, nonmember_scores)
    m, n = len(members), len(nonmembers)
    if not m or not n:
        return _empty(m, n)
    allowed = math.floor(fpr * n + 1e-9)
    if allowed >= n:
        return Estimate.share(m, m)
    # the highest non-member that may not be called a member: only scores above it are
    barrier = nonmembers[n - 1 - allowed]
    return Estimate.share(int((members > barrier).sum()), m)


def _sorted(member_scores: Any, nonmember_scores: Any) -> tuple[Array, Array]:
    return np.sort(vector(member_scores, "member scores")), np.sort(vector(nonmember_scores, "non-member scores"))


def _needs_both(members: Array, nonmembers: Array) -> None:
    if not len(members) or not len(nonmembers):
        raise ExpungeError(f"An attack needs members and non-members; there are {len(members)} and {len(nonmembers)}.")


def _empty(m: int, n: int) -> Estimate:
    return Estimate.failed(f"an attack needs members and non-members; there are {m} and {n}")


def _rate(sorted_scores: Array, thresholds: Array) -> Array:
    """The share of scores at or above each threshold."""
    return 1 - np.searchsorted(sorted_scores, thresholds, side="left") / len(sorted_scores)


def _midrank(sorted_scores: Array, values: Array) -> Array:
    """How many scores are below each value, equal ones counted half."""
    left, right = (np.searchsorted(sorted_scores, values, side=side) for side in ("left", "right"))
    return np.asarray((left + right) / 2)


def _newcombe(area: float, m: int, n: int) -> tuple[float, float]:
    """The areas θ with |area - θ| <= 1.96 sd(θ): each end by bisection, which is monotone on its side."""

    def excess(theta: float) -> float:
        spread = (m + n) / 2 - 1
        variance = theta * (1 - theta) / (m * n)
        variance *= 1 + spread * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return abs(area - theta) - Z95 * math.sqrt(variance)

    def end(outer: float) -> float:
        inner = area
        if excess(outer) <= 0:
            return outer
        for _ in range(60):
            middle = (inner + outer) / 2
            inner, outer = (middle, outer) if excess(middle) <= 0 else (inner, middle)
        return (inner + outer) / 2

    return end(0.0), end(1.0)
