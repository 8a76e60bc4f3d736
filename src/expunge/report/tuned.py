"""Rows that were tuned on a retrained model: told to be so wherever their name is shown."""

from __future__ import annotations

from typing import Any

from expunge.report.tables import REFERENCES

TUNED = "tuned on retraining"
NOTE = (
    f"Rows that are {TUNED} had their strength chosen by the distance to a retrained model. Whoever has that model "
    "needs no unlearning: they say how near a method can come, not how near it comes."
)


def is_tuned(settings: Any) -> bool:
    """Whether a method with these settings, plain data, looked at a retrained model; also as a step or part of one."""
    if isinstance(settings, dict):
        here = settings.get("name") == "search" and settings.get("select") == "oracle_gap"
        return here or any(map(is_tuned, settings.values()))
    return isinstance(settings, (list, tuple)) and any(map(is_tuned, settings))


def labelled(results: dict[str, Any]) -> dict[str, Any]:
    """The results under the names that are shown: those of tuned rows say so, and a note says what it means.

    Args:
        results: what ``results.json`` holds; it is not changed, and its own names stay the keys to look rows up by.
    """
    tuned = {str(e["method"]) for e in results["models"] if is_tuned(e.get("settings"))} - set(REFERENCES)
    if not tuned:
        return results
    taken = {str(e["method"]) for e in results["models"]}
    names = {}
    for method in sorted(tuned):
        shown = method if TUNED in method else f"{method} ({TUNED})"
        while shown != method and shown in taken:
            shown += "*"
        names[method] = shown

    def renamed(entry: dict[str, Any]) -> dict[str, Any]:
        method = str(entry["method"])
        return {**entry, "method": names.get(method, method)}

    examples = [
        {**one, "predicted": {names.get(str(k), k): v for k, v in (one.get("predicted") or {}).items()}}
        for one in results.get("examples") or []
    ]
    return {
        **results,
        "models": [renamed(entry) for entry in results["models"]],
        "verdicts": [renamed(verdict) for verdict in results["verdicts"]],
        "examples": examples,
        "notes": [*(results.get("notes") or []), NOTE],
    }
