"""conduct: make what an experiment needs, seed by seed, and judge it. Interrupted, it goes on where it was."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed
from torch import Tensor, nn

from expunge import io
from expunge.artifact import Store
from expunge.artifact.ledger import Ledger
from expunge.audit.lineup import ORIGINAL, RETRAIN, Entrant
from expunge.audit.subject import Cost
from expunge.dossier import Report, audit, facts_of
from expunge.errors import Diverged, ExpungeError
from expunge.experiment import Experiment, from_dict
from expunge.experiment.folder import claim, failure_path, model_path, refuse_strange
from expunge.method import Method
from expunge.methods.amnesiac import Amnesiac
from expunge.pool import Pool
from expunge.request import GONE
from expunge.retrace import Retrace
from expunge.run import Run
from expunge.source import describe_function
from expunge.structure import structure_digest
from expunge.unlearning import default_task, unlearn


def conduct(experiment: Experiment, *, jobs: int = 1, force: bool = False, command: str | None = None) -> Report:
    """Train, unlearn and judge as the experiment says, and write the dossier.

    Args:
        experiment: what to do.
        jobs: processes; seeds are shared among them. Default 1.
        force: write into a folder that holds another experiment.
        command: for the record.

    Raises:
        ExpungeError: the folder holds another experiment, or one of another version; before compute.

    Models are kept as soon as they are made, so the same call goes on after an interruption.
    """
    if experiment.recipe is None and experiment.weights is None:
        raise ExpungeError("A run needs a recipe, or weights of the original; expunge audit judges models that exist.")
    claim(experiment, force)
    seeds = experiment.terms.seeds
    if jobs > 1 and len(seeds) > 1:
        threads = torch.get_num_threads()  # the same in each process: another number may round differently
        Parallel(n_jobs=jobs)(delayed(_make_apart)(experiment.config, seed, threads, sys.path) for seed in seeds)
    pool = _pool(experiment)
    made = [make(experiment, seed, pool) for seed in seeds]
    entrants = {row: [m[row] for m in made] for row in made[0]}
    report = _judged(experiment, entrants, command)
    try:
        if experiment.ledger is not None:
            report.results["ledger"] = retraced(experiment, made[0])
    except ExpungeError as error:  # such as a ledger that was purged, or is damaged
        report.results["notes"].append(f"The ledger cannot be retraced, so its curves are left out: {error}")
    finally:  # whatever happens to the curves must not cost the report
        report.save(experiment.out, force=True)
    return report


def judge_given(experiment: Experiment, *, force: bool = False, command: str | None = None) -> Report:
    """Judge models that exist: those the file names under `models`, or those that a run left in the folder.

    Args:
        experiment: with the models' files, or of the run.
        force: write into a folder that holds something else, and remove nothing there. Models that a run left are
            judged in its own folder only, whatever this says.
        command: for the record.

    Raises:
        ExpungeError: there are none, weights that do not fit, or the folder holds something else.
    """
    files = experiment.given or _left_by_run(experiment)
    entrants = {row: [_loaded(experiment, path) for path in paths] for row, paths in files.items()}
    claim(experiment, force and bool(experiment.given))
    report = _judged(experiment, entrants, command)
    report.save(experiment.out, force=True)
    return report


def retraced(experiment: Experiment, made: Mapping[str, Entrant]) -> dict[str, Any]:
    """The first seed's ledger as curves and maps, for those rows that subtract from it.

    Raises:
        ExpungeError: there is no such ledger, it is damaged or was purged, or the models are no classifiers.
    """
    request, run = experiment.request, Run(seed=experiment.terms.seeds[0], device=experiment.device)
    pool = _pool(experiment)
    if pool is None:
        raise ExpungeError("There is no recipe, and so no ledger of its training.")
    there = (request.state != GONE).nonzero().flatten()
    original, ledger = pool.recorded(there, run)
    task = default_task(request, original.model, experiment.recipe)
    if task.family != "classifier":
        raise ExpungeError(f"Accuracy along the way is told of classifiers; this is a {task.family} model.")
    there_are = [row for row, entrant in made.items() if not entrant.failed]
    rows = {row: m.share_kept for row, m in experiment.methods.items() if isinstance(m, Amnesiac) and row in there_are}
    models = {row: made[row].model for row in (ORIGINAL, *rows, RETRAIN) if row in there_are}
    told = Retrace(original.model, ledger, request, experiment.unseen, task, run)
    return told.tell(rows, models)


def make(experiment: Experiment, seed: int, pool: Pool | None = None) -> dict[str, Entrant]:
    """The original, the retrained and the unlearned models of one seed; what is there already is read."""
    request, run = experiment.request, Run(seed=seed, device=experiment.device)
    pool = pool or _pool(experiment)
    ledger: Ledger | None = None
    if experiment.weights is not None:
        original = Entrant(experiment.load(experiment.weights)[0].to(run.device or "cpu"))
        if seed == experiment.terms.seeds[0]:
            _leave(original.model, model_path(experiment, ORIGINAL, seed))
    elif pool is not None:
        there = (request.state != GONE).nonzero().flatten()
        if experiment.ledger is not None:
            ledger = pool.recorded(there, run)[1]
            _tell_where(experiment, seed, ledger)
        original = _trained(pool, there, run)
        _leave(original.model, model_path(experiment, ORIGINAL, seed))
    else:
        raise ExpungeError("Give weights of the original, or a recipe to train it by.")
    made = {ORIGINAL: original}
    if pool is not None:
        made[RETRAIN] = _trained(pool, request.keep, run)
    for row, method in experiment.methods.items():
        made[row] = _unlearned(experiment, row, method, original.model, seed, ledger)
    return made


def _pool(experiment: Experiment) -> Pool | None:
    """What trains and keeps models by the recipe; none without one."""
    if experiment.recipe is None:
        return None
    return Pool(experiment.recipe, experiment.request.rows, Store(), experiment.blank())


def _unlearned(
    experiment: Experiment, row: str, method: Method, original: nn.Module, seed: int, ledger: Ledger | None
) -> Entrant:
    path, recipe = model_path(experiment, row, seed), experiment.recipe
    key = {
        "original": io.model_digest(original),
        "structure": structure_digest(original),
        "request": experiment.request.hash,
        "method": method.to_config(),
        "code": [describe_function(type(m)) for m in method.within],
        "recipe": recipe.describe() if recipe is not None else None,
        "unseen": experiment.held.hash if experiment.held is not None else None,
        "seed": seed,
    }
    kept = _kept(path, key, original)
    if kept is not None:
        return kept
    try:
        result = unlearn(
            original, experiment.request, method, recipe=recipe, ledger=ledger, unseen=experiment.held, seed=seed
        )
    except Diverged as error:  # the other methods are to be judged all the same
        path.unlink(missing_ok=True)
        io.write_json(failure_path(path), {"key": key, "failed": str(error)})
        return Entrant(original, Cost(), "unlearned", method.to_config(), failed=str(error))
    except ExpungeError as error:
        raise ExpungeError(f"{row}, seed {seed}: {error}") from error
    facts = io.plain(facts_of(result, experiment.unseen))
    about = {"key": io.plain(key), "seconds": result.seconds, "examples": result.log.examples, "facts": facts}
    about["digest"] = io.model_digest(result.model)
    failure_path(path).unlink(missing_ok=True)
    io.save_weights(path, result.model, about)
    return Entrant(result.model, Cost(result.seconds, result.log.examples), "unlearned", method.to_config(), facts)


def _tell_where(experiment: Experiment, seed: int, ledger: Ledger) -> None:
    """Write into the run's folder where the ledgers are, so that `expunge ledger FOLDER` finds them."""
    path = experiment.out / "ledgers.json"
    known = io.read_json(path) if path.is_file() else {}
    io.write_json(path, {**known, str(seed): str(ledger.path.resolve())})


