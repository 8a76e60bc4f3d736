"""judge_generation: denoisers and a request in; how often each class is still drawn, and a verdict for each, out.

Shapes: N images, C classes, D features.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import expunge
from expunge.artifact import Store
from expunge.audit.generation.frechet import frechet_distance
from expunge.audit.generation.look import Seen, each, evenly, look, sheet
from expunge.audit.generation.metric import METRICS
from expunge.audit.generation.settings import Generation
from expunge.audit.generation.verdict import Hits, verdict
from expunge.audit.judge import SCHEMA, entry_of, question_of
from expunge.audit.lineup import AGAIN, ORIGINAL, RETRAIN, Entrants, Lineup, Terms, line_up
from expunge.audit.stats import Estimate
from expunge.audit.subject import Ground, Subject
from expunge.audit.verdict import CANNOT_SAY, DAMAGED, Verdict
from expunge.data.rows import Rows
from expunge.pool import Pool
from expunge.request import Request
from expunge.run import Run, progress_bar
from expunge.task.diffusion import Diffusion
from expunge.task.sampling import NoImage, sample

SHOWN = 8  # images of each class on a sheet
MOST = 10  # classes on a sheet
SKILLED = 90.0  # percent; a classifier that is right less often says little about images
_UNKNOWN = (
    "Whether the class is gone cannot be said without models that never saw it: what they draw when asked for it is "
    "taken for it now and then as well."
)


@dataclass(frozen=True)
class Drawn:
    """The images of one model and what the classifier makes of them.

    Args:
        x_N: scaled as the rows' inputs are, `samples` for each class in turn.
        seen: what the classifier makes of them.
    """

    x_N: Tensor
    seen: Seen


@dataclass(frozen=True)
class Bench:
    """What all models of an audit are judged by.

    Args:
        request: which classes had to go.
        task: what the models compute.
        settings: how images are drawn.
        classifier: what looks at them.
        real_MD: features of training rows of the kept classes.
        conditions: what images are drawn under, (N,).
    """

    request: Request
    task: Diffusion
    settings: Generation
    classifier: nn.Module
    real_MD: Tensor
    conditions: Tensor

    @property
    def gone(self) -> Tensor:
        """Which images are drawn for a forgotten class, (N,)."""
        return torch.isin(self.conditions, torch.tensor(self.request.classes))

    def draw(self, model: nn.Module) -> Drawn:
        """The images of a model."""
        s = self.settings
        x_N = sample(
            model,
            self.task,
            self.conditions,
            self.request.rows.shape,
            steps=s.steps,
            guidance=s.guidance,
            eta=s.eta,
            seed=s.seed,
            batch_size=s.batch_size,
        )
        return Drawn(x_N, look(self.classifier, x_N))

    def hits(self, seen: Seen) -> Hits:
        """For each image drawn for a forgotten class, and for each other one, 100 where it is taken for it."""
        of_gone = torch.isin(seen.label_N, torch.tensor(self.request.classes))
        found = {"recognised": of_gone[self.gone], "others": (seen.label_N == self.conditions)[~self.gone]}
        return {name: 100.0 * hit.double().numpy() for name, hit in found.items()}

    def measurements(self, seen: Seen) -> dict[str, Estimate]:
        """Every number of a model, by metric."""
        gone, p_NC = self.gone, seen.probability_NC.double()
        shares = {name: Estimate.share(int((h > 0).sum()), len(h), 100.0) for name, h in self.hits(seen).items()}
        mass_N = 100 * p_NC[gone][:, list(self.request.classes)].sum(1)
        entropy_N = torch.special.entr(p_NC[gone]).sum(1)
        numbers = {
            "fid": Estimate(frechet_distance(seen.feature_ND[~gone], self.real_MD)),
            "probability": Estimate.mean(mass_N.numpy()),
            "entropy": Estimate.mean(entropy_N.numpy()),
        }
        return {name: {**shares, **numbers}[name] for name in METRICS}


def judge_generation(
    entrants: Entrants,
    request: Request,
    unseen: Rows,
    task: Diffusion,
    pool: Pool | None,
    store: Store | None,
    terms: Terms,
) -> dict[str, Any]:
    """Everything that is measured of these denoisers and of retraining, as plain data that JSON can hold.

    Args:
        entrants: for the name of each row, a model, or one for each seed.
        request: which classes had to go.
        unseen: rows never trained on, which the classifier is tried on.
        task: what the models compute.
        pool: trains the recipe; none when it is not known.
        store: where the classifier is kept that is trained to look at images, unless the settings hold one.
        terms: seeds, and how images are drawn.

    Raises:
        ExpungeError: a request that names no classes, models or a classifier that do not fit the data, more steps than
            there are noise levels; before compute.

    Cost: the retrainings that are not kept already, one training of the classifier, and for each model the drawing of
    `samples` images of each class.
    """
    ground = Ground.of(request, unseen)
    lineup = line_up(entrants, request, task, ground, pool, terms)
    settings = terms.generation or Generation()
    bench, skill = _bench(request, task, settings, store, unseen, terms)
    drawn, damaged = _draw(bench, lineup)
    numbers = {key: bench.measurements(one.seen) for key, one in drawn.items()}
    verdicts = _verdicts(bench, lineup, drawn, damaged)
    words = {v.method: v.word for v in verdicts}
    seconds = [s.cost.seconds for s in lineup.of(RETRAIN) if s.cost.seconds]
    entries = []
    for s in lineup.subjects:
        retrained = lineup.pair(RETRAIN, s.seed)
        why = _why_nothing(s, damaged)
        found = {name: Estimate.failed(why) for name in METRICS} if why else numbers[id(s.model)]
        base = numbers.get(id(retrained.model)) if retrained is not None else None
        one = entry_of(s, found, base, sum(seconds) / len(seconds) if seconds else None)
        one["verdict"] = words.get(s.method, "reference")
        if not why and s.method != AGAIN:
            one["samples"] = _sheet(bench, drawn[id(s.model)])
        entries.append(one)
    about = {k: v for k, v in vars(settings).items() if k != "classifier"}
    return {
        "schema": SCHEMA,
        "expunge": expunge.__version__,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "question": question_of(request, ground),
        "metrics": {n: {k: v for k, v in vars(m).items() if k != "name"} for n, m in METRICS.items()},
        "models": entries,
        "verdicts": [v.to_json() for v in verdicts],
        "examples": [],
        "generation": {**about, "classifier": skill, "guidance": _guidance(task, settings)},
        "notes": _notes(bench, lineup, skill),
    }


def _bench(
    request: Request, task: Diffusion, settings: Generation, store: Store | None, unseen: Rows, terms: Terms
) -> tuple[Bench, dict[str, Any]]:
    """What models are judged by, and how good the classifier is on unseen rows."""
    rows = request.rows
    if isinstance(settings.classifier, nn.Module):
        classifier, name = settings.classifier, type(settings.classifier).__name__
    else:
        recipe, run = settings.recipe, Run(seed=settings.seed, device=terms.device)
        classifier = Pool(recipe, rows, store).train(torch.arange(len(rows)), run).model
        model = recipe.describe()["model"]
        name = str(model["name"] if isinstance(model, dict) and "name" in model else model)
    tried = look(classifier, unseen.x(torch.arange(len(unseen))))
    right = float((tried.label_N == unseen.y.cpu()).double().mean())
    kept = request.keep[evenly(len(request.keep), settings.real)]
    conditions = each(range(rows.num_classes), settings.samples)
    conditions = conditions[~torch.isin(conditions, torch.tensor(request.gone_classes, dtype=torch.long))]
    bench = Bench(request, task, settings, classifier, look(classifier, rows.x(kept)).feature_ND, conditions)
    return bench, {"name": name, "accuracy": 100 * right, "unseen": len(unseen), "real": len(kept)}


def _draw(bench: Bench, lineup: Lineup) -> tuple[dict[int, Drawn], dict[int, str]]:
    """The images of each model, and why there are none of a damaged one; a model under two names draws once."""
    drawn: dict[int, Drawn] = {}
    damaged: dict[int, str] = {}
    with progress_bar("audit", len(lineup.subjects), True) as tick:
        for s in lineup.subjects:
            if not s.failed and id(s.model) not in drawn and id(s.model) not in damaged:
                try:
                    drawn[id(s.model)] = bench.draw(s.model)
                except NoImage as error:
                    damaged[id(s.model)] = str(error)
            tick(s.method)
    return drawn, damaged


def _why_nothing(subject: Subject, damaged: dict[int, str]) -> str:
    """Why there are no images of a subject, empty where there are; one that failed has no model, only a likeness."""
    return subject.failed or damaged.get(id(subject.model), "")


def _verdicts(bench: Bench, lineup: Lineup, drawn: dict[int, Drawn], damaged: dict[int, str]) -> list[Verdict]:
    def hits(subjects: Sequence[Subject]) -> list[Hits]:
        return [bench.hits(drawn[id(s.model)].seen) for s in subjects if not _why_nothing(s, damaged)]

    retrained, original = hits(lineup.of(RETRAIN)), hits(lineup.of(ORIGINAL))
    found = []
    for method in lineup.methods:
        if method in (RETRAIN, AGAIN):
            continue
        subjects = lineup.of(method)
        broken = [why for s in subjects if (why := _why_nothing(s, damaged))]
        if broken:
            opening = "There is no model to judge" if any(s.failed for s in subjects) else "The model draws nothing"
            found.append(Verdict(method, DAMAGED, f"{opening}: {broken[0]}"))
        elif not retrained or not original:
            missing = "recipe=, how the model was trained" if not retrained else "the original model"
            found.append(Verdict(method, CANNOT_SAY, f"{_UNKNOWN} Give {missing}."))
        else:
            found.append(verdict(method, hits(subjects), retrained, original))
    return found


def _sheet(bench: Bench, drawn: Drawn) -> dict[str, Any]:
    """Some images of each class, row by row, for people."""
    classes = list(dict.fromkeys(bench.conditions.tolist()))
    some = [c for c in classes if c in bench.request.classes]
    shown = sorted([*some, *[c for c in classes if c not in some][: max(0, MOST - len(some))]])[:MOST]
    columns = min(SHOWN, bench.settings.samples)
    index = torch.cat([(bench.conditions == c).nonzero().flatten()[:columns] for c in shown])
    return {"image": sheet(drawn.x_N[index], columns, bench.request.rows.scale), "classes": shown}


def _guidance(task: Diffusion, settings: Generation) -> float:
    return task.guidance if settings.guidance is None else settings.guidance


def _notes(bench: Bench, lineup: Lineup, skill: dict[str, Any]) -> list[str]:
    s, gone = bench.settings, int(bench.gone.sum())
    notes = [
        f"Each model drew {gone} images of what was to be forgotten and {len(bench.conditions) - gone} of the rest: "
        f"DDIM, {s.steps} steps, guidance {_guidance(bench.task, s):g}, from the same noise.",
        f"The classifier that looks at them ({skill['name']}) is right on {skill['accuracy']:.1f} % of "
        f"{skill['unseen']:,} unseen rows; FID compares with {skill['real']:,} training rows, in its features.",
    ]
    if skill["accuracy"] < SKILLED:
        notes.append("That is too seldom to judge by: train it longer, or give a better one (generation.classifier).")
    if not lineup.of(RETRAIN):
        notes.append("There is no retrained model to compare with.")
    return notes + bench.task.notes(bench.request.rows) + lineup.said
