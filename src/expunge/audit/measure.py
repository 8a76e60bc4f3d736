"""Measure: every number of one model, each with its interval or the reason why it is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from expunge.audit import accuracy as accuracies
from expunge.audit import divergence
from expunge.audit.attacks.classifier import forget_vs_unseen, mia
from expunge.audit.attacks.roc import auc, tpr_at_fpr
from expunge.audit.distance import distance
from expunge.audit.metric import METRICS
from expunge.audit.relearn import Relearn, RelearnTime, relearn
from expunge.audit.stats import Estimate
from expunge.audit.subject import Subject
from expunge.audit.tow import avg_gap, tow
from expunge.errors import ExpungeError

ATTACKS = ("loss", "confidence", "entropy", "modified_entropy", "margin")


@dataclass(frozen=True)
class Peers:
    """The models that one model is compared with.

    Args:
        retrained: the model retrained with the same seed; none without a recipe.
        original: the model before unlearning; none when it is not known.
        untrained: scores of an untrained model on the forget rows, or why there are none.
        attacks: names of attack features.
        relearning: how relearning is measured; none to leave it out.
        relearned: the relearn time of the retrained model.
    """

    retrained: Subject | None
    original: Subject | None
    untrained: Tensor | str
    attacks: tuple[str, ...] = ATTACKS
    relearning: Relearn | None = None
    relearned: RelearnTime | None = None


Measurements = dict[str, Estimate]


def measure(subject: Subject, peers: Peers, reference: Measurements | None) -> Measurements:
    """All numbers of one model, by metric name in the order of the table.

    Args:
        subject: the model.
        peers: what it is compared with.
        reference: the numbers of the model retrained with the same seed; its own for that model itself.

    A number that cannot be had is there all the same and says why. Cost: a forward pass over forget, retain and
    unseen rows, and relearning.
    """
    found: Measurements = {}
    if subject is peers.retrained:
        reference = found
    for name in METRICS:
        compute = _computation(name, subject, peers, reference, found)
        if compute is None:
            continue
        try:
            found[name] = Estimate.failed(subject.failed) if subject.failed else compute()
        except Exception as error:  # one number that fails must not take the others with it
            found[name] = Estimate.failed(f"{error}" or type(error).__name__)
    return found


def _computation(
    name: str, subject: Subject, peers: Peers, reference: Measurements | None, found: Measurements
) -> Callable[[], Estimate] | None:
    """The function that computes a metric; none when the metric has no place in this audit."""
    if name.startswith("auc_"):
        feature = name.removeprefix("auc_")
        return (lambda: _auc(subject, feature)) if feature in peers.attacks else None
    if name == "tfa" and subject.ground.forgotten is None:
        return None
    if name in ("relearn", "ain") and peers.relearning is None:
        return None
    table: dict[str, Callable[[], Estimate]] = {
        "ua": lambda: accuracies.error(subject.forget.argmax(1), subject.ground.forget.y),
        "ra": lambda: accuracies.accuracy(subject.retain.argmax(1), subject.ground.retain.y),
        "ta": lambda: accuracies.accuracy(subject.unseen.argmax(1), subject.ground.unseen.y),
        "tfa": lambda: accuracies.accuracy(subject.alike.argmax(1), subject.ground.alike.y),
        "mia": lambda: _mia(subject),
        "balanced_accuracy": lambda: _combined(subject, peers.attacks),
        "tpr_at_1fpr": lambda: tpr_at_fpr(subject.membership("loss", "forget"), subject.membership("loss", "alike")),
        "avg_gap": lambda: Estimate(avg_gap(*_numbers(("ua", "ra", "ta", "mia"), found, reference))),
        "tow": lambda: _tow(found, reference),
        "agreement": lambda: divergence.agreement(subject.forget, _retrained(peers).forget),
        "js": lambda: divergence.mean_js(subject.forget, _retrained(peers).forget),
        "activation_distance": lambda: divergence.activation_distance(subject.forget, _retrained(peers).forget),
        "zrf": lambda: _zrf(subject, peers.untrained),
        "relearn": lambda: _relearn(subject, peers),
        "ain": lambda: _ain(subject, found, peers),
        "distance": lambda: _distance(subject, peers),
    }
    return table[name]


def relearn_time(subject: Subject, original: Subject, settings: Relearn) -> RelearnTime:
    """How long this model takes to know the forget rows nearly as well as the original did."""
    target = (1 - settings.tolerance) * float(original.right("forget").mean())
    return relearn(subject.model, subject.ground.forget, target, subject.task, settings, subject.seed)


def _auc(subject: Subject, feature: str) -> Estimate:
    return auc(subject.membership(feature, "forget"), subject.membership(feature, "alike"))


def _mia(subject: Subject) -> Estimate:
    ground = subject.ground
    parts = ((subject.retain, ground.retain.y), (subject.unseen, ground.unseen.y), (subject.forget, ground.forget.y))
    return mia("confidence", *parts, seed=subject.seed)


def _combined(subject: Subject, attacks: tuple[str, ...]) -> Estimate:
    """Logistic regression on all features at once: one attack, without the luck of picking the best of several."""
    forget, unseen = (np.column_stack([subject.membership(f, part) for f in attacks]) for part in ("forget", "alike"))
    return forget_vs_unseen(forget, unseen, seed=subject.seed)


def _numbers(
    names: tuple[str, ...], found: Measurements, reference: Measurements | None
) -> tuple[dict[str, float], dict[str, float]]:
    if reference is None:
        raise ExpungeError("there is no retrained model to compare with; give a recipe")
    for source, of in ((found, "the model"), (reference, "the retrained model")):
        for name in names:
            if name not in source or not source[name].ok:
                raise ExpungeError(f"{name} of {of} is missing")
    return {n: found[n].value for n in names}, {n: reference[n].value for n in names}


def _tow(found: Measurements, reference: Measurements | None) -> Estimate:
    mine, theirs = _numbers(("ua", "ra", "ta"), found, reference)
    shares = [{"forget": 1 - n["ua"] / 100, "retain": n["ra"] / 100, "test": n["ta"] / 100} for n in (mine, theirs)]
    return Estimate(tow(*shares).value)


def _retrained(peers: Peers) -> Subject:
    if peers.retrained is None:
        raise ExpungeError("there is no retrained model to compare with; give a recipe")
    return peers.retrained


def _zrf(subject: Subject, untrained: Tensor | str) -> Estimate:
    if isinstance(untrained, str):
        return Estimate.failed(f"there is no untrained model to compare with: {untrained}")
    return divergence.zrf(subject.forget, untrained)


def _relearn(subject: Subject, peers: Peers) -> Estimate:
    if peers.original is None or peers.relearning is None:
        return Estimate.failed("the original's accuracy is the target, and there is no original")
    if subject is peers.retrained and peers.relearned is not None:
        time = peers.relearned
    else:
        time = relearn_time(subject, peers.original, peers.relearning)
    return Estimate(time.epochs, censored="at least" if time.censored else "")


def _ain(subject: Subject, found: Measurements, peers: Peers) -> Estimate:
    if peers.relearned is None or not found["relearn"].ok:
        raise ExpungeError("it needs the relearn times of this model and of the retrained one")
    if subject is peers.retrained and peers.relearned.epochs > 0:
        return Estimate(1.0)
    if peers.relearned.epochs == 0:
        raise ExpungeError("the retrained model knows the forgotten rows already, so relearning them takes no time")
    if peers.relearned.censored and found["relearn"].censored:
        raise ExpungeError(f"neither this nor the retrained model knew them after {peers.relearned.epochs:g} epochs")
    bound = "at most" if peers.relearned.censored else found["relearn"].censored
    return Estimate(found["relearn"].value / peers.relearned.epochs, censored=bound)


def _distance(subject: Subject, peers: Peers) -> Estimate:
    if peers.original is None:
        return Estimate.failed("there is no original to compare with")
    return Estimate(distance(subject.model, peers.original.model).total)


__all__ = ["ATTACKS", "Measurements", "Peers", "measure", "relearn_time"]
