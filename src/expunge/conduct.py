"""conduct: make what an experiment needs, seed by seed, and judge it. Interrupted, it goes on where it was."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed
from torch import Tensor, nn

import expunge
from expunge import io
from expunge.artifact import Store
from expunge.audit.lineup import ORIGINAL, RETRAIN, Entrant
from expunge.audit.subject import Cost
from expunge.dossier import Report, audit
from expunge.errors import ExpungeError
from expunge.experiment import Experiment, from_dict
from expunge.pool import Pool
from expunge.request import GONE
from expunge.run import Run
from expunge.unlearning import unlearn

RECORD = "run.json"


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
    claim(experiment, force)
    seeds = experiment.terms.seeds
    if jobs > 1 and len(seeds) > 1:
        threads = max(1, torch.get_num_threads() // jobs)
        Parallel(n_jobs=jobs)(delayed(_make_apart)(experiment.config, seed, threads) for seed in seeds)
    made = [make(experiment, seed) for seed in seeds]
    entrants = {row: [m[row] for m in made] for row in made[0]}
    return _judged(experiment, entrants, command)


def judge_given(experiment: Experiment, *, command: str | None = None) -> Report:
    """Judge models that exist: those the file names under `models`, or those that a run left in the folder.

    Raises:
        ExpungeError: there are none, or weights that do not fit.
    """
    files: Mapping[str, Sequence[str | Path]] = experiment.given
    if not files:
        found = sorted((experiment.out / "models").glob("*.safetensors"))
        rows = {p.stem.rpartition("-seed")[0] for p in found}
        files = {row: [p for p in found if p.stem.rpartition("-seed")[0] == row] for row in sorted(rows)}
    if not files:
        raise ExpungeError(
            "There are no models to judge: name their weights, e.g. models: {original: a.safetensors, mine: b.safetensors}, "
            f"or run the experiment first (nothing lies in {experiment.out / 'models'})."
        )
    entrants = {row: [_loaded(experiment, Path(p)) for p in paths] for row, paths in files.items()}
    return _judged(experiment, entrants, command)


def claim(experiment: Experiment, force: bool) -> None:
    """Take the folder for this experiment; it must be empty, or hold this very experiment unfinished or finished.

    Raises:
        ExpungeError: it holds something else, or an experiment of another version, and `force` is not given.
    """
    record = {"expunge": expunge.__version__, "config": _comparable(experiment.config)}
    path = experiment.out / RECORD
    if path.is_file() and not force:
        there = io.read_json(path)
        if there.get("expunge") != expunge.__version__:
            raise ExpungeError(
                f"{experiment.out} holds a run of expunge {there.get('expunge')}, this is {expunge.__version__}, and numbers "
                "may differ between them. Choose another folder, or --force to begin again there."
            )
        if there.get("config") != record["config"]:
            raise ExpungeError(
                f"{experiment.out} holds another experiment. Choose another folder (out:), or --force to begin again there."
            )
        return
    io.output_folder(experiment.out, force)
    if force:
        for old in (experiment.out / "models").glob("*.safetensors"):
            old.unlink()
    io.write_json(path, record)


def make(experiment: Experiment, seed: int) -> dict[str, Entrant]:
    """The original and the unlearned models of one seed; what is there already is read."""
    request, recipe = experiment.request, experiment.recipe
    blank = None if recipe is not None and experiment.config.get("model") is None else experiment.blank()
    pool = Pool(recipe, request.rows, Store(), blank) if recipe is not None else None
    weights = experiment.weights()
    if weights is not None:
        if blank is None:
            raise ExpungeError("model.weights needs model.name or model.build beside it.")
        io.load_weights(weights, blank)
        original = Entrant(blank.eval())
        if seed == experiment.terms.seeds[0]:
            io.save_weights(_path(experiment, ORIGINAL, seed), original.model)
    elif pool is not None:
        original = _trained(pool, (request.state != GONE).nonzero().flatten(), seed)
    else:
        raise ExpungeError("Give weights of the original, or a recipe to train it by.")
    made = {ORIGINAL: original}
    if pool is not None:
        made[RETRAIN] = _trained(pool, request.keep, seed)
    for row, method in experiment.methods.items():
        path = _path(experiment, row, seed)
        key = {
            "original": io.model_digest(original.model),
            "request": request.hash,
            "method": method.to_config(),
            "version": method.card.version,
            "recipe": recipe.describe() if recipe is not None else None,
            "seed": seed,
        }
        kept = _kept(path, key, original.model)
        if kept is None:
            result = unlearn(original.model, request, method, recipe=recipe, seed=seed)
            about = {"key": io.plain(key), "seconds": result.seconds, "examples": result.log.examples}
            io.save_weights(path, result.model, about)
            kept = Entrant(result.model, Cost(result.seconds, result.log.examples), "unlearned", method.to_config())
        made[row] = kept
    return made


def _trained(pool: Pool, index: Tensor, seed: int) -> Entrant:
    trained = pool.train(index, Run(seed=seed))
    cost = Cost(trained.seconds, trained.examples or None, trained.cached)
    return Entrant(trained.model, cost, "trained", pool.recipe.describe())


def _make_apart(config: Mapping[str, Any], seed: int, threads: int) -> None:
    """`make` in a process of its own; models are left on the disk."""
    torch.set_num_threads(threads)
    make(from_dict(config), seed)


def _kept(path: Path, key: Mapping[str, Any], like: nn.Module) -> Entrant | None:
    """The model at a path, if it was made under this very key."""
    if not path.is_file():
        return None
    try:
        model = copy.deepcopy(like)
        about = io.load_weights(path, model)
    except ExpungeError:
        return None  # damaged: it is made again
    if about.get("key") != io.plain(key):
        return None
    return Entrant(model, Cost(about["seconds"], about["examples"], cached=True), "unlearned", dict(key["method"]))


def _loaded(experiment: Experiment, path: Path) -> Entrant:
    model = experiment.blank()
    about = io.load_weights(path, model)
    cost = Cost(about.get("seconds"), about.get("examples"), cached=True)
    return Entrant(model.eval(), cost, "given", about.get("key", {}).get("method", {}))


def _judged(experiment: Experiment, entrants: Mapping[str, Sequence[Entrant]], command: str | None) -> Report:
    weights = experiment.weights()
    if weights is not None and ORIGINAL in entrants:
        entrants = {**entrants, ORIGINAL: entrants[ORIGINAL][:1]}
    report = audit(
        {row: list(some) for row, some in entrants.items()},
        experiment.request,
        unseen=experiment.unseen,
        recipe=experiment.recipe,
        seeds=experiment.terms.seeds,
        attacks=experiment.terms.attacks,
        relearn=experiment.relearn,
        command=command,
    )
    report.save(experiment.out, force=True)
    return report


def _path(experiment: Experiment, row: str, seed: int) -> Path:
    safe = "".join(c if c.isalnum() or c in "._-+" else "_" for c in row)
    return experiment.out / "models" / f"{safe}-seed{seed}.safetensors"


def _comparable(config: Mapping[str, Any]) -> Any:
    return io.plain({k: v for k, v in config.items() if k != "out"})
