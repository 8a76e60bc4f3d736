"""Forgetting a class in a class-conditional diffusion model, on two cores: `python benchmarks/diffusion.py`.

Runs recipes/salun-mnist-diffusion.yaml step by step and writes what is known after each, as a step takes long. Models
are kept in EXPUNGE_CACHE and in the recipe's folder, and a second call goes on. `--retrain` adds the reference, which
takes as long as the original; without it verdicts say that there is nothing to compare with. `--sheets FOLDER` writes
the report with its sheets of images there.
"""

from __future__ import annotations

import argparse
import copy
import os
from pathlib import Path
from typing import Any

import torch
import yaml

import expunge as ex
from common import needs_data, save
from expunge import io
from expunge.artifact import Store
from expunge.experiment import from_dict
from expunge.pool import Pool
from expunge.unlearning import default_task

RECIPE = Path(__file__).parents[1] / "recipes" / "salun-mnist-diffusion.yaml"


def main(arguments: argparse.Namespace) -> None:
    config = yaml.safe_load(RECIPE.read_text())
    experiment = from_dict(config)
    request, out = experiment.request, experiment.out
    pool, run = Pool(experiment.recipe, experiment.train, Store()), ex.Run(seed=0)
    original = pool.train(torch.arange(len(experiment.train)), run)
    task = default_task(request, original.model, experiment.recipe)
    models: dict[str, Any] = {"original": original.model}
    facts = {"original": {"seconds": original.seconds, "examples": original.examples}}
    if arguments.retrain:
        retrained = pool.train(request.keep, run)
        models["retrain"] = retrained.model
        facts["retrain"] = {"seconds": retrained.seconds, "examples": retrained.examples}
    for row, method in [(None, None), *experiment.methods.items()]:
        if row is not None:
            models[row], facts[row] = unlearned(out / f"{row}.safetensors", original.model, request, method)
        report = ex.audit(
            models,
            request,
            unseen=experiment.unseen,
            task=task,
            seeds=1,
            generation=experiment.terms.generation,
        )
        rows = [{**r, "seconds": facts[r["method"]]["seconds"], **facts[r["method"]]} for r in report.rows]
        about = {"recipe": config, "parameters": sum(p.numel() for p in original.model.parameters())}
        about |= {"generation": report.results["generation"], "notes": report.results["notes"]}
        save("diffusion", {**about, "rows": rows, "verdicts": report.results["verdicts"]})
        if arguments.sheets:
            report.save(arguments.sheets, force=True)


def unlearned(
    path: Path, original: torch.nn.Module, request: ex.Request, method: ex.Method
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The model that a method makes, and what it took; read where it was made before."""
    key = {"method": method.to_config(), "original": io.model_digest(original)}
    if path.is_file():
        model = copy.deepcopy(original)
        about = io.load_weights(path, model)
        if about.get("key") == io.plain(key):
            return model, about["facts"]
    result = ex.unlearn(original, request, method, seed=0)
    facts = {"seconds": result.seconds, "examples": result.log.examples, "moved": result.moved}
    io.save_weights(path, result.model, {"key": io.plain(key), "facts": facts})
    return result.model, facts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--retrain", action="store_true")
    parser.add_argument("--sheets", type=Path)
    chosen = parser.parse_args()
    needs_data("mnist")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    main(chosen)
