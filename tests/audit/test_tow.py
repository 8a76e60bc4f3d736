import math

import pytest

from expunge.audit.tow import avg_gap, tow, tow_mia
from expunge.errors import ExpungeError

RETRAIN = {"forget": 0.8, "retain": 0.9998, "test": 0.81, "mia": 0.3}


def test_two_retrainings():
    again = {"forget": 0.806, "retain": 1.0, "test": 0.808}
    score = tow(again, RETRAIN)
    assert score.value == pytest.approx(0.9918, abs=5e-5)
    assert (score.forget, score.retain, score.test) == pytest.approx((0.994, 0.9998, 0.998))
    assert tow(RETRAIN, RETRAIN).value == 1


def test_over_and_under_forgetting_count_alike():
    under, over = ({**RETRAIN, "forget": RETRAIN["forget"] + d} for d in (0.1, -0.1))
    assert tow(under, RETRAIN).value == pytest.approx(0.9)
    assert tow(over, RETRAIN).value == pytest.approx(0.9)


def test_tow_mia_takes_the_attack_for_the_forget_accuracy():
    score = tow_mia({"mia": 0.5, "retain": 0.8998, "test": 0.81}, RETRAIN)
    assert (score.forget, score.retain, score.test) == pytest.approx((0.8, 0.9, 1.0))
    assert score.value == pytest.approx(0.72)


def test_avg_gap():
    model = {"ua": 2.0, "ra": 99.0, "ta": 93.0, "mia": 10.0, "tfa": 0.0}
    retrain = {"ua": 5.0, "ra": 100.0, "ta": 94.0, "mia": 13.0}
    assert avg_gap(model, retrain) == pytest.approx((3 + 1 + 1 + 3) / 4)
    assert avg_gap(retrain, retrain) == 0


def test_refusals_name_everything_at_once():
    with pytest.raises(ExpungeError) as caught:
        tow({"forget": 80.0, "retain": math.nan}, RETRAIN)
    for part in (
        "'forget' of the model is 80.0; expected a fraction",
        "'retain' of the model is nan",
        "'test' of",
    ):
        assert part in str(caught.value)
    with pytest.raises(ExpungeError, match="'mia' of retraining is missing"):
        avg_gap({"ua": 1, "ra": 1, "ta": 1, "mia": 1}, {"ua": 1, "ra": 1, "ta": 1})
