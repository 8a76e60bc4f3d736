"""Verdict: what the measurements amount to, in words and from both sides.

A model can have forgotten too little (it still looks like the original) or too much (it stands out the other way), and
it can have lost what it was to keep. Each is a difference to retraining that another retraining would not show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.audit.attacks.roc import placements
from expunge.audit.divergence import js
from expunge.audit.metric import METRICS
from expunge.audit.spread import Array, Difference, difference, spread
from expunge.audit.subject import Subject

NO_EFFECT = "no effect"
PARTLY = "partly"
WITHIN = "within retraining's spread"
OVERDONE = "overdone"
DAMAGED = "model damaged"
CANNOT_SAY = "cannot say"


@dataclass(frozen=True)
class Yardstick:
    """One of the numbers that a verdict rests on.

    Args:
        metric: its name.
        kind: `"forget"` (should be as after retraining), `"keep"` (should not fall), or `"answers"` (a distance to
            retraining).
        tolerance: a difference below this has no practical meaning, in the metric's unit.
        sign: +1 when a larger number means more forgotten, -1 when it means less.
    """

    metric: str
    kind: str
    tolerance: float
    sign: int = 1


YARDSTICKS = (
    Yardstick("ua", "forget", 0.5, +1),
    Yardstick("tfa", "forget", 0.5, -1),
    Yardstick("auc_loss", "forget", 0.02, -1),
    Yardstick("js", "answers", 0.02, -1),
    Yardstick("ra", "keep", 1.0),
    Yardstick("ta", "keep", 1.0),
)


@dataclass(frozen=True)
class Verdict:
    """What an audit concludes of a method.

    Args:
        method: its name.
        word: one of the six words of this module.
        sentence: the reason, for people.
        metric: the number that decides; empty when there is none.
        difference: to retraining, in the metric's unit.
        low: the lower end of its interval.
        high: the upper end.
        visible: the smallest difference that this audit could have seen, in the same unit.
    """

    method: str
    word: str
    sentence: str
    metric: str = ""
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    visible: float | None = None

    def to_json(self) -> dict[str, Any]:
        """All fields as plain data."""
        return dict(vars(self))


def contributions(metric: str, subject: Subject) -> Array:
    """What each example adds to a metric, in the metric's unit: their mean is the metric; (N,)."""
    if metric == "ua":
        return 100 * (1 - subject.right("forget"))
    if metric == "auc_loss":
        return placements(subject.membership("loss", "forget"), subject.membership("loss", "alike"))
    part = {"ra": "retain", "ta": "unseen", "tfa": "alike"}[metric]
    return 100 * subject.right(part)


