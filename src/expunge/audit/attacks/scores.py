"""What an attack looks at: one number for each example, from its logits and its label.

Shapes: N examples, C classes. z logits, p = softmax(z), y the label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from expunge.audit.stats import Array, float64
from expunge.errors import ExpungeError, UnknownName


def loss(logits_NC: Any, labels_N: Any) -> Array:
    """The cross-entropy of each example, -log p_y: (N,), in nats, 0 or more.

    Args:
        logits_NC: tensor or array (N, C), C >= 2, finite; computed in float64 whatever its precision.
        labels_N: tensor or array (N,), integers 0..C-1.

    Raises:
        ExpungeError: logits or labels of other shape or range, or logits that are NaN or infinite.
    """
    z_NC, y_N = logits_and_labels(logits_NC, labels_N)
    return -_of_label(log_softmax(z_NC, axis=1), y_N)


def confidence(logits_NC: Any, labels_N: Any) -> Array:
    """The probability of the true class, p_y: (N,), in [0, 1]. Args and Raises as in `loss`."""
    return np.exp(-loss(logits_NC, labels_N))


def entropy(logits_NC: Any, labels_N: Any) -> Array:
    """The entropy of the prediction, -Σ_c p_c log p_c: (N,), in nats, in [0, log C]; the label is not used.

    Args and Raises as in `loss`.
    """
    z_NC, _ = logits_and_labels(logits_NC, labels_N)
    logp_NC = log_softmax(z_NC, axis=1)
    return np.asarray(-(np.exp(logp_NC) * logp_NC).sum(axis=1))


def modified_entropy(logits_NC: Any, labels_N: Any) -> Array:
    """Entropy that knows the label, -(1-p_y) log p_y - Σ_{c≠y} p_c log(1-p_c): (N,), in nats, 0 or more.

    A sure and right prediction has 0, a sure and wrong one is large. Args and Raises as in `loss`.

    Source: Song & Mittal, USENIX Security 2021.
    """
    z_NC, y_N = logits_and_labels(logits_NC, labels_N)
    logp_NC, logq_NC = log_softmax(z_NC, axis=1), _log_complement(z_NC)
    term_NC = np.exp(logp_NC) * logq_NC
    term_NC[np.arange(len(y_N)), y_N] = _of_label(np.exp(logq_NC) * logp_NC, y_N)
    return np.asarray(-term_NC.sum(axis=1))


def margin(logits_NC: Any, labels_N: Any) -> Array:
    """The log-odds of the true class, z_y - log Σ_{c≠y} exp z_c = log(p_y / (1-p_y)): (N,), finite.

    Also called logit-scaled confidence. Args and Raises as in `loss`.

    Source: Carlini et al., IEEE S&P 2022.
    """
    z_NC, y_N = logits_and_labels(logits_NC, labels_N)
    other_NC = z_NC.copy()
    other_NC[np.arange(len(y_N)), y_N] = -np.inf
    return np.asarray(_of_label(z_NC, y_N) - logsumexp(other_NC, axis=1))


def correctness(logits_NC: Any, labels_N: Any) -> Array:
    """1 where the true class has the largest logit, otherwise 0: (N,). Args and Raises as in `loss`."""
    z_NC, y_N = logits_and_labels(logits_NC, labels_N)
    return np.asarray(z_NC.argmax(axis=1) == y_N, dtype=np.float64)


def _lower_is_member(feature: Callable[[Any, Any], Array]) -> Callable[[Any, Any], Array]:
    return lambda logits_NC, labels_N: -feature(logits_NC, labels_N)


FEATURES: Mapping[str, Callable[[Any, Any], Array]] = MappingProxyType(
    {
        "loss": _lower_is_member(loss),
        "confidence": confidence,
        "entropy": _lower_is_member(entropy),
        "modified_entropy": _lower_is_member(modified_entropy),
        "margin": margin,
        "correctness": correctness,
    }
)
"""The features by name, turned so that larger is more like a member: loss and both entropies are negated."""


def membership_score(feature: str, logits_NC: Any, labels_N: Any) -> Array:
    """How much each example looks like training data, by one feature: (N,), larger is more member-like.

    Args:
        feature: a name in `FEATURES`.
        logits_NC: as in `loss`.
        labels_N: as in `loss`.

    Raises:
        ExpungeError: an unknown feature; otherwise as in `loss`.
    """
    if feature not in FEATURES:
        raise UnknownName("attack feature", feature, FEATURES)
    return FEATURES[feature](logits_NC, labels_N)


def logits_and_labels(logits_NC: Any, labels_N: Any) -> tuple[Array, NDArray[np.int64]]:
    """Both as arrays, float64 (N, C) and int64 (N,), checked; Raises as in `loss`."""
    z_NC, y_N = float64(logits_NC), float64(labels_N)
    if z_NC.ndim != 2 or z_NC.shape[1] < 2 or y_N.shape != z_NC.shape[:1]:
        raise ExpungeError(f"Scores need logits (N, C) with C >= 2 and labels (N,); got {z_NC.shape} and {y_N.shape}.")
    bad = int((~np.isfinite(z_NC)).any(axis=1).sum())
    if bad:
        raise ExpungeError(
            f"The model's logits are NaN or infinite for {bad} of {len(z_NC)} examples: it has diverged."
        )
    labels = y_N.astype(np.int64) if np.isfinite(y_N).all() else np.full(len(y_N), -1)
    if len(labels) and (labels.min() < 0 or labels.max() >= z_NC.shape[1] or (labels != y_N).any()):
        raise ExpungeError(f"Labels must be integers 0..{z_NC.shape[1] - 1}; got values such as {y_N[:5].tolist()}.")
    return z_NC, labels


def _of_label(values_NC: Array, y_N: NDArray[np.int64]) -> Array:
    return values_NC[np.arange(len(y_N)), y_N]


def _log_complement(z_NC: Array) -> Array:
    """log(1 - p_c), finite also where p_c rounds to 1: only the largest can, so its rest is summed."""
    row_N, top_N = np.arange(len(z_NC)), z_NC.argmax(axis=1)
    rest_NC = z_NC.copy()
    rest_NC[row_N, top_N] = -np.inf
    p_NC = np.exp(log_softmax(z_NC, axis=1))
    p_NC[row_N, top_N] = 0.0
    logq_NC = np.log1p(-p_NC)
    logq_NC[row_N, top_N] = logsumexp(rest_NC, axis=1) - logsumexp(z_NC, axis=1)
    return np.asarray(logq_NC)
