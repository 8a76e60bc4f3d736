"""What each column of the table of a generation audit is."""

from __future__ import annotations

from expunge.audit.metric import Metric

_ALL = (
    Metric(
        "recognised",
        "Forgotten class recognised",
        "%",
        "match",
        "retrain",
        1,
        "Share of the images drawn for a forgotten class that the classifier takes for it. A model that never saw the "
        "class can hardly draw it.",
    ),
    Metric(
        "others",
        "Other classes recognised",
        "%",
        "match",
        "retrain",
        1,
        "Share of the images drawn for the other classes that the classifier takes for what was asked. A drop is "
        "damage.",
    ),
    Metric(
        "fid",
        "FID on the classifier's features, others",
        "",
        "lower",
        0.0,
        1,
        "Distance between images drawn for the other classes and training rows of them, in the features of the "
        "classifier that judges, not Inception's: to be compared inside this table only, at these numbers of images.",
    ),
    Metric(
        "probability",
        "Probability of the forgotten class",
        "%",
        "match",
        "retrain",
        1,
        "Mean probability that the classifier gives to the forgotten class on images drawn for it.",
    ),
    Metric(
        "entropy",
        "Entropy on the forgotten class",
        "nats",
        "match",
        "retrain",
        1,
        "How undecided the classifier is about images drawn for the forgotten class: near 0 they look like some class, "
        "high they look like none.",
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric by name, in the order of the table."""