def _leave(model: nn.Module, path: Path) -> None:
    """Leave an original where `expunge unlearn` can start from it, unless this very one or somebody's file is there."""
    digest = io.model_digest(model)
    if path.is_file():
        try:
            there = io.read_tensors(path)[1].get("digest", digest)
        except ExpungeError:
            return
        if there == digest:
            return
    io.save_weights(path, model, {"digest": digest})


def _trained(pool: Pool, index: Tensor, run: Run) -> Entrant:
    trained = pool.train(index, run)
    cost = Cost(trained.seconds, trained.examples or None, trained.cached)
    return Entrant(trained.model, cost, "trained", pool.recipe.describe())


def _make_apart(config: Mapping[str, Any], seed: int, threads: int, path: list[str]) -> None:
    """`make` in a process of its own; models are left on the disk."""
    sys.path[:] = path  # a user's own modules
    torch.set_num_threads(threads)
    make(from_dict(config), seed)


def _kept(path: Path, key: Mapping[str, Any], like: nn.Module) -> Entrant | None:
    """The model at a path, or the failure to make it, if it was made under this very key."""
    if not path.is_file():
        told = _failure(path)
        return _failed(told, like) if told.get("key") == io.plain(key) else None
    try:
        model = copy.deepcopy(like)
        about = io.load_weights(path, model)
    except ExpungeError:
        return None  # damaged: it is made again
    if about.get("key") != io.plain(key):
        return None
    if about.get("digest") != io.model_digest(model):
        warnings.warn(f"{path} is damaged: its checksum does not match; it is made anew.", stacklevel=2)
        return None
    cost = Cost(about["seconds"], about["examples"], cached=True)
    return Entrant(model, cost, "unlearned", dict(key["method"]), about.get("facts", {}))


