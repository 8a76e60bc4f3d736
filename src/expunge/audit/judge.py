"""judge: models and a request in, everything that was measured out."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

import expunge
from expunge.audit.details import bin_edges, details, examples
from expunge.audit.lineup import AGAIN, ORIGINAL, RETRAIN, Entrants, Lineup, Terms, line_up
from expunge.audit.measure import Measurements, Peers, measure, relearn_time
from expunge.audit.metric import METRICS
from expunge.audit.relearn import RelearnTime
from expunge.audit.subject import Ground, Subject
from expunge.audit.verdict import DAMAGED, Judge, Verdict, residue, without_retraining
from expunge.data.rows import Rows
from expunge.errors import ExpungeError
from expunge.io import model_digest
from expunge.outputs import outputs
from expunge.pool import Pool
from expunge.request import Request
from expunge.run import progress_bar
from expunge.task.base import Task
from expunge.untrained import untrained

SCHEMA = 1


def judge(
    entrants: Entrants, request: Request, unseen: Rows, task: Task, pool: Pool | None, terms: Terms
) -> dict[str, Any]:
    """Everything that is measured of these models and of retraining, as plain data that JSON can hold.

    Args:
        entrants: for the name of each row, a model, or one for each seed.
        request: what had to go.
        unseen: rows never trained on.
        task: what the models compute.
        pool: trains the recipe; none when it is not known.
        terms: seeds, attacks, relearning.

    Raises:
        ExpungeError: models or unseen rows that do not fit the data, before compute.

    Cost: the retrainings (two at least) that are not kept already, and for each model a forward pass over all rows.
    """
    ground = Ground.of(request, unseen)
    lineup = line_up(entrants, request, task, ground, pool, terms)
    damaged = {id(s): str(e) for s in lineup.subjects if (e := _damage(s)) is not None}
    sound = [s for s in lineup.subjects if id(s) not in damaged]
    if not sound:
        raise ExpungeError("; ".join(damaged.values()))
    entries = _measured(lineup, sound, ground, terms)
    verdicts = _verdicts(lineup, damaged, pool)
    if request.scope == "class":
        verdicts = [residue(v, _epochs(entries, v.method), _epochs(entries, RETRAIN)) for v in verdicts]
    words = {v.method: v.word for v in verdicts}
    for entry in entries:
        entry["verdict"] = words.get(entry["method"], "reference")
    return {
        "schema": SCHEMA,
        "expunge": expunge.__version__,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "question": question_of(request, ground),
        "metrics": {n: _about(n) for n in METRICS if any(n in e["measurements"] for e in entries)},
        "models": entries,
        "verdicts": [v.to_json() for v in verdicts],
        "examples": examples(sound, ground, terms.examples),
        "notes": _notes(lineup, terms, entries),
    }


def _damage(subject: Subject) -> str | None:
    try:
        len(subject.forget), len(subject.retain), len(subject.unseen), len(subject.alike)
    except ExpungeError as error:
        return str(error)
    return None


def _measured(lineup: Lineup, sound: list[Subject], ground: Ground, terms: Terms) -> list[dict[str, Any]]:
    scores = _untrained_scores(sound[0], ground)
    edges = bin_edges(list({s.method: s for s in reversed(sound)}.values()))  # of each row, the first that is sound
    relearned = {s.seed: _relearned(s, lineup, terms) for s in lineup.of(RETRAIN)}
    numbers: dict[int, Measurements] = {}
    entries = []
    order = sorted(lineup.subjects, key=lambda s: s.method != RETRAIN)  # its numbers are the others' reference
    with progress_bar("audit", len(order), True) as tick:
        for s in order:
            retrained, original = lineup.pair(RETRAIN, s.seed), lineup.pair(ORIGINAL, s.seed)
            time = relearned.get(retrained.seed) if retrained else None
            peers = Peers(retrained, original, scores, terms.attacks, terms.relearning, time)
            numbers[id(s)] = measure(s, peers, numbers.get(id(retrained)))
            tick(s.method)
    mean_seconds = _retrain_seconds(lineup)
    for s in lineup.subjects:
        base = numbers.get(id(lineup.pair(RETRAIN, s.seed)))
        extra = details(s, lineup.pair(ORIGINAL, s.seed), terms.attacks, edges) if s in sound else {}
        entries.append({**entry_of(s, numbers[id(s)], base, mean_seconds), **extra})
    return entries


def _untrained_scores(subject: Subject, ground: Ground) -> Tensor | str:
    try:
        return outputs(untrained(subject.model), subject.task, ground.forget)
    except ExpungeError as error:
        return str(error)


def _relearned(retrained: Subject, lineup: Lineup, terms: Terms) -> RelearnTime | None:
    original = lineup.pair(ORIGINAL, retrained.seed)
    if original is None or terms.relearning is None:
        return None
    try:
        return relearn_time(retrained, original, terms.relearning)
    except ExpungeError:  # one of them is damaged; `measure` says so of each model
        return None


def _retrain_seconds(lineup: Lineup) -> float | None:
    known = [s.cost.seconds for s in lineup.of(RETRAIN) if s.cost.seconds]
    return float(np.mean(known)) if known else None


def entry_of(s: Subject, found: Measurements, base: Measurements | None, retraining: float | None) -> dict[str, Any]:
    """What is saved of one model: its numbers, each with its gap to the retrained one's, cost and digest."""
    measurements = {}
    for name, estimate in found.items():
        measurements[name] = estimate.to_json()
        if estimate.ok:
            other = base.get(name) if base is not None else None
            known = other is not None and other.ok and not (estimate.censored or other.censored)
            measurements[name]["gap"] = estimate.value - other.value if other is not None and known else None
    seconds = s.cost.seconds
    return {
        "method": s.method,
        "seed": s.seed,
        "settings": dict(s.settings),
        "facts": dict(s.facts),
        "source": s.source,
        "measurements": measurements,
        "cost": {
            "seconds": seconds,
            "examples": s.cost.examples,
            "ratio": seconds / retraining if seconds is not None and retraining else None,
            "cached": s.cost.cached,
        },
        "hash": None if s.failed else model_digest(s.model),
    }


