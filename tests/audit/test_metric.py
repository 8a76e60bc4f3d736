import pytest

from expunge.audit.attacks.scores import FEATURES
from expunge.audit.metric import METRICS

ORDER = [
    "ua",
    "ra",
    "ta",
    "tfa",
    "mia",
    "auc_loss",
    "auc_confidence",
    "auc_entropy",
    "auc_modified_entropy",
    "auc_margin",
    "balanced_accuracy",
    "tpr_at_1fpr",
    "avg_gap",
    "tow",
    "agreement",
    "js",
    "activation_distance",
    "zrf",
    "relearn",
    "ain",
    "distance",
]


def test_every_column_in_the_order_of_the_table():
    assert list(METRICS) == ORDER
    assert all(metric.name == name for name, metric in METRICS.items())


@pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))
def test_fields_make_sense(metric):
    assert metric.unit in {"%", "epochs", ""}
    assert metric.ideal == "retrain" or isinstance(metric.ideal, float)
    assert (metric.direction == "match") or metric.ideal != "retrain"
    assert "\n" not in metric.reading
    assert metric.reading.endswith(".")
    assert "  " not in metric.reading


def test_every_area_has_its_attack():
    attacks = {name.removeprefix("auc_") for name in METRICS if name.startswith("auc_")}
    assert attacks == set(FEATURES) - {"correctness"}


def test_metrics_cannot_be_changed():
    with pytest.raises(AttributeError):
        METRICS["ua"].ideal = 100.0