def _failure(path: Path) -> dict[str, Any]:
    """What was written down when the model of this path could not be made; empty where nothing was."""
    try:
        told = io.read_json(failure_path(path)) if failure_path(path).is_file() else {}
    except ExpungeError:
        return {}  # damaged: it is found out again
    return told if isinstance(told, dict) and {"key", "failed"} <= told.keys() else {}


def _failed(told: Mapping[str, Any], like: nn.Module) -> Entrant:
    return Entrant(like, Cost(), "unlearned", dict(told["key"]["method"]), failed=str(told["failed"]))


def _left_by_run(experiment: Experiment) -> dict[str, list[Path]]:
    """The files that a run left of each row, one for each seed; of an original that was given, one."""
    seeds = experiment.terms.seeds
    files = {row: [model_path(experiment, row, seed) for seed in seeds] for row in experiment.methods}
    missing = [path for paths in files.values() for path in paths if not (path.is_file() or _failure(path))]
    if missing or not files:
        which = f"; missing: {', '.join(map(str, missing[:5]))}{' …' * (len(missing) > 5)}" if missing else ""
        raise ExpungeError(
            "There are no models to judge: name their weights, models: {original: a.safetensors, mine: b.safetensors}, "
            f"or expunge run the experiment first{which}."
        )
    refuse_strange(experiment)
    return files if experiment.weights is None else {ORIGINAL: [experiment.weights], **files}


def _loaded(experiment: Experiment, path: Path) -> Entrant:
    if not path.is_file() and (told := _failure(path)) and (blank := experiment.blank()) is not None:
        return _failed(told, blank)
    model, about = experiment.load(path)
    if about.get("digest", digest := io.model_digest(model)) != digest:
        raise ExpungeError(f"{path} is damaged: its checksum does not match. expunge run makes it again.")
    cost = Cost(about.get("seconds"), about.get("examples"), cached=True)
    method = about.get("key", about).get("method")  # of a run, or of `expunge unlearn`
    return Entrant(model, cost, "given", method if isinstance(method, Mapping) else {}, about.get("facts", {}))


def _judged(experiment: Experiment, entrants: Mapping[str, Sequence[Entrant]], command: str | None) -> Report:
    if experiment.weights is not None and ORIGINAL in entrants:
        entrants = {**entrants, ORIGINAL: entrants[ORIGINAL][:1]}
    return audit(
        {row: list(some) for row, some in entrants.items()},
        experiment.request,
        unseen=experiment.unseen,
        recipe=experiment.recipe,
        seeds=experiment.terms.seeds,
        attacks=experiment.terms.attacks,
        relearn=experiment.terms.relearning or False,
        examples=experiment.terms.examples,
        generation=experiment.terms.generation,
        device=experiment.device,
        command=command,
    )
