"""Made-up measurements of the shape that an audit saves, for the tests of the report."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

# title, unit, direction, ideal, reading
METRICS = {
    "ua": (
        "Forget error",
        "%",
        "match",
        "retrain",
        "Share of the forgotten examples that the model gets wrong.",
    ),
    "ra": ("Retain accuracy", "%", "match", "retrain", "Accuracy on the training rows that stay."),
    "ta": ("Test accuracy", "%", "match", "retrain", "Accuracy on unseen rows of the classes that stay."),
    "tfa": (
        "Unseen forget accuracy",
        "%",
        "match",
        "retrain",
        "Accuracy on unseen rows of forgotten classes.",
    ),
    "mia": (
        "Called non-members",
        "%",
        "match",
        "retrain",
        "Share of forgotten examples the attack calls unseen.",
    ),
    "auc_loss": ("Attack AUC, loss", "", "match", "retrain", "Chance that the loss ranks a member first."),
    "auc_confidence": ("Attack AUC, confidence", "", "match", "retrain", "The same with the confidence."),
    "auc_margin": ("Attack AUC, margin", "", "match", "retrain", "The same with the margin."),
    "balanced_accuracy": ("Strongest attack", "%", "match", 50, "Balanced accuracy of the strongest attack."),
    "tpr_at_1fpr": (
        "Found at 1 % false alarms",
        "%",
        "match",
        1,
        "Share found when 1 % of alarms are false.",
    ),
    "avg_gap": ("Average gap", "%", "lower", 0, "Mean distance to retraining over four metrics."),
    "tow": ("Tug of war", "", "higher", 1, "One minus each distance to retraining, multiplied."),
    "agreement": ("Agreement", "%", "higher", 100, "Share of examples on which retraining agrees."),
    "zrf": ("Zero retrain forgetting", "", "higher", 1, "Likeness to a model that knows nothing."),
    "relearn": (
        "Epochs to relearn",
        "epochs",
        "match",
        "retrain",
        "Epochs until the forgotten are known again.",
    ),
    "distance": ("Weight distance", "", "match", "retrain", "Length of the way to the retrained weights."),
}
NAMES = [
    *(
        "finetune",
        "salun",
        "gradient_ascent",
        "random_label",
        "svd_forget",
        "neggrad_plus",
        "l1_sparse",
        "unsir",
    ),
    *("scrub", "ssd", "bad_teacher", "partial_optimization", "amnesiac", "rum"),
]
WORDS = ["no effect", "within retraining's spread", "model damaged", "partly", "overdone", "partly"]
# Names that are hard to show: long ones, and some that are HTML, TeX or more than one line.
LONG = [f"comp.sys.{i}.a.very.long.newsgroup.name" for i in range(17)]
HOSTILE = ["<script>alert(1)</script>", "a $\\frac{$ b", '"><img src=x onerror=alert(2)>\n&amp;']
LAYERS = [f"{block}.{kind}" for block in ("conv1", "conv2", "fc1", "fc2", "head") for kind in ("weight", "bias")]


def sample(
    methods: int = 4,
    seeds: int = 3,
    classes: int | list[str] = 10,
    retrain: bool = True,
    scope: str = "class",
    texts: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """What ``results.json`` might hold.

    Args:
        methods: how many, besides original and retrain.
        seeds: of each.
        classes: how many, or their names.
        retrain: whether there was a recipe.
        scope: ``class`` or ``samples``.
        texts: whether the examples are texts and not images.
        seed: of the made-up numbers.
    """
    rng = np.random.default_rng(seed)
    names = [str(i) for i in range(classes)] if isinstance(classes, int) else classes
    gone = [min(3, len(names) - 1)] if scope == "class" else []
    what = f"class {names[gone[0]]}" if gone else "what one person asked for"
    shown = ["original", *(["retrain", "retrain_again"] if retrain else []), *NAMES[:methods]]
    words = {name: WORDS[i % len(WORDS)] if retrain else "cannot say" for i, name in enumerate(NAMES[:methods])}
    words |= {"original": "no effect", "retrain_again": "within retraining's spread"}
    models = [_model(rng, name, words.get(name), i, len(names), gone, retrain) for name in shown for i in range(seeds)]
    return {
        "schema": 1,
        "expunge": "0.1.0",
        "created": "2026-11-21T09:00:00+00:00",
        "question": {
            "text": f"Forget {what}: 146 of 1,437 rows of digits.",
            "scope": scope,
            "data": "digits",
            "forget": 146,
            "keep": 1291,
            "gone": 0,
            "unseen": 360,
            "classes": names,
            "forgotten": gone,
        },
        "metrics": {
            name: dict(zip(("title", "unit", "direction", "ideal", "reading"), about)) | {"version": 1}
            for name, about in METRICS.items()
        },
        "models": models,
        "verdicts": [_verdict(models, name, words[name], retrain) for name in shown if name != "retrain"],
        "examples": [_example(rng, i, shown, words, len(names), gone, texts) for i in range(8)],
        "notes": [] if retrain else ["No recipe was given, so nothing was retrained and no gap is known."],
    }


def manifest(results: dict[str, Any], text: str) -> dict[str, Any]:
    """What ``manifest.json`` might hold beside a ``results.json`` of this `text`."""
    digest = hashlib.blake2b(text.encode(), digest_size=32).hexdigest()
    keys = [f"{entry['method']}/{entry.get('seed')}" for entry in results["models"]]
    return {
        "command": "expunge run run.yaml --set methods.0.keep=0.3 --seeds 0-2",
        "created": "2026-11-21T09:00:00+00:00",
        "versions": {"expunge": "0.1.0", "torch": "2.9.0", "python": "3.11.7", "numpy": "2.4.6"},
        "platform": "Linux-6.1-x86_64",
        "seeds": [0, 1, 2],
        "request": {"hash": "8c1f" * 16, "forget": 146, "classes": [3]},
        "data": {"name": "digits", "hash": "77aa" * 16},
        "recipe": {"model": "lenet", "epochs": 10, "lr": 0.05, "schedule": {"name": "cosine", "warmup": 0}},
        "methods": [{"row": e["method"], "seed": e.get("seed"), **e.get("settings", {})} for e in results["models"]],
        "models": {key: hashlib.blake2b(key.encode(), digest_size=32).hexdigest() for key in keys},
        "files": {"results.json": digest},
    }


def save(folder: Path, results: dict[str, Any], with_manifest: bool = True) -> Path:
    """`folder`, with the files of a dossier in it."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results)
    (folder / "results.json").write_text(text, encoding="utf-8")
    if with_manifest:
        (folder / "manifest.json").write_text(json.dumps(manifest(results, text)), encoding="utf-8")
    return folder


