"""Fit: what keeps images from being drawn and judged as asked, told before anything is trained or drawn."""

from __future__ import annotations

from torch import nn

from expunge.audit.generation.look import head
from expunge.audit.generation.settings import Generation
from expunge.data.rows import Rows
from expunge.errors import collected
from expunge.request import Request
from expunge.run import Run
from expunge.task.base import Task
from expunge.task.classification import Classification
from expunge.task.diffusion import Diffusion
from expunge.task.sampling import step_problems


def generation_problems(settings: Generation | None, task: Task, request: Request) -> list[str]:
    """Why an audit cannot be made with these settings, a sentence each; none of a classifier without settings.

    Args:
        settings: how images are drawn and judged; none where nobody said.
        task: what the models compute.
        request: what had to go.

    Cost: an untrained classifier is built, or the given one called, on two rows.
    """
    if not isinstance(task, Diffusion):
        told = "generation says how images of denoisers are drawn and judged; these models draw none. Leave it out."
        return [] if settings is None else [told]
    found = []
    if request.scope != "class":
        found.append(
            "What a denoiser draws is judged class by class, and this request names single rows: whether those are "
            "gone cannot be seen in images. Request(train, classes=[...]) can be judged."
        )
    settings = settings or Generation()
    found += [f"generation.{problem}" for problem in step_problems(task, settings.steps)]
    return found + [f"generation.classifier: {problem}" for problem in _classifier_problems(settings, request.rows)]


def _classifier_problems(settings: Generation, rows: Rows) -> list[str]:
    problems: list[str] = []
    with collected(problems), Run(seed=settings.seed).isolated():
        given = settings.classifier
        classifier = given if isinstance(given, nn.Module) else settings.recipe.blank(rows)
        head(classifier)
        problems += Classification(classes=rows.num_classes).problems(classifier, rows)
    return problems
