"""Dossier: an audit's results as an object and as a folder that can be read in ten years."""

from __future__ import annotations

import csv
import datetime
import io as text_io
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import expunge
from expunge import io
from expunge.artifact import Store
from expunge.artifact.gates import Gated, explained
from expunge.audit.generation.judge import judge_generation
from expunge.audit.generation.settings import Generation
from expunge.audit.judge import judge
from expunge.audit.lineup import ORIGINAL, Entrant, Terms, seeds_of
from expunge.audit.measure import ATTACKS
from expunge.audit.relearn import Relearn
from expunge.audit.subject import Cost
from expunge.data.adapt import rows_like
from expunge.data.rows import Rows
from expunge.data.unseen import shared_rows
from expunge.errors import ExpungeError, raise_if
from expunge.gone import judged_after, record
from expunge.method import Result
from expunge.pool import Pool
from expunge.recipe import Recipe, TrainedBy, as_recipe
from expunge.report import draw, summary
from expunge.report.tuned import TUNED, is_tuned
from expunge.request import Request
from expunge.run import Run
from expunge.task import Diffusion, Task
from expunge.unlearning import asked_for

LEADING = ("ua", "ra", "ta", "tfa", "mia", "avg_gap", "tow")
GENERATED = ("recognised", "others", "fid")  # of denoisers


