"""The folder of an experiment: one experiment in it, and nothing of anybody else's is lost."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import expunge
from expunge import io
from expunge.errors import ExpungeError, collected
from expunge.experiment.assemble import Experiment

RECORD = "run.json"


def claim(experiment: Experiment, force: bool = False) -> None:
    """Take the folder for this experiment; it must be empty, or hold this very experiment unfinished or finished.

    More or fewer seeds, or another audit, are the same experiment: what is there already is used.

    Args:
        experiment: whose folder it is to be.
        force: take the folder whatever it holds. Other files stay; models of another experiment are removed, unless
            this one reads them, or only judges models that it is given.

    Raises:
        ExpungeError: it holds something else, or an experiment of another version, and `force` is not given; or models
            that nobody knows where models of this run would be.
    """
    path = experiment.out / RECORD
    if not path.is_file():
        io.output_folder(experiment.out, force)
        if not experiment.given:  # an audit of models that are given puts none there
            refuse_strange(experiment)
    elif force:
        for old in _models(experiment) if not experiment.given else ():
            old.unlink()
    else:
        refuse_another(experiment)
    io.write_json(path, _record(experiment))


def claim_problems(experiment: Experiment) -> list[str]:
    """Why a run could not use its folder, a sentence each; nothing is written."""
    if not (experiment.out / RECORD).is_file():
        return io.folder_problems(experiment.out)
    found: list[str] = []
    with collected(found):
        refuse_another(experiment)
    return found


def refuse_another(experiment: Experiment) -> None:
    """Refuse a folder that holds another experiment, or this one by another version; nothing is written.

    Raises:
        ExpungeError: it does; what differs is said.
    """
    path = experiment.out / RECORD
    if not path.is_file():
        return
    there, here = io.read_json(path), _record(experiment)
    there = there if isinstance(there, dict) else {}
    if there.get("expunge") != here["expunge"]:
        raise ExpungeError(
            f"{experiment.out} holds a run of expunge {there.get('expunge')}, this is {here['expunge']}, and numbers "
            f"may differ between them. {_way_out(experiment)}"
        )
    old, new = _without_audit(there.get("config")), _without_audit(here["config"])
    differ = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
    if differ:
        raise ExpungeError(
            f"{experiment.out} holds another experiment: {', '.join(differ)} differ{'s' * (len(differ) == 1)}. "
            f"{_way_out(experiment)}"
        )


def _way_out(experiment: Experiment) -> str:
    forced = "--force to write there all the same" if experiment.given else "begin again there, expunge run --force"
    return f"Choose another folder (out:), or {forced}."


def refuse_strange(experiment: Experiment) -> None:
    """Refuse a folder of no known run whose `models` has files under the names of models of a run.

    They would be taken for models of this run, and are not there to be overwritten.

    Raises:
        ExpungeError: there are such files.
    """
    strange = _models(experiment)
    if strange and not (experiment.out / RECORD).is_file():
        some = ", ".join(old.name for old in strange[:5]) + " …" * (len(strange) > 5)
        raise ExpungeError(
            f"{experiment.out / 'models'} holds {some}, and {experiment.out} no {RECORD} to say what made "
            f"{'it' if len(strange) == 1 else 'them'}. Move {'it' if len(strange) == 1 else 'them'} away, or choose "
            "another folder (out:)."
        )


def _models(experiment: Experiment) -> list[Path]:
    """Files under the names of models of a run, and of their failures, but for those that the experiment reads."""
    read = [path for paths in experiment.given.values() for path in paths]
    read += [experiment.weights] if experiment.weights is not None else []
    kept = {path.resolve() for path in read}
    there = sorted((experiment.out / "models").glob("*"))
    return [old for old in there if re.search(r"-seed\d+\.(safetensors|json)$", old.name) and old.resolve() not in kept]


def model_path(experiment: Experiment, row: str, seed: int) -> Path:
    """Where the model of a row and a seed lies."""
    safe = "".join(c if c.isalnum() or c in "._-+" else "_" for c in row)
    if safe.lower() != row:  # no two rows may share a file: not for other characters, nor, on some disks, for case
        safe += f"-{hashlib.blake2b(row.encode(), digest_size=4).hexdigest()}"
    return experiment.out / "models" / f"{safe}-seed{seed}.safetensors"


def failure_path(model: Path) -> Path:
    """Where it is written that the model of this path could not be made, and why."""
    return model.with_suffix(".json")


def _record(experiment: Experiment) -> dict[str, Any]:
    config = {key: value for key, value in experiment.config.items() if key != "out"}
    return {"expunge": expunge.__version__, "config": io.plain(config)}


def _without_audit(config: Any) -> dict[str, Any]:
    """What the models depend on."""
    return {key: value for key, value in config.items() if key != "audit"} if isinstance(config, Mapping) else {}
