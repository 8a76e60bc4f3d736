"""What each column of the table is: its name, unit, direction, ideal, and how to read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A column of the table.

    Args:
        name: as in results.csv.
        title: as in the report.
        unit: "%", "epochs", or "" for a plain number. Values are measured and saved in this unit.
        direction: "match" (close to the ideal, from either side), "higher" or "lower" is better.
        ideal: "retrain" (the retrained model's number) or a number.
        version: raised when the number's definition changes, so that unlike numbers are not compared.
        reading: one line for people who do not know the field.
    """

    name: str
    title: str
    unit: str
    direction: Literal["match", "higher", "lower"]
    ideal: Literal["retrain"] | float
    version: int
    reading: str


def _match(name: str, title: str, unit: str, reading: str) -> Metric:
    """A number that should be what retraining has, from either side."""
    return Metric(name, title, unit, "match", "retrain", 1, reading)


def _auc(feature: str, told_by: str) -> Metric:
    reading = (
        f"Can an outsider tell forgotten rows from never-seen ones by {told_by}? 0.5: no; towards 1: "
        "they still look trained on; below 0.5: they look stranger than unseen rows."
    )
    return _match(f"auc_{feature.replace(' ', '_')}", f"Attack AUC, {feature}", "", reading)


_ALL = (
    _match(
        "ua",
        "Forget error",
        "%",
        "How often the model is wrong on the rows it had to forget. High is not good in itself: it "
        "should err as often as a model that never saw them.",
    ),
    _match(
        "ra",
        "Retain accuracy",
        "%",
        "How often the model is right on the training rows it may keep. A drop is damage.",
    ),
    _match(
        "ta",
        "Test accuracy",
        "%",
        "How often the model is right on unseen rows, without the forgotten classes. A drop is damage.",
    ),
    _match(
        "tfa",
        "Test accuracy, forgotten classes",
        "%",
        "How often the model still recognises new examples of a forgotten class. Empty when single rows, "
        "not classes, were forgotten.",
    ),
    _match(
        "mia",
        "Forgotten rows called unseen",
        "%",
        "Share of forgotten rows that a simple attack takes for never seen. The attack is weak: a good "
        "number is no proof of privacy.",
    ),
    _auc("loss", "the model's loss"),
    _auc("confidence", "how sure the model is of the true class"),
    _auc("entropy", "how undecided the model is"),
    _auc("modified entropy", "how undecided the model is, given the true class"),
    _auc("margin", "the log-odds of the true class"),
    _match(
        "balanced_accuracy",
        "Combined attack, accuracy",
        "",
        "How often logistic regression on all attack features at once is right about forgotten against "
        "never-seen rows, which weigh the same. 0.5 is guessing.",
    ),
    _match(
        "tpr_at_1fpr",
        "Rows exposed at 1 % false alarms",
        "",
        "Share of forgotten rows an attacker can name with at most 1 wrong accusation in 100. Guessing "
        "reaches about 0.01; with few unseen rows the number is coarse.",
    ),
    Metric(
        "avg_gap",
        "Average gap to retraining",
        "%",
        "lower",
        0.0,
        1,
        "Mean distance to retraining over forget error, retain accuracy, test accuracy and attack, in "
        "percentage points. A second retraining is not at 0 either: compare with its row.",
    ),
    Metric(
        "tow",
        "Tug-of-war",
        "",
        "higher",
        1.0,
        1,
        "Closeness to retraining in forget, retain and test accuracy, multiplied; 1 is equal. A second "
        "retraining stays below 1 too: compare with its row.",
    ),
    Metric(
        "agreement",
        "Same answers as retraining",
        "%",
        "higher",
        100.0,
        1,
        "Share of forgotten rows that the model answers as the retrained one does. Two retrainings "
        "differ as well: the second one's row is what can be reached.",
    ),
    Metric(
        "js",
        "Distance of answers to retraining",
        "",
        "lower",
        0.0,
        1,
        "How far the predicted probabilities on forgotten rows are from the retrained model's: 0 equal, "
        "1 opposite. Two retrainings are not at 0 either: compare with the second one's row.",
    ),
    Metric(
        "activation_distance",
        "Activation distance to retraining",
        "",
        "lower",
        0.0,
        1,
        "The same distance as papers give it: the length of the difference of the probabilities, 0 to 1.41. Two "
        "retrainings are not at 0 either.",
    ),
    _match(
        "zrf",
        "Likeness to an untrained model",
        "",
        "How much the answers on forgotten rows resemble a network that learnt nothing (1: the same). "
        "More than retraining is not better: ignorance can be conspicuous.",
    ),
    _match(
        "relearn",
        "Time to relearn",
        "epochs",
        "How long the model must train on the forgotten rows to know them again. Much faster than "
        "retraining means that something was left behind.",
    ),
    Metric(
        "ain",
        "Relearning relative to retraining",
        "",
        "match",
        1.0,
        1,
        "Time to relearn divided by the retrained model's. Below 1: traces remain; far above 1: the "
        "model resists, which gives the forgetting away.",
    ),
    _match(
        "distance",
        "Change of weights",
        "",
        "How far the weights moved from the original, relative to their size. It proves nothing alone: "
        "models with different weights can know the same.",
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric by name, in the order of the table."""