class Judge:
    """Judges methods against retrainings.

    Args:
        retrained: two or more retrained models, of different seeds.
        original: the models before unlearning, one or more.
    """

    def __init__(self, retrained: Sequence[Subject], original: Sequence[Subject]) -> None:
        classes = retrained[0].ground.forgotten is not None
        self.retrained, self.original = retrained, original
        self.yardsticks = [y for y in YARDSTICKS if classes or y.metric != "tfa"]
        self.spreads, self.references = {}, {}
        for y in self.yardsticks:
            table_SN = self._reference_table(y)
            self.spreads[y.metric], self.references[y.metric] = spread(table_SN), table_SN.mean(1)

    def _reference_table(self, y: Yardstick) -> Array:
        if y.kind != "answers":
            return np.stack([contributions(y.metric, s) for s in self.retrained])
        others = [[o for o in self.retrained if o is not s] for s in self.retrained]
        return np.stack([_distance_to(s, rest) for s, rest in zip(self.retrained, others)])

    def _values(self, y: Yardstick, subjects: Sequence[Subject]) -> Array:
        if y.kind != "answers":
            return np.array([contributions(y.metric, s).mean() for s in subjects])
        return np.array([_distance_to(s, [r for r in self.retrained if r is not s]).mean() for s in subjects])

    def against(self, y: Yardstick, subjects: Sequence[Subject], reference: Array) -> Difference:
        """How far these models are from a reference, held against the spread between retrainings."""
        values = self._values(y, subjects)
        return difference(values, reference, self.spreads[y.metric], y.tolerance, len(self.yardsticks))

    def verdict(self, method: str, subjects: Sequence[Subject]) -> Verdict:
        """The verdict on the models of one method."""
        found = {y: self.against(y, subjects, self.references[y.metric]) for y in self.yardsticks}
        lost = {y: d for y, d in found.items() if y.kind == "keep" and d.value < -d.visible}
        if lost:
            return self._say(method, DAMAGED, _worst(lost), lost)
        start = {y: self.against(y, self.original, self.references[y.metric]) for y in self.yardsticks}
        telling = [y for y in self.yardsticks if y.kind != "keep" and start[y].seen]
        apart = {y: d for y, d in found.items() if y.kind != "keep" and d.seen}
        # where accuracies and attacks differ they decide; how answers are distributed decides when they do not
        apart = {y: d for y, d in apart.items() if y.kind == "forget"} or apart
        if apart:
            worst = _worst(apart)
            if not self._too_little(worst, apart[worst], start[worst], worst in telling):
                return self._say(method, OVERDONE, worst, apart)
            moved = [self.against(y, subjects, self._values(y, self.original)).seen for y in telling]
            return self._say(method, PARTLY if any(moved) or not moved else NO_EFFECT, worst, apart)
        return self._say(method, WITHIN, _worst(found), found, blind=not telling)

    @staticmethod
    def _too_little(y: Yardstick, found: Difference, start: Difference, telling: bool) -> bool:
        """Whether a difference to retraining lies on the side of the original."""
        if y.kind == "answers":
            return found.value <= start.value
        return bool(np.sign(found.value) == (np.sign(start.value) if telling else -y.sign))

    def _say(
        self, method: str, word: str, y: Yardstick, among: Mapping[Yardstick, Difference], blind: bool = False
    ) -> Verdict:
        d = among[y]
        retrain = float(self.references[y.metric].mean())
        title, unit = METRICS[y.metric].title, METRICS[y.metric].unit
        points = " points" if unit == "%" else ""
        facts = (
            f"{title} is {_number(retrain + d.value, unit)}, after retraining {_number(retrain, unit)} "
            f"(difference {_signed(d.value, unit)} ± {_plain(d.half, unit)}{points}; "
            f"the smallest this audit could have seen is {_plain(d.visible, unit)}{points})."
        )
        if word == WITHIN and blind:
            facts += (
                " The original is within it too: on this request the audit cannot tell forgetting from doing nothing."
            )
        return Verdict(
            method, word, f"{_OPENINGS[word]} {facts}", y.metric, d.value, d.value - d.half, d.value + d.half, d.visible
        )


_OPENINGS = {
    NO_EFFECT: "The forgotten rows are treated as before.",
    PARTLY: "Part of what was learnt from the forgotten rows is left, or what is there differs from a retrained model.",
    WITHIN: "No number differs from retraining by more than another retraining would.",
    OVERDONE: "The forgotten rows stand out the other way: a model that never saw them would treat them better.",
    DAMAGED: "The model lost what it was to keep.",
}


def without_retraining(method: str, reason: str) -> Verdict:
    """The verdict when there is nothing to compare with: what cannot be said, and what would make it possible."""
    return Verdict(
        method,
        CANNOT_SAY,
        "Whether the rows are gone cannot be said without models retrained without them: the right forget error and "
        f"attack numbers are those of retraining, not 100 % or 0.5. {reason}",
    )


def _distance_to(subject: Subject, retrained: Sequence[Subject]) -> Array:
    return np.stack([js(subject.forget, r.forget) for r in retrained]).mean(0)


def _worst(differences: Mapping[Yardstick, Difference]) -> Yardstick:
    return max(differences, key=lambda y: abs(differences[y].value) / differences[y].visible)


def _plain(value: float, unit: str) -> str:
    return f"{value:.1f}" if unit == "%" else f"{value:.3f}"


def _signed(value: float, unit: str) -> str:
    return f"{value:+.1f}" if unit == "%" else f"{value:+.3f}"


def _number(value: float, unit: str) -> str:
    return f"{value:.1f} %" if unit == "%" else f"{value:.3f}"