@dataclass(frozen=True)
class Report:
    """What an audit found: print it, read its rows, or save it as a dossier.

    Args:
        results: everything that was measured, as plain data.
        manifest: how it was made: versions, seeds, hashes, settings.
    """

    results: dict[str, Any] = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row for each model and seed, with the columns of results.csv.

        First `method, seed, ua, ra, ta, tfa, mia, avg_gap, tow, seconds, verdict`, then every other number; of
        denoisers `recognised, others, fid` in place of ua to tow. A number that could not be had is None here;
        `results` says why. `censored` names numbers that are only bounds, where a row has such. A row that
        was tuned on a retrained model has a `note` that says so.
        """
        return [_row(entry) for entry in self.results["models"]]

    @property
    def verdicts(self) -> dict[str, dict[str, Any]]:
        """The verdict on each method: word, sentence, the metric that decides, the difference and its interval."""
        return {v["method"]: v for v in self.results["verdicts"]}

    def __str__(self) -> str:
        return summary(self.results)

    def save(self, folder: str | Path, *, force: bool = False) -> Path:
        """Write results.json, results.csv, manifest.json and report.html; returns the page's path.

        Raises:
            ExpungeError: the folder is not empty (unless `force`), or cannot be written.
        """
        folder = io.output_folder(Path(folder), force)
        io.write_json(folder / "results.json", self.results)
        io.write_atomically(folder / "results.csv", lambda path: path.write_bytes(_csv(self.rows).encode()))
        files = {name: io.file_digest(folder / name) for name in ("results.json", "results.csv")}
        io.write_json(folder / "manifest.json", {**self.manifest, "files": files})
        return draw(folder)


def audit(
    models: Mapping[str, Any],
    request: Request,
    *,
    unseen: Any,
    recipe: Any = None,
    task: Task | None = None,
    seeds: int | Iterable[int] = 3,
    attacks: Sequence[str] = ATTACKS,
    relearn: bool | Mapping[str, Any] | Relearn = True,
    examples: int = 8,
    generation: Mapping[str, Any] | Generation | None = None,
    device: str | None = None,
    cache: str | Path | bool = True,
    command: str | None = None,
) -> Report:
    """Judge models against exact retraining: measurements with intervals, and a verdict in words for each.

    Args:
        models: for the name of each row a module, a `Result`, or a list of them, one for each seed. The row
            `original` is the model before unlearning; it is trained by the recipe when it is not given.
        request: what had to go; for a `Result`, use `result.request`.
        unseen: rows never trained on: `Rows`, a dataset, or a pair (x, y).
        recipe: how the model was trained. Without it there is no retraining, and the verdicts say so.
        task: what the models compute. Default: classification over the data's classes; for a `UNet2DModel`, diffusion.
        seeds: how many (0, 1, …), or which, retrainings to make. Default 3; two at least, as one has no spread.
        attacks: features of the membership attacks. Default: all five.
        relearn: measure relearn time; `True` (default), `False`, or settings such as `{"max_epochs": 20}`.
        examples: so many of the forgotten rows are shown in the report, with id and content; 0 keeps them out.
            Default 8.
        generation: how the images of denoisers are drawn and judged: settings such as `{"samples": 200}`; see
            docs/diffusion.md.
        device: where models are trained, such as `"cuda"`. Default: where the first of the given models is, or the CPU.
            Models that are given are judged where they are.
        cache: keep trained models between runs: `True` (default: `$EXPUNGE_CACHE` or the user's cache folder),
            `False`, or a folder.
        command: the command that led here, for the record.

    Raises:
        ExpungeError: models, data or settings that do not fit; before compute.

    Cost: the retrainings that are not kept already; then a forward pass over all rows for each model, and relearning.
    """
    if not isinstance(request, Request):
        raise ExpungeError(f"The request must be an expunge.Request; got {type(request).__name__}.")
    if not isinstance(models, Mapping):
        raise ExpungeError(f"Models are given by name, e.g. {{'original': model}}; got {type(models).__name__}.")
    terms = replace(make_terms(seeds, attacks, relearn, examples, generation), device=device)
    unseen_rows = rows_like(unseen, request.rows)
    given = {str(name): _listed(some) for name, some in models.items()}
    entrants = {name: [_entrant(name, m, unseen_rows) for m in some] for name, some in given.items()}
    originals = [record(entrant.model) for entrant in entrants.get(ORIGINAL, [])]
    files = {n: [record(m) for m in some if isinstance(m, nn.Module)] for n, some in given.items() if n != ORIGINAL}
    request = judged_after(request, originals, files)
    raise_if(_other_requests(given, request))
    known = as_recipe(recipe) if recipe is not None else None
    if not entrants and known is None:
        raise ExpungeError("There is nothing to audit: give models, or a recipe.")
    pool, store = None, None if cache is False else Store(None if cache is True else cache)
    first = [e.model for some in (entrants.get(ORIGINAL, []), *entrants.values()) for e in some][:1]
    if known is not None:
        # only a recipe that cannot build its model needs one to put weights into
        pool = Pool(known, request.rows, store, None if isinstance(known, Recipe) or not first else first[0])
    model = first[0] if first else None if task else _blank(known, request.rows)
    task = asked_for(task, request, model, known)
    if isinstance(task, Diffusion):
        results = judge_generation(entrants, request, unseen_rows, task, pool, store, terms)
    else:
        results = judge(entrants, request, unseen_rows, task, pool, terms)
    results["notes"] += shared_rows(unseen_rows, request.rows)
    return Report(results, _manifest(results, request, unseen_rows, known, terms, command))


def make_terms(
    seeds: int | Iterable[int] = 3,
    attacks: Sequence[str] = ATTACKS,
    relearn: bool | Mapping[str, Any] | Relearn = True,
    examples: int = 8,
    generation: Mapping[str, Any] | Generation | None = None,
) -> Terms:
    """What an audit is to do, from what people give; see `audit`.

    Raises:
        ExpungeError: seeds that are no whole numbers, an unknown attack, settings that relearning or generation does
            not have.
    """
    names = (attacks,) if isinstance(attacks, str) else tuple(attacks)
    how = None if generation is None else Generation.of(generation)
    return Terms(seeds_of(seeds), names, _relearning(relearn), examples, generation=how)


def _manifest(
    results: Mapping[str, Any],
    request: Request,
    unseen: Rows,
    recipe: TrainedBy | None,
    terms: Terms,
    command: str | None,
) -> dict[str, Any]:
    return {
        "command": command or " ".join(sys.argv),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "platform": f"{platform.platform()}, {torch.get_num_threads()} threads",
        "seeds": list(terms.seeds),
        "request": {
            "hash": request.hash,
            "forget": len(request.forget),
            "keep": len(request.keep),
            "text": request.text,
        },
        "data": {"name": request.rows.name, "hash": request.rows.hash, "unseen_hash": unseen.hash},
        "recipe": recipe.describe() if recipe is not None else None,
        "methods": [{"row": m["method"], "seed": m["seed"], **m["settings"]} for m in results["models"]],
        "models": {f"{m['method']}/{m['seed']}": m["hash"] for m in results["models"] if m["hash"]},
        "audit": {
            "attacks": list(terms.attacks),
            "relearn": None if terms.relearning is None else vars(terms.relearning),
        },
    }


def versions() -> dict[str, str]:
    """The versions of everything that the numbers depend on."""
    from importlib.metadata import version

    found = {name: version(name) for name in ("torch", "numpy", "scipy", "scikit-learn")}
    return {"expunge": expunge.__version__, "python": platform.python_version(), **found}


def _blank(recipe: TrainedBy | None, rows: Rows) -> nn.Module | None:
    """An untrained model of the recipe's kind, where it can make one."""
    with Run().isolated():
        return None if recipe is None else recipe.blank(rows)


def _listed(some: Any) -> list[Any]:
    return list(some) if isinstance(some, (list, tuple)) else [some]


def _other_requests(given: Mapping[str, Sequence[Any]], request: Request) -> list[str]:
    return [
        f"{name} was made for another request: {m.request.text} "
        + ("Give its model alone, {'original': result.model}." if name == ORIGINAL else "Audit it with result.request.")
        for name, some in given.items()
        for m in some
        if isinstance(m, Result) and m.request.hash != request.hash
    ]


def facts_of(result: Result, unseen: Rows) -> dict[str, Any]:
    """What a method measured and had to say; where it learned gates, also how these explain classes, on unseen rows."""
    facts = {**result.log.facts, **({"notes": result.log.notes} if result.log.notes else {})}
    if isinstance(gated := result.made.get("gates"), Gated):
        facts["explained"] = explained(gated, unseen, result.request.classes)
    return facts


def _entrant(name: str, given: Any, unseen: Rows) -> Entrant:
    if isinstance(given, nn.Module):
        return Entrant(given)
    if isinstance(given, Result):
        cost = Cost(given.seconds, given.log.examples)
        return Entrant(given.model, cost, "unlearned", given.method.to_config(), facts_of(given, unseen))
    if isinstance(given, Entrant):
        return given
    raise ExpungeError(f"{name} must be a torch.nn.Module or a Result, or a list of them; got {type(given).__name__}.")


def _relearning(relearn: bool | Mapping[str, Any] | Relearn) -> Relearn | None:
    if isinstance(relearn, Relearn):
        return relearn
    if isinstance(relearn, bool):
        return Relearn() if relearn else None
    if not isinstance(relearn, Mapping):
        raise ExpungeError(f"relearn must be true, false, or settings such as max_epochs: 20; got {relearn!r}.")
    return Relearn(**{str(name): value for name, value in relearn.items()})


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {name: m.get("value") for name, m in entry["measurements"].items()}
    cost = entry["cost"]
    leading = {n: numbers.get(n) for n in (GENERATED if "recognised" in numbers else LEADING)}
    row = {"method": entry["method"], "seed": entry["seed"], **leading}
    row |= {"seconds": cost["seconds"], "verdict": entry["verdict"]}
    row |= {n: value for n, value in numbers.items() if n not in leading}
    row |= {"cost_ratio": cost["ratio"], "examples": cost["examples"]}
    if bounds := [n for n, m in entry["measurements"].items() if m.get("censored")]:
        row["censored"] = " ".join(bounds)
    return {**row, "note": TUNED} if is_tuned(entry.get("settings")) else row


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    buffer = text_io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
