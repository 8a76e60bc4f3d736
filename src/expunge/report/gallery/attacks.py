"""What attackers can still tell: the ROC of each attack and the scores that they go by."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from expunge.report.figures import attack
from expunge.report.gallery.section import Legend, Section
from expunge.report.tables import Row, entries_of, mean_lists, methods_of, number


def roc(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """The ROC of each attack on each method; None where no attack was saved."""
    saved = {m: [e.get("attacks") or {} for e in entries_of(results, m)] for m in methods_of(results)}
    names = list(dict.fromkeys(name for seeds in saved.values() for seed in seeds for name in seed))
    curves: dict[str, dict[str, attack.Curve]] = {}
    for method, seeds in saved.items():
        for name in names:
            curve = attack.mean_curve([seed[name] for seed in seeds if seed.get(name)])
            if curve is not None:
                curves.setdefault(method, {})[name] = curve
    if not curves:
        return None
    ideal = attack.strongest(curves.get("retrain", {}))
    shown = [method for method in curves if method not in ("retrain", "retrain_again")] or list(curves)
    panels = tuple(
        (method, attack.roc(f"roc-{i}", method, curves[method], names, ideal)) for i, method in enumerate(shown)
    )
    caption = (
        "An attacker tries to tell forgotten examples from never-seen ones. On the dotted diagonal they "
        "guess; above it they still recognise the forgotten ones; below it these stand out, too strange."
    )
    legend: Legend = tuple((f"line{i % 5 + 1}", name.replace("_", " ")) for i, name in enumerate(names))
    legend += (("broad", "strongest attack on retraining"),) if ideal is not None else ()
    return Section("Attacks: who was in the training data?", caption, panels, "small", legend)


def histograms(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """The scores under each method; None where none were saved."""
    found: dict[str, tuple[list[float], dict[str, list[float | None]]]] = {}
    for method in methods_of(results):
        saved = [e["histogram"] for e in entries_of(results, method) if e.get("histogram")]
        edges = [v for v in map(number, saved[0].get("edges") or []) if v is not None] if saved else []
        same = [h for h in saved if len(h.get("edges") or []) == len(edges) and h["edges"] == saved[0]["edges"]]
        if len(edges) > 1 and all(b > a for a, b in pairwise(edges)):
            parts = ("forget", "unseen", "retain")
            found[method] = edges, {part: mean_lists([h.get(part) for h in same]) for part in parts}
    if not found:
        return None
    limits = min(edges[0] for edges, _ in found.values()), max(edges[-1] for edges, _ in found.values())
    peaks = sorted(max((v or 0.0 for p in parts.values() for v in p), default=0.0) for _, parts in found.values())
    top = min(peaks[-1], 2.5 * peaks[len(peaks) // 2]) or 1.0  # one spike must not flatten all the others
    shown = [method for method in found if method != "retrain_again"]
    panels = tuple(
        (method, attack.histogram(f"scores-{i}", method, *found[method], limits, top)) for i, method in enumerate(shown)
    )
    caption = (
        "How sure each model is of the true class; further right is surer. After forgetting, the forgotten "
        "examples should lie as they do under retraining."
    )
    legend: Legend = (("forget", "forgotten"), ("unseen", "never seen"), ("dashes", "kept"))
    return Section("Scores that the attacks go by", caption, panels, "small", legend)
