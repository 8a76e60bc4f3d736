"""Details: what a report draws beside the numbers. Everything is plain data that JSON can hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.audit.accuracy import accuracy_by_class
from expunge.audit.attacks.roc import roc
from expunge.audit.distance import distance
from expunge.audit.subject import Ground, Subject
from expunge.data.rows import Rows
from expunge.errors import ExpungeError

BINS = 40


def details(subject: Subject, original: Subject | None, attacks: Sequence[str], edges: np.ndarray) -> dict[str, Any]:
    """Accuracy by class, attack curves, score histograms, answers on forget rows, and change by layer."""
    return {
        "by_class": by_class(subject),
        "attacks": {feature: _curve(subject, feature) for feature in attacks},
        "histogram": histogram(subject, edges),
        "predicted": _shares(subject.forget, subject.ground.forget.num_classes),
        "layers": {} if original is None else _layers(subject, original),
    }


def by_class(subject: Subject) -> dict[str, list[float | None]]:
    """The accuracy of each class in percent, on training and on unseen rows; none where a class has no rows."""
    ground = subject.ground
    classes = ground.retain.num_classes
    seen = [(subject.retain, ground.retain.y), (subject.forget, ground.forget.y)]
    unseen = [(subject.unseen, ground.unseen.y)]
    if ground.forgotten is not None:
        unseen.append((subject.alike, ground.forgotten.y))
    return {name: _accuracies(parts, classes) for name, parts in (("seen", seen), ("unseen", unseen))}


def _accuracies(parts: list[tuple[Tensor, Tensor]], classes: int) -> list[float | None]:
    predicted = torch.cat([scores.argmax(1) for scores, _ in parts])
    found = accuracy_by_class(predicted, torch.cat([y for _, y in parts]), classes)
    return [_round(e.value) if e.ok else None for e in found]


def _curve(subject: Subject, feature: str) -> dict[str, list[float]]:
    curve = roc(subject.membership(feature, "forget"), subject.membership(feature, "alike")).thin(100)
    return {"fpr": [_round(v) for v in curve.fpr], "tpr": [_round(v) for v in curve.tpr]}


def bin_edges(subjects: Sequence[Subject]) -> np.ndarray:
    """Common edges for the histograms of all models: the middle 99 % of the true class's log-odds."""
    values = np.concatenate([s.membership("margin", part) for s in subjects for part in ("forget", "alike")])
    low, high = np.quantile(values, [0.005, 0.995])
    return np.linspace(low, max(high, low + 1e-3), BINS + 1)


def histogram(subject: Subject, edges: np.ndarray) -> dict[str, list[float]]:
    """The share of rows in each bin of the true class's log-odds; what lies outside counts to the outer bins."""
    shares = {"edges": [_round(e) for e in edges]}
    for name, part in (("forget", "forget"), ("unseen", "alike"), ("retain", "retain")):
        values = np.clip(subject.membership("margin", part), edges[0], edges[-1])
        counts, _ = np.histogram(values, edges)
        shares[name] = [_round(c) for c in counts / max(len(values), 1)]
    return shares


def _shares(scores: Tensor, classes: int) -> list[float]:
    counts = torch.bincount(scores.argmax(1), minlength=classes).double()
    return [_round(float(c)) for c in counts / counts.sum()]


def _layers(subject: Subject, original: Subject) -> dict[str, float]:
    try:
        change = distance(subject.model, original.model).layers
    except ExpungeError:  # another architecture has other layers
        return {}
    return {name: _round(value) for name, value in change.items() if value is not None}


def examples(subjects: Sequence[Subject], ground: Ground, count: int = 8) -> list[dict[str, Any]]:
    """Some of the forgotten rows with what each method answers; images as PNG in a data URI."""
    if not count:
        return []
    rows = ground.forget
    index = torch.linspace(0, len(rows) - 1, min(count, len(rows))).round().long().unique()
    chosen = rows.take(index)
    first = {s.method: s for s in reversed(subjects)}
    answers = {name: s.forget[index].argmax(1).tolist() for name, s in reversed(first.items())}
    return [
        {
            "id": str(chosen.ids[i]),
            "label": int(chosen.y[i]),
            "image": _png(chosen, i),
            "text": chosen.texts[i] if chosen.texts is not None else None,
            "predicted": {name: labels[i] for name, labels in answers.items()},
        }
        for i in range(len(chosen))
    ]


def _png(rows: Rows, i: int) -> str | None:
    if len(rows.shape) != 3 or rows.shape[0] not in (1, 3):
        return None
    from PIL import Image  # comes with matplotlib

    x_CHW = rows.source[i] if isinstance(rows.source, Tensor) else rows.x(torch.tensor([i]))[0]
    if x_CHW.dtype != torch.uint8:
        low, high = float(x_CHW.min()), float(x_CHW.max())
        x_CHW = ((x_CHW - low) / max(high - low, 1e-6) * 255).to(torch.uint8)
    x_HWC = x_CHW.permute(1, 2, 0).cpu().numpy()
    image = Image.fromarray(x_HWC[:, :, 0] if x_HWC.shape[2] == 1 else x_HWC)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _round(value: float) -> float:
    return float(f"{value:.5g}")
