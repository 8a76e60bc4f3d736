"""Population attacks: one classifier for all examples, fitted on scores of members and of non-members.

They over-state protection (a per-example attack with shadow models finds more), but they need one model only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from expunge.audit.attacks.roc import best_threshold
from expunge.audit.attacks.scores import membership_score
from expunge.audit.stats import Array, Estimate, balanced, float64, mean_interval, vector
from expunge.errors import ExpungeError, UnknownName

Outputs = tuple[Any, Any]
"""Logits (N, C) and labels (N,) of some examples."""


def mia(
    feature: str,
    retain: Outputs,
    unseen: Outputs,
    forget: Outputs,
    *,
    classifier: str = "svc",
    cap: int | None = 1000,
    seed: int = 0,
) -> Estimate:
    """The share of forget examples, in percent, that an attack calls non-members (SalUn's "MIA efficacy").

    A classifier of one score learns to tell retain (member) from unseen (non-member) examples and is then
    asked about the forget examples. What counts is closeness to a retrained model's number, not its size.
    The feature "correctness" gives 100 - accuracy on forget, exactly, if the model is more often right on the
    drawn retain than on the drawn unseen rows; small draws (a cap of 100, say) can turn that round.

    Args:
        feature: a name in `scores.FEATURES`; the published number uses "confidence".
        retain: logits and labels of kept training rows; as many are drawn as there are unseen ones.
        unseen: of rows never trained on; in class forgetting without the forgotten classes.
        forget: of the rows that must go.
        classifier: "svc" (C=3, RBF, gamma="auto": SalUn's), "logistic" or "threshold".
        cap: at most so many of each kind train the classifier; None for no limit. An SVC's time grows with
            the square of the rows. Default 1000: on 4,000 + 4,000 MNIST rows (10 % mislabelled)
            draws then scatter by 1 point (sd) with confidence, 2 with loss, but 6 with margin and 10 with
            entropy, whose results also shift on average. Raise it, or repeat over seeds, for those.
        seed: of the draws.

    Returns:
        The share with its Clopper-Pearson interval, which takes the classifier as given: the scatter between
        draws is not in it. Failed when there is no forget example, or fewer than two of the others.

    Raises:
        ExpungeError: an unknown feature or classifier, logits or labels that do not fit or are not finite.

    Source: Fan et al. (SalUn), ICLR 2024; Song & Mittal, USENIX Security 2021.
    """
    members, nonmembers, targets = (membership_score(feature, *part) for part in (retain, unseen, forget))
    return share_of_nonmembers(members, nonmembers, targets, classifier=classifier, cap=cap, seed=seed)


def share_of_nonmembers(
    members: Any,
    nonmembers: Any,
    targets: Any,
    *,
    classifier: str = "svc",
    cap: int | None = 1000,
    seed: int = 0,
) -> Estimate:
    """`mia` on scores (N,) that were computed already: the percentage of `targets` called non-members."""
    if classifier not in CLASSIFIERS:
        raise UnknownName("attack classifier", classifier, CLASSIFIERS)
    members, nonmembers = vector(members, "member scores"), vector(nonmembers, "non-member scores")
    targets = vector(targets, "forget scores")
    size = min(len(members), len(nonmembers), len(members) if cap is None else cap)
    if size < 2:
        return Estimate.failed(
            f"the attack learns from two members and two non-members at least; it has {len(members)} and "
            f"{len(nonmembers)}, capped at {cap}"
        )
    if not len(targets):
        return Estimate.failed("there are no forget examples to attack")
    random = np.random.default_rng(seed)
    is_member = CLASSIFIERS[classifier](_draw(members, size, random), _draw(nonmembers, size, random), targets)
    return Estimate.share(int((~is_member).sum()), len(targets), 100.0)


def forget_vs_unseen(forget: Any, unseen: Any, *, folds: int = 5, seed: int = 0) -> Estimate:
    """How often a logistic regression tells forget from unseen rows of the same classes, in [0, 1].

    Balanced accuracy (.5 is guessing) of predictions made out of fold, pooled over the folds; both kinds
    weigh the same however many there are. Several features at once make one strong attack without the luck of
    picking the best of several.

    Args:
        forget: scores of the rows that must go, (N,) or (N, features).
        unseen: scores of unseen rows of the same classes, (M,) or (M, features).
        folds: of the stratified split; fewer when a kind has fewer rows. Default 5, as in SCRUB's evaluation.
        seed: of the split.

    Returns:
        The balanced accuracy; failed with fewer than two of either kind. Its interval is the wider of
        `stats.balanced`'s and Student's t over the folds: rows of one fold share a classifier, and counted as
        independent their 95 % interval covers only about 91 % where there is nothing to find.

    Raises:
        ExpungeError: scores that do not fit each other, or are NaN or infinite.

    Source: Kurmanji et al. (SCRUB), NeurIPS 2023.
    """
    x_NF, x_MF = _columns(forget, "forget scores"), _columns(unseen, "unseen scores")
    n, m = len(x_NF), len(x_MF)
    if min(n, m) < 2:
        return Estimate.failed(f"the attack needs two rows of each kind; there are {n} forget and {m} unseen")
    if x_NF.shape[1] != x_MF.shape[1]:
        raise ExpungeError(f"Forget rows have {x_NF.shape[1]} features, unseen rows {x_MF.shape[1]}; make them agree.")
    x, kind = np.concatenate([x_NF, x_MF]), np.repeat([1, 0], [n, m])
    split = StratifiedKFold(min(folds, n, m), shuffle=True, random_state=seed)
    right = np.zeros(n + m, dtype=bool)
    by_fold = []
    for learn, score in split.split(x, kind):
        right[score] = _regression().fit(x[learn], kind[learn]).predict(x[score]) == kind[score]
        by_fold.append(np.mean([right[score][kind[score] == k].mean() for k in (0, 1)]))
    counted = balanced(int(right[:n].sum()), n, int(right[n:].sum()), m)
    low, high = mean_interval(by_fold)
    half = (high - low) / 2
    low, high = min(counted.low or 0.0, counted.value - half), max(counted.high or 0.0, counted.value + half)
    return Estimate(counted.value, max(low, 0.0), min(high, 1.0))


def _regression() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))


def _fitted(model: Any) -> Callable[[Array, Array, Array], NDArray[np.bool_]]:
    """`model()` fitted on one score, as a function of members, non-members and targets."""

    def attack(members: Array, nonmembers: Array, targets: Array) -> NDArray[np.bool_]:
        x = np.concatenate([members, nonmembers])[:, None]
        kind = np.repeat([1, 0], [len(members), len(nonmembers)])
        return np.asarray(model().fit(x, kind).predict(targets[:, None]) == 1)

    return attack


def _threshold(members: Array, nonmembers: Array, targets: Array) -> NDArray[np.bool_]:
    return np.asarray(targets >= best_threshold(members, nonmembers))


CLASSIFIERS: Mapping[str, Callable[[Array, Array, Array], NDArray[np.bool_]]] = MappingProxyType(
    {
        "svc": _fitted(lambda: SVC(C=3, kernel="rbf", gamma="auto")),
        "logistic": _fitted(_regression),
        "threshold": _threshold,
    }
)
"""The attacks by name: members, non-members and targets in, for each target whether it is called a member."""


def _draw(scores: Array, size: int, random: np.random.Generator) -> Array:
    return scores if size == len(scores) else random.choice(scores, size, replace=False)


def _columns(scores: Any, what: str) -> Array:
    array = float64(scores)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not np.isfinite(array).all():
        raise ExpungeError(f"{what} must be finite and of shape (N,) or (N, features); got shape {array.shape}.")
    return array
