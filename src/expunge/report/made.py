"""How a report came about: the command, seeds, versions, settings and hashes, flattened for reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from expunge.report import wording
from expunge.report.tables import entries_of, methods_of

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Made:
    """What the page says about its own making.

    Args:
        command: as it was typed; empty where it was not saved.
        facts: date, seeds, platform and the like.
        versions: package to version.
        groups: further parts, ``(title, pairs)``.
        hashes: model or file to its digest.
        manifest: whether there was a manifest.
    """

    command: str
    facts: Pairs
    versions: Pairs
    groups: list[tuple[str, Pairs]]
    hashes: Pairs
    manifest: bool


def made(results: dict[str, Any], manifest: dict[str, Any] | None) -> Made:
    """What is known about how `results` came about; without a manifest, what they say themselves."""
    known = manifest or {}
    seeds = known.get("seeds") or list(dict.fromkeys(entry["seed"] for entry in results["models"]))
    facts = [
        ("created", known.get("created") or results.get("created")),
        ("seeds", ", ".join(map(str, seeds)) if isinstance(seeds, list) else seeds),
        ("platform", known.get("platform")),
        ("measurements", f"schema {results['schema']}"),
    ]
    versions = flat(known.get("versions") or {}) or [("expunge", str(results.get("expunge", "unknown")))]
    groups = [(part, flat(known[part])) for part in ("request", "data", "recipe") if known.get(part)]
    groups += [(f"{method} settings", pairs) for method, pairs in _settings(results)]
    hashes = flat(known.get("models") or {}) or [
        (f"{entry['method']}/{entry['seed']}", str(entry["hash"])) for entry in results["models"] if entry.get("hash")
    ]
    return Made(
        command=str(known.get("command") or ""),
        facts=[(name, str(value)) for name, value in facts if value not in (None, "")],
        versions=versions,
        groups=groups,
        hashes=hashes + flat(known.get("files") or {}),
        manifest=manifest is not None,
    )


def flat(value: Any, prefix: str = "") -> Pairs:
    """`value` as ``(dotted name, text)`` pairs.

    Args:
        value: nested dicts and lists out of JSON.
        prefix: put before each name.
    """
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in flat(inner, f"{prefix}.{key}".lstrip("."))]
    if isinstance(value, list) and any(isinstance(inner, (dict, list)) for inner in value):
        return [pair for i, inner in enumerate(value) for pair in flat(inner, f"{prefix}.{i}".lstrip("."))]
    if isinstance(value, list):
        text = ", ".join(map(str, value[:50])) + (f" … ({len(value)} in all)" if len(value) > 50 else "")
        return [(prefix or "value", text)]
    text = "–" if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    return [(prefix or "value", wording.label(text, 2000))]


def _settings(results: dict[str, Any]) -> list[tuple[str, Pairs]]:
    found = []
    for method in methods_of(results):
        settings = next((e["settings"] for e in entries_of(results, method) if e.get("settings")), None)
        if settings and (pairs := flat(settings)):
            found.append((method, pairs))
    return found