def _verdicts(lineup: Lineup, damaged: dict[int, str], pool: Pool | None) -> list[Verdict]:
    retrained, original = lineup.of(RETRAIN), lineup.of(ORIGINAL)
    judged = [m for m in lineup.methods if m not in (RETRAIN, AGAIN)]
    bench = None
    if len(retrained) > 1 and original and not any(id(s) in damaged for s in [*retrained, *original]):
        bench = Judge(retrained, original)
    found = []
    for method in judged:
        subjects = lineup.of(method)
        broken = [damaged[id(s)] for s in subjects if id(s) in damaged]
        if broken:
            no_model = any(s.failed for s in subjects)
            opening = "There is no model to judge" if no_model else "The model lost everything"
            found.append(Verdict(method, DAMAGED, f"{opening}: {broken[0]}"))
        elif bench is None:
            found.append(without_retraining(method, _what_is_missing(lineup, damaged, pool)))
        else:
            found.append(bench.verdict(method, subjects))
    return found


def _epochs(entries: list[dict[str, Any]], method: str) -> list[float]:
    """The relearn times of a method's models."""
    found = [e["measurements"].get("relearn", {}) for e in entries if e["method"] == method]
    return [m["value"] for m in found if "value" in m]


def _what_is_missing(lineup: Lineup, damaged: dict[int, str], pool: Pool | None) -> str:
    broken = [damaged[id(s)] for s in [*lineup.of(ORIGINAL), *lineup.of(RETRAIN)] if id(s) in damaged]
    if broken:
        return f"{broken[0]} Give a sound one."
    if pool is None and len(lineup.of(RETRAIN)) < 2:
        return "Give recipe=, how the model was trained, and the audit trains such models itself."
    return "Give the original model under the name 'original' as well."


def question_of(request: Request, ground: Ground) -> dict[str, Any]:
    """What was asked, for those who read the results."""
    return {
        "text": request.text,
        "scope": request.scope,
        "data": request.rows.name,
        "forget": len(request.forget),
        "keep": len(request.keep),
        "gone": len(request.gone),
        "unseen": len(ground.unseen) + (len(ground.forgotten) if ground.forgotten is not None else 0),
        "classes": list(request.rows.classes),
        "forgotten": list(request.classes),
    }


def _about(name: str) -> dict[str, Any]:
    metric = dict(vars(METRICS[name]))
    metric.pop("name")
    return metric


def _notes(lineup: Lineup, terms: Terms, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = []
    if not lineup.of(RETRAIN):
        notes.append("There is no retrained model to compare with, so no number here says whether the rows are gone.")
    if not lineup.of(ORIGINAL):
        notes.append("There is no original model to compare with, so it cannot be said what unlearning changed.")
    if any(s.cost.cached for s in lineup.subjects if s.method in (ORIGINAL, RETRAIN)):
        notes.append("Some training times were measured by an earlier run; ratios to them hold for like machines only.")
    if terms.relearning is not None:
        notes.append(_cut_short(entries, terms.relearning.max_epochs))
    return notes + lineup.of_another_kind + lineup.said


def _cut_short(entries: Sequence[Mapping[str, Any]], epochs: float) -> str:
    """Which models were not relearnt when counting ended."""
    seeds: dict[str, list[str]] = {}
    for entry in entries:
        if entry["measurements"].get("relearn", {}).get("censored"):
            seeds.setdefault(entry["method"], []).append(str(entry["seed"]))
    which = "; ".join(f"{method} (seed {', '.join(some)})" for method, some in seeds.items())
    told = f" Not relearnt by then, and so at least at that number: {which}." if which else ""
    return f"Relearning ends after {epochs:g} epoch{'s' * (epochs != 1)}.{told}"
