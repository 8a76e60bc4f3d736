"""How far two models' predictions lie apart on the same examples.

Shapes: N examples, C classes. p and q are the softmax of two models' logits, m = (p + q) / 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import log_softmax

from expunge.audit.stats import Array, Estimate, float64
from expunge.errors import ExpungeError


def js(logits_p_NC: Any, logits_q_NC: Any) -> Array:
    """The Jensen-Shannon divergence of each example's two predictions, in bits: (N,), in [0, 1].

    ½ KL(p‖m) + ½ KL(q‖m) with logarithms to base 2; computed from log-probabilities, so that probabilities
    that round to 0 or 1 are safe.

    Args:
        logits_p_NC: tensor or array (N, C), finite.
        logits_q_NC: the other model's, of the same shape.

    Raises:
        ExpungeError: logits of other or different shape, or NaN or infinite ones.

    Source: Lin, IEEE Transactions on Information Theory 37 (1991).
    """
    logp_NC, logq_NC, logm_NC = _log_p_q_m(logits_p_NC, logits_q_NC)
    nats_N = (np.exp(logp_NC) * (logp_NC - logm_NC) + np.exp(logq_NC) * (logq_NC - logm_NC)).sum(axis=1) / 2
    bits_N = np.where(np.abs(nats_N) < 1e-14, 0.0, nats_N / np.log(2))  # rounding alone makes these, and leaves [0, 1]
    return np.asarray(np.clip(bits_N, 0.0, 1.0))


def mean_js(logits_p_NC: Any, logits_q_NC: Any) -> Estimate:
    """The mean of `js` over examples with its Student-t interval cut to [0, 1]; failed for no examples."""
    return _within(Estimate.mean(js(logits_p_NC, logits_q_NC)))


def activation_distance(logits_p_NC: Any, logits_q_NC: Any) -> Estimate:
    """The mean length of the difference of two models' probabilities, in [0, √2]; failed for no examples.

    What papers call activation distance, between a model and its retraining. Args and Raises as in `js`.
    """
    p_NC, q_NC = (np.exp(log_softmax(z_NC, axis=1)) for z_NC in _pair(logits_p_NC, logits_q_NC))
    return _within(Estimate.mean(np.sqrt(np.square(p_NC - q_NC).sum(axis=1))), np.sqrt(2.0))


def zrf(logits_model_NC: Any, logits_untrained_NC: Any) -> Estimate:
    """Zero-retrain forgetting: 1 - mean JS divergence, in bits, to an untrained model; in [0, 1].

    1 means that the model answers like the untrained one. The ideal is the retrained model's number, not 1.

    Args:
        logits_model_NC: the judged model's logits of the forget examples.
        logits_untrained_NC: those of a freshly initialised model of the same architecture.

    Returns:
        The score with its interval; failed for no examples. Raises as in `js`.

    Source: Chundawat et al. (Bad Teacher), AAAI 2023, with base 2 so that the score spans [0, 1].
    """
    return _within(Estimate.mean(1 - js(logits_model_NC, logits_untrained_NC)))


def zrf_legacy(logits_model_NC: Any, logits_untrained_NC: Any) -> Estimate:
    """The ZRF that the method's released code prints, for comparison with published tables only.

    It takes KL(m‖p) for KL(p‖m), uses nats and divides by the number of classes as well, so its scores crowd
    towards 1 as classes grow, and have no lower bound. Args and Raises as in `zrf`.
    """
    logp_NC, logq_NC, logm_NC = _log_p_q_m(logits_model_NC, logits_untrained_NC)
    turned_NC = np.exp(logm_NC) * ((logm_NC - logp_NC) + (logm_NC - logq_NC)) / 2
    return Estimate.mean(1 - turned_NC.mean(axis=1))


def agreement(logits_a_NC: Any, logits_b_NC: Any) -> Estimate:
    """The percentage of examples on which both models answer the same class, with its interval.

    Clopper-Pearson; failed for no examples. Args and Raises as in `js`.
    """
    a_NC, b_NC = _pair(logits_a_NC, logits_b_NC)
    same_N = a_NC.argmax(axis=1) == b_NC.argmax(axis=1)
    return Estimate.share(int(same_N.sum()), len(same_N), 100.0)


def _log_p_q_m(logits_p_NC: Any, logits_q_NC: Any) -> tuple[Array, Array, Array]:
    logp_NC, logq_NC = (log_softmax(z_NC, axis=1) for z_NC in _pair(logits_p_NC, logits_q_NC))
    return logp_NC, logq_NC, np.logaddexp(logp_NC, logq_NC) - np.log(2)


def _pair(logits_a_NC: Any, logits_b_NC: Any) -> tuple[Array, Array]:
    a_NC, b_NC = float64(logits_a_NC), float64(logits_b_NC)
    if a_NC.ndim != 2 or a_NC.shape != b_NC.shape or not a_NC.shape[1]:
        raise ExpungeError(
            f"Two models are compared on the same examples and classes; got {a_NC.shape} and {b_NC.shape}."
        )
    for which, z_NC in (("first", a_NC), ("second", b_NC)):
        bad = int((~np.isfinite(z_NC)).any(axis=1).sum())
        if bad:
            raise ExpungeError(
                f"The {which} model's logits are NaN or infinite for {bad} of {len(z_NC)} examples; "
                "it has diverged there."
            )
    return a_NC, b_NC


def _within(mean: Estimate, most: float = 1.0) -> Estimate:
    if not mean.ok or mean.low is None or mean.high is None:
        return mean
    return Estimate(mean.value, max(mean.low, 0.0), min(mean.high, most))
