"""Forgetting a class in a class-conditional diffusion model, on two cores: `python benchmarks/diffusion.py digits`.

`digits` is small and takes minutes; `mnist` and `fashion` are recipes/salun-*-diffusion.yaml and take an hour. Models
are kept in EXPUNGE_CACHE, so a second call goes on. `--no-retrain` leaves the reference out, which takes as long as the
original; verdicts then say that there is nothing to compare with. `--only ROW` takes these methods, `--sheets FOLDER`
writes the report with its sheets of images there.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

import expunge as ex
from common import earlier, needs_data, save
from expunge import io
from expunge.artifact import Store
from expunge.audit.generation.look import look
from expunge.audit.stats import Estimate
from expunge.experiment import Experiment, from_dict
from expunge.pool import Pool
from expunge.task import sample
from expunge.unlearning import default_task

RECIPES = Path(__file__).parents[1] / "recipes"
ADAM = {"optimizer": "adam", "weight_decay": 0.0, "batch_size": 64}
TOGETHER = {"epochs": 3, "lr": 1e-3, **ADAM, "mix": "together", "alpha": 3.07}
DIGITS = {
    "model": {"name": "unet", "width": 16, "multiples": [1, 2]},
    "data": {"name": "digits"},
    "request": {"classes": [3]},
    "recipe": {"epochs": 40, "lr": 3e-3, **ADAM},
    "methods": [
        {"name": "salun", **TOGETHER},
        {"row": "salun (next condition)", "name": "salun", **TOGETHER},
        {"name": "random_label", **TOGETHER},
        {"name": "finetune", "epochs": 3, "lr": 1e-3, **ADAM},
        {"name": "gradient_ascent", "epochs": 5, "lr": 3e-4, **ADAM},
        {"row": "gradient_ascent (strong)", "name": "gradient_ascent", "epochs": 5, "lr": 2e-3, **ADAM},
    ],
    "audit": {
        "seeds": [0, 1],
        "generation": {
            "samples": 100,
            "steps": 30,
            "classifier": {
                "model": {"name": "convnet", "depth": 2, "width": 32, "norm": "batch"},
                "epochs": 10,
                "lr": 0.1,
                "batch_size": 64,
            },
        },
    },
}
NEXT = "next condition"


def measured(name: str, config: dict[str, Any], retrain: bool, only: list[str] | None, sheets: Path | None) -> None:
    experiment = from_dict(config)
    request, pool = experiment.request, Pool(experiment.recipe, experiment.train, Store())
    runs = [ex.Run(seed=seed) for seed in experiment.terms.seeds]
    originals = [pool.train(torch.arange(len(experiment.train)), run) for run in runs]
    task = default_task(request, originals[0].model, experiment.recipe)
    models: dict[str, Any] = {"original": [o.model for o in originals]}
    facts = {"original": [{"seconds": o.seconds, "examples": o.examples} for o in originals]}
    if retrain:
        retrained = [pool.train(request.keep, run) for run in runs]
        models["retrain"] = [r.model for r in retrained]
        facts["retrain"] = [{"seconds": r.seconds, "examples": r.examples} for r in retrained]
    for row, method in experiment.methods.items():
        if only and row not in only:
            continue
        own = replace(task, stand_in="next") if NEXT in row else task
        made = [unlearned(o.model, request, method, own, run.seed) for o, run in zip(originals, runs)]
        models[row], facts[row] = [m for m, _ in made], [f for _, f in made]
        print(row, facts[row], flush=True)
    report = ex.audit(
        models,
        request,
        unseen=experiment.unseen,
        task=task,
        seeds=experiment.terms.seeds,
        generation=experiment.terms.generation,
    )
    numbers = [
        {**row, **facts[row["method"]][experiment.terms.seeds.index(row["seed"])]}
        for row in report.rows
        if row["method"] != "retrain_again"
    ]
    found = {
        "config": config,
        "parameters": sum(p.numel() for p in originals[0].model.parameters()),
        "generation": report.results["generation"],
        "notes": report.results["notes"],
        "rows": numbers,
        "verdicts": report.results["verdicts"],
    }
    if "salun" in models:
        found["more images of the forgotten class"] = more(experiment, task, models["salun"][0])
    before = earlier("diffusion").get("data", {})
    save("diffusion", {"data": {**before, name: found}})
    print(report)
    if sheets is not None:
        report.save(sheets / name, force=True)


def more(experiment: Experiment, task: ex.Diffusion, model: torch.nn.Module, images: int = 300) -> dict[str, Any]:
    """How often a forgotten class is recognised in so many images, with its interval: the bar is a few percent."""
    settings = experiment.terms.generation
    pool = Pool(settings.recipe, experiment.train, Store())
    classifier = pool.train(torch.arange(len(experiment.train)), ex.Run(seed=settings.seed)).model
    asked = torch.full((images,), experiment.request.classes[0])
    x = sample(model, task, asked, experiment.train.shape, steps=settings.steps, seed=1)
    taken = look(classifier, x).label_N
    share = Estimate.share(int((taken == asked).sum()), images, 100.0)
    counts = torch.bincount(taken, minlength=task.classes).tolist()
    return {"row": "salun", "images": images, "recognised": share.to_json(), "taken for": counts}


def unlearned(
    original: torch.nn.Module, request: ex.Request, method: ex.Method, task: ex.Diffusion, seed: int
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The model that a method makes, and what it took; read where it was made before."""
    key = {"method": method.to_config(), "original": io.model_digest(original), "task": repr(task), "seed": seed}
    told = hashlib.blake2b(repr(key).encode(), digest_size=8).hexdigest()
    path = Path(os.environ.get("EXPUNGE_CACHE", "runs")) / "diffusion" / f"{told}.safetensors"
    if path.is_file():
        model = copy.deepcopy(original)
        return model, io.load_weights(path, model)["facts"]
    result = ex.unlearn(original, request, method, task=task, seed=seed)
    facts = {"seconds": result.seconds, "examples": result.log.examples, "moved": result.moved}
    io.save_weights(path, result.model, {"facts": facts})
    return result.model, facts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=("digits", "mnist", "fashion"))
    parser.add_argument("--no-retrain", action="store_true")
    parser.add_argument("--only", nargs="*", metavar="ROW")
    parser.add_argument("--sheets", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    wanted: dict[str, Any] = DIGITS
    if chosen.which != "digits":
        wanted = yaml.safe_load((RECIPES / f"salun-{chosen.which}-diffusion.yaml").read_text())
        needs_data(wanted["data"]["name"])
    measured(chosen.which, wanted, not chosen.no_retrain, chosen.only, chosen.sheets)
