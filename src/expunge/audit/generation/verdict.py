"""The verdict on a denoiser, from what a classifier takes its images for; the words are those of every audit.

Shapes: S retrainings, N images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from expunge.audit.generation.metric import METRICS
from expunge.audit.spread import Difference, difference, spread
from expunge.audit.verdict import DAMAGED, NO_EFFECT, PARTLY, WITHIN, Verdict

Array = NDArray[np.float64]

TOLERANCE = 2.0  # points; below this a difference has no practical meaning
METRIC_NAMES = ("recognised", "others")
Hits = dict[str, Array]  # for each metric 100 where an image counts, otherwise 0, (N,)


def verdict(method: str, models: Sequence[Hits], retrained: Sequence[Hits], original: Sequence[Hits]) -> Verdict:
    """The verdict on the models of one method.

    Args:
        method: its name.
        models: the hits of each of its models.
        retrained: those of the retrained models, one or more; of one alone no spread is known.
        original: those of the models before unlearning.
    """
    kept, to_original = _against("others", models, retrained), _against("others", models, original, retrained)
    if kept.seen and kept.value < 0 and to_original.seen and to_original.value < 0:
        return _say(method, DAMAGED, "others", kept, retrained)
    left, start = _against("recognised", models, retrained), _against("recognised", original, retrained)
    if left.seen and left.value > 0:
        moved = (
            start.value - left.value > 0.1 * abs(start.value)
            and _against("recognised", models, original, retrained).seen
        )
        return _say(method, PARTLY if moved else NO_EFFECT, "recognised", left, retrained)
    return _say(method, WITHIN, "recognised", left, retrained, blind=not (start.seen and start.value > 0))


def _against(
    metric: str, models: Sequence[Hits], reference: Sequence[Hits], spread_of: Sequence[Hits] | None = None
) -> Difference:
    table_MN = np.stack([hits[metric] for hits in models])
    table_SN = np.stack([hits[metric] for hits in reference])
    sd = spread(np.stack([hits[metric] for hits in spread_of or reference]))
    gap = float(table_MN.mean()) - float(table_SN.mean())
    return difference(gap, sd, len(models), len(reference), TOLERANCE, len(METRIC_NAMES), spread(table_MN))


_OPENINGS = {
    NO_EFFECT: "The forgotten class is drawn as before.",
    PARTLY: "The forgotten class is still drawn more often than by a model that never saw it.",
    WITHIN: "The forgotten class is not drawn more often than by a model that never saw it.",
    DAMAGED: "The model lost classes that it was to keep.",
}


def _say(method: str, word: str, metric: str, d: Difference, retrained: Sequence[Hits], blind: bool = False) -> Verdict:
    reference = float(np.mean([hits[metric].mean() for hits in retrained]))
    half = f" ± {d.half:.1f}" if d.half else ""
    facts = (
        f"{METRICS[metric].title}: {reference + d.value:.1f} %, after retraining {reference:.1f} % (difference "
        f"{d.value:+.1f}{half} points; the smallest this audit could have seen is {d.visible:.1f} points"
        f"{'; of one retraining alone no spread is known' if len(retrained) < 2 else ''})."
    )
    if blind:
        facts += " The original draws it no more often: this audit cannot tell forgetting from doing nothing."
    return Verdict(method, word, f"{_OPENINGS[word]} {facts}", metric, d.value, *d.ends, d.visible)
