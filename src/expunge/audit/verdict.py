"""Verdict: what the measurements amount to, in words and from both sides.

A model can have forgotten too little (it still looks like the original) or too much (it stands out the other way), and
it can have lost what it was to keep. Each is a difference to retraining that another retraining would not show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from expunge.audit.attacks.roc import auc, placements
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
        tolerance: a difference below this has no practical meaning, in the metric's unit; see also `_tolerance`.
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
        low: the lower end of its interval; none where no spread is known or seen, as the sentence says.
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
    if metric not in subject.memo:
        if metric == "auc_loss":
            subject.memo[metric] = placements(*(subject.membership("loss", part) for part in ("forget", "alike")))
        else:
            part = {"ua": "forget", "ra": "retain", "ta": "unseen", "tfa": "alike"}[metric]
            right = subject.right(part)
            subject.memo[metric] = 100 * (1 - right if metric == "ua" else right)
    return subject.memo[metric]


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
        self.spreads, self.references, self.tolerances = {}, {}, {}
        for y in self.yardsticks:
            table_SN = self._reference_table(y)
            self.spreads[y.metric], self.references[y.metric] = spread(table_SN), table_SN.mean(1)
            self.tolerances[y.metric] = _tolerance(y, retrained[0], table_SN)

    def _reference_table(self, y: Yardstick) -> Array:
        if y.kind != "answers":
            return np.stack([contributions(y.metric, s) for s in self.retrained])
        return np.stack([js(a.forget, b.forget) for a, b in combinations(self.retrained, 2)])

    def _table(self, y: Yardstick, subjects: Sequence[Subject]) -> Array:
        """What each example adds to the number, for each model."""
        if y.kind != "answers":
            return np.stack([contributions(y.metric, s) for s in subjects])
        return np.stack([np.mean([js(s.forget, r.forget) for r in self.retrained], axis=0) for s in subjects])

    def _values(self, y: Yardstick, subjects: Sequence[Subject]) -> Array:
        values: Array = self._table(y, subjects).mean(1)
        return values

    def against(self, y: Yardstick, subjects: Sequence[Subject], reference: Array) -> Difference:
        """How far these models are from a reference, held against the spread between retrainings."""
        # models made from one original share what is peculiar to it, and count as one
        models, runs = min(len(subjects), len(self.original)), len(self.retrained)
        table_MN = self._table(y, subjects)
        gap = float(table_MN.mean() - reference.mean())
        sd, tolerance = self.spreads[y.metric], self.tolerances[y.metric]
        own = spread(table_MN) if models > 1 else None
        return difference(gap, sd, models, runs, tolerance, len(self.yardsticks), own)

    def verdict(self, method: str, subjects: Sequence[Subject]) -> Verdict:
        """The verdict on the models of one method."""
        found = {y: self.against(y, subjects, self.references[y.metric]) for y in self.yardsticks}
        lost = {y: d for y, d in found.items() if y.kind == "keep" and d.value < -d.visible and self._fell(y, subjects)}
        if lost:
            return self._say(method, DAMAGED, _worst(lost), lost)
        start = {y: self.against(y, self.original, self.references[y.metric]) for y in self.yardsticks}
        telling = [y for y in self.yardsticks if y.kind != "keep" and start[y].seen]
        apart = {y: d for y, d in found.items() if y.kind == "forget" and d.seen}
        apart |= {y: d for y, d in found.items() if y.kind == "answers" and d.seen and d.value > 0}
        # where accuracies and attacks differ they decide; how answers are distributed decides when they do not
        apart = {y: d for y, d in apart.items() if y.kind == "forget"} or apart
        if apart:
            worst = _worst(apart)
            if not self._too_little(worst, apart[worst], start[worst], worst in telling):
                return self._say(method, OVERDONE, worst, apart)
            word = PARTLY if self._moved(subjects, [y for y in telling if y.kind == worst.kind], start) else NO_EFFECT
            return self._say(method, word, worst, apart)
        behind = {y: d for y, d in found.items() if y.kind == "keep" and d.value < -d.visible}
        if behind:
            return self._say(method, PARTLY, _worst(behind), behind)
        return self._say(method, WITHIN, _worst(found), found, blind=not telling)

    def _fell(self, y: Yardstick, subjects: Sequence[Subject]) -> bool:
        """Whether these models are below the original as well: without a class, others can be easier for retraining."""
        fall = self.against(y, subjects, self._values(y, self.original))
        return fall.seen and fall.value < 0

    def _moved(
        self, subjects: Sequence[Subject], telling: Sequence[Yardstick], start: Mapping[Yardstick, Difference]
    ) -> bool:
        """Whether these models are seen to be a tenth of the way from the original to retraining, on any number."""
        moves = {y: self.against(y, subjects, self._values(y, self.original)) for y in telling}
        return not moves or any(d.seen and abs(d.value) > 0.1 * abs(start[y].value) for y, d in moves.items())

    @staticmethod
    def _too_little(y: Yardstick, found: Difference, start: Difference, telling: bool) -> bool:
        """Whether a difference to retraining lies on the side of the original."""
        if y.kind == "answers":
            return found.value <= start.value
        return bool(np.sign(found.value) == (np.sign(start.value) if telling else -y.sign))

    def _why_none(self, y: Yardstick) -> str:
        known = self.spreads[y.metric] is not None
        return "nothing differs between seeds" if known else "two retrainings have one distance between them"

    def _say(
        self, method: str, word: str, y: Yardstick, among: Mapping[Yardstick, Difference], blind: bool = False
    ) -> Verdict:
        d = among[y]
        retrain = float(self.references[y.metric].mean())
        title, unit = METRICS[y.metric].title, METRICS[y.metric].unit
        points = " points" if unit == "%" else ""
        reference = "between two retrainings" if y.kind == "answers" else "after retraining"
        facts = (
            f"{title} is {_number(retrain + d.value, unit)}, {reference} {_number(retrain, unit)} "
            f"(difference {_signed(d.value, unit)}{f' ± {_plain(d.half, unit)}' if d.half else ''}{points}"
            f"{'' if d.half else f', without an interval: {self._why_none(y)}'}; "
            f"the smallest this audit could have seen is {_plain(d.visible, unit)}{points})."
        )
        if word == WITHIN and blind:
            facts += (
                " The original is within it too: on this request the audit cannot tell forgetting from doing nothing."
            )
        opening = _PARTLY[y.kind] if word == PARTLY else _OPENINGS[word]
        return Verdict(method, word, f"{opening} {facts}", y.metric, d.value, *d.ends, d.visible)


_OPENINGS = {
    NO_EFFECT: "The forgotten rows are treated as before.",
    WITHIN: "No number differs from retraining by more than another retraining would.",
    OVERDONE: "The forgotten rows stand out the other way: a model that never saw them would treat them better.",
    DAMAGED: "The model lost what it was to keep.",
}
_PARTLY = {
    "forget": "Part of what was learnt from the forgotten rows is left.",
    "answers": "The forgotten rows are recognised as after retraining, but not answered as retrained models do.",
    "keep": "The forgotten rows are as after retraining, but what is kept is still as with the original.",
}


def residue(verdict: Verdict, relearned: Sequence[float], by_retrained: Sequence[float]) -> Verdict:
    """The verdict, taken back where a model that seems to have forgotten relearns in half the time or less.

    Args:
        verdict: on one method, from its answers alone.
        relearned: epochs to relearn, for each of its models.
        by_retrained: the same for each retrained model.

    Answers do not show what lies in the layers below; how fast a class is relearnt does. The rule is coarse on purpose:
    the method's mean against half of the fastest retraining.
    """
    if verdict.word != WITHIN or not relearned or not by_retrained:
        return verdict
    mean, fastest = sum(relearned) / len(relearned), min(by_retrained)
    if mean >= 0.5 * fastest:
        return verdict
    sentence = (
        f"The answers are as after retraining, but the class is relearnt in {mean:.2g} epochs, by retrained models in "
        f"{fastest:.2g} at the least: something of it is left in the weights."
    )
    return Verdict(verdict.method, PARTLY, sentence, "relearn", mean - fastest, visible=0.5 * fastest)


def without_retraining(method: str, reason: str) -> Verdict:
    """The verdict when there is nothing to compare with: what cannot be said, and what would make it possible."""
    return Verdict(
        method,
        CANNOT_SAY,
        "Whether the rows are gone cannot be said without models retrained without them: the right forget error and "
        f"attack numbers are those of retraining, not 100 % or 0.5. {reason}",
    )


def _tolerance(y: Yardstick, retrained: Subject, table_SN: Array) -> float:
    """What a difference must exceed to mean anything, whatever the spread.

    Accuracies: two rows. Attacks: half the width of the attack's own interval, as no attacker can use less. Distances
    between answers: half of what lies between two retrainings.
    """
    if y.kind == "answers":
        share: float = (
            0.5 if len(table_SN) > 1 else 1.5
        )  # one pair of retrainings does not show how far two can be apart
        return max(y.tolerance, float(share * table_SN.mean()))
    if not y.metric.startswith("auc_"):
        return max(y.tolerance, 100 * 2 / int(table_SN.shape[1]))
    feature = y.metric.removeprefix("auc_")
    area = auc(retrained.membership(feature, "forget"), retrained.membership(feature, "alike"))
    low, high = area.low or 0.0, area.high if area.high is not None else 1.0
    return max(y.tolerance, 0.5 * (high - low))


def _worst(differences: Mapping[Yardstick, Difference]) -> Yardstick:
    return max(differences, key=lambda y: abs(differences[y].value) / differences[y].visible)


def _plain(value: float, unit: str) -> str:
    return f"{value:.1f}" if unit == "%" else f"{value:.3f}"


def _signed(value: float, unit: str) -> str:
    return f"{value:+.1f}" if unit == "%" else f"{value:+.3f}"


def _number(value: float, unit: str) -> str:
    return f"{value:.1f} %" if unit == "%" else f"{value:.3f}"