# How far each verdict is on the way from original (0) to retrain (1), and what it does to the kept classes.
_PLACE = {"no effect": 0.05, "partly": 0.6, "overdone": 1.04, "model damaged": 1.0, "cannot say": 0.8}


def _model(
    rng: np.random.Generator,
    name: str,
    word: str | None,
    seed: int,
    classes: int,
    gone: list[int],
    ideal: bool,
) -> dict[str, Any]:
    way = _PLACE.get(word or "", 1.0) + rng.normal(0, 0.01)
    hurt = 18.0 if word == "model damaged" else 0.0
    span = 92.0 if gone else 8.0
    forget = float(np.clip(2 + span * way + rng.normal(0, 0.6), 0, 100))
    target = {"ua": 2 + span, "ra": 99.0, "ta": 96.5, "tfa": 4.0, "mia": 95.0, "relearn": 7, "distance": 20.0}
    values = {
        "ua": forget,
        "ra": 99 - hurt + rng.normal(0, 0.3),
        "ta": 96.5 - hurt * 1.2 + rng.normal(0, 0.5),
        "tfa": max(98 - forget, 0.0) if gone else None,
        "mia": float(np.clip(9 + 86 * way + rng.normal(0, 2), 0, 100)),
        "auc_loss": 0.5 + 0.4 * abs(1 - way) + rng.normal(0, 0.01),
        "auc_confidence": 0.5 + 0.38 * abs(1 - way) + rng.normal(0, 0.01),
        "auc_margin": 0.5 + 0.35 * abs(1 - way) + rng.normal(0, 0.01),
        "balanced_accuracy": 50 + 30 * abs(1 - way) + abs(rng.normal(0, 1)),
        "tpr_at_1fpr": 1 + 12 * abs(1 - way),
        "avg_gap": abs(1 - way) * 45 + hurt / 2 if ideal else None,
        "tow": float(np.clip(way, 0, 2 - way)) * (1 - hurt / 100) if ideal else None,
        "agreement": 97 - hurt,
        "zrf": 0.4 + 0.5 * min(way, 1),
        "relearn": int(1 + 6 * way),
        "distance": 20.0 + rng.normal(0, 1) if name != "retrain" else 0.0,
    }
    measured: dict[str, Any] = {}
    for metric, value in values.items():
        if value is None:
            continue
        gap = float(value - target[metric]) if ideal and metric in target and name != "retrain" else None
        reach = 2.0 if METRICS[metric][1] == "%" else 0.02
        ends = {"low": float(value) - reach, "high": float(value) + reach}
        measured[metric] = {"value": float(value), **ends, "gap": gap}
    if name == "gradient_ascent":
        measured["relearn"] = {"failed": "the loss became infinite in epoch 3, after 1,200 examples"}
    accuracy = np.clip(97 - hurt * rng.uniform(0.2, 1.8, classes) + rng.normal(0, 1, classes), 0, 100)
    accuracy[gone] = 100 - forget
    predicted = rng.dirichlet(np.full(classes, 0.5)) * min(forget, 100) / 100
    if gone:
        predicted[gone[0]] += 1 - predicted.sum()
    slow = {"original": 6.1, "retrain": 5.9, "retrain_again": 6.0}.get(name)
    seconds = (slow or rng.uniform(0.2, 2.5)) + rng.normal(0, 0.02)
    return {
        "method": name,
        "seed": seed,
        "settings": {} if slow else {"epochs": 5, "lr": 0.01, "region": {"kind": "top", "share": 0.3}},
        "source": "trained" if slow else "unlearned",
        "measurements": measured,
        "cost": {
            "seconds": float(seconds),
            "examples": int(seconds * 2000),
            "ratio": float(seconds / 5.9) if ideal else None,
            "cached": bool(slow),
        },
        "by_class": {"seen": [float(v) for v in accuracy], "unseen": [float(v) for v in accuracy]},
        "attacks": {kind: _curve(rng, 1 - way, i) for i, kind in enumerate(("loss", "confidence", "margin"))},
        "histogram": _histogram(rng, way),
        "predicted": [float(v) for v in predicted],
        "layers": {
            layer: 0.0 if name == "original" or (name == "svd_forget" and "head" not in layer) else float(v)
            for layer, v in zip(LAYERS, 10 ** rng.uniform(-4, -0.5, len(LAYERS)))
        },
        "hash": hashlib.blake2b(f"{name}/{seed}".encode(), digest_size=32).hexdigest(),
    }


def _curve(rng: np.random.Generator, left: float, which: int) -> dict[str, list[float]]:
    member, other = rng.normal(2.2 * left - 0.2 * which * left, 1, 146), rng.normal(0, 1, 360)
    cuts = np.sort(np.r_[member, other])[::-6]
    return {
        "fpr": [0.0, *(float((other >= cut).mean()) for cut in cuts), 1.0],
        "tpr": [0.0, *(float((member >= cut).mean()) for cut in cuts), 1.0],
    }


def _histogram(rng: np.random.Generator, way: float) -> dict[str, list[float]]:
    edges = np.linspace(-10, 14, 41)
    parts = {
        "forget": rng.normal(6 - 9 * way, 2, 146),
        "unseen": rng.normal(5, 3, 360),
        "retain": rng.normal(7, 2, 1291),
    }
    shares = {k: np.histogram(np.clip(v, -10, 14), edges)[0] / len(v) for k, v in parts.items()}
    return {"edges": edges.tolist(), **{k: v.tolist() for k, v in shares.items()}}


def _verdict(models: list[dict[str, Any]], name: str, word: str, ideal: bool) -> dict[str, Any]:
    if not ideal:
        sentence = "Without retraining there is nothing to compare with; give a recipe to make it possible."
        return {"method": name, "word": word, "sentence": sentence, "metric": "ua"} | dict.fromkeys(
            ("difference", "low", "high", "visible")
        )
    metric = "ta" if word == "model damaged" else "ua"
    mean = {
        who: float(np.mean([e["measurements"][metric]["value"] for e in models if e["method"] == who]))
        for who in (name, "retrain")
    }
    apart = mean[name] - mean["retrain"]
    sentence = {
        "no effect": f"The model still knows {100 - mean[name]:.0f} % of the forgotten examples, as before.",
        "partly": f"The forget error is {abs(apart):.0f} points short of retraining's.",
        "overdone": "The forgotten examples are wrong more often than retraining gets them wrong.",
        "model damaged": f"Accuracy on what stays fell {abs(apart):.0f} points below retraining's.",
    }.get(word, "No difference to retraining that this audit could have seen (smallest: 2.9 points).")
    return {
        "method": name,
        "word": word,
        "sentence": sentence,
        "metric": metric,
        "difference": apart,
        "low": apart - 2.6,
        "high": apart + 2.6,
        "visible": 2.9,
    }


def _example(
    rng: np.random.Generator,
    index: int,
    shown: list[str],
    words: dict[str, str],
    classes: int,
    gone: list[int],
    texts: bool,
) -> dict[str, Any]:
    label = gone[0] if gone else int(rng.integers(classes))
    other = int(rng.integers(classes))
    known = ("no effect", "partly" if index % 2 else "")
    text = "I have a 386 with a loose card & <b>no</b> manual; does anybody know which jumper sets the address? " * 3
    return {
        "id": str(17 + 31 * index),
        "label": label,
        "image": None if texts else png(rng.integers(0, 255, (8, 8), dtype=np.uint8)),
        "text": text if texts else None,
        "predicted": {name: label if words.get(name) in known else other for name in shown},
    }


def png(pixels: np.ndarray) -> str:
    """A greyscale picture as a data URI."""
    height, width = pixels.shape
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()
