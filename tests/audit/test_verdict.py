"""Verdicts on models of which the truth is known, because their answers are written by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import t as student
from torch import Tensor, nn

from expunge.audit.spread import PRIOR, difference, spread
from expunge.audit.subject import Ground, Subject
from expunge.audit.verdict import DAMAGED, NO_EFFECT, OVERDONE, PARTLY, WITHIN, Judge, Verdict, contributions, residue
from expunge.data import Rows
from expunge.task import Classification

N, CLASSES = 200, 5


class Told(nn.Module):
    """Answers each row with logits from a table; a row's input is its number in the table."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.table[x[:, 0].long()]


def rows(first: int) -> Rows:
    return Rows(torch.arange(first, first + N).float()[:, None], torch.arange(N) % CLASSES, name=f"from {first}")


GROUND = Ground(forget=rows(0), retain=rows(N), unseen=rows(2 * N), alike=rows(3 * N), forgotten=None)


def told(seed: int, *, forget: float, retain: float = 0.99, unseen: float = 0.95, sure: float = 4.0) -> Subject:
    """A model that is right on these shares of the rows; which rows depends on the seed."""
    random = np.random.default_rng(seed)
    table = torch.tensor(random.normal(0, 0.1, (4 * N, CLASSES)), dtype=torch.float32)
    for part, share in enumerate((forget, retain, unseen, unseen)):
        right = np.zeros(N, dtype=bool)
        right[random.permutation(N)[: round(share * N)]] = True
        label = np.arange(N) % CLASSES
        answer = np.where(right, label, (label + 1) % CLASSES)
        table[part * N + np.arange(N), answer] += sure
    return Subject("told", seed, Told(table), Classification(classes=CLASSES), GROUND)


@pytest.fixture(scope="module")
def judge() -> Judge:
    retrained = [told(s, forget=0.9 + 0.005 * s) for s in range(3)]
    return Judge(retrained, [told(10, forget=1.0)])


@pytest.mark.parametrize(
    ("word", "metric", "model"),
    [
        (NO_EFFECT, "ua", {"forget": 1.0}),
        (WITHIN, None, {"forget": 0.905}),
        (OVERDONE, "ua", {"forget": 0.4}),
        (DAMAGED, "ra", {"forget": 0.9, "retain": 0.7}),
        (DAMAGED, "ta", {"forget": 0.9, "unseen": 0.6}),
    ],
)
def test_words(judge: Judge, word: str, metric: str | None, model: dict[str, float]) -> None:
    verdict = judge.verdict("m", [told(20 + s, **model) for s in range(3)])
    assert verdict.word == word, verdict.sentence
    if metric:
        assert verdict.metric == metric
        assert verdict.low <= verdict.difference <= verdict.high
        assert abs(verdict.difference) > verdict.visible


def test_partly_lies_between_original_and_retraining() -> None:
    retrained = [told(s, forget=0.5 + 0.005 * s) for s in range(3)]
    judge = Judge(retrained, [told(10, forget=1.0)])
    assert judge.verdict("m", [told(20 + s, forget=0.75) for s in range(3)]).word == PARTLY


def test_better_than_retraining_on_kept_rows_is_no_damage(judge: Judge) -> None:
    better = [told(30 + s, forget=0.905, retain=1.0, unseen=1.0) for s in range(3)]
    assert judge.verdict("m", better).word != DAMAGED


def test_the_sentence_names_the_number_and_what_could_be_seen(judge: Judge) -> None:
    verdict = judge.verdict("m", [told(20, forget=1.0)])
    assert "Forget error is 0.0 %, after retraining 9.5 %" in verdict.sentence
    assert f"could have seen is {verdict.visible:.1f} points" in verdict.sentence


def test_contributions_average_to_the_metrics() -> None:
    from sklearn.metrics import accuracy_score, roc_auc_score

    s = told(3, forget=0.8, retain=0.9, unseen=0.7)
    y = GROUND.forget.y.numpy()
    assert contributions("ua", s).mean() == pytest.approx(100 - 100 * accuracy_score(y, s.forget.argmax(1)))
    assert contributions("ra", s).mean() == pytest.approx(90.0)
    assert contributions("ta", s).mean() == pytest.approx(70.0)
    loss = [
        torch.nn.functional.cross_entropy(z, GROUND.forget.y, reduction="none").numpy() for z in (s.forget, s.alike)
    ]
    expected = roc_auc_score([1] * N + [0] * N, -np.concatenate(loss))
    assert contributions("auc_loss", s).mean() == pytest.approx(expected, abs=1e-9)


def test_spread_is_the_shrunk_standard_deviation_by_hand() -> None:
    table = np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]])
    between = np.var([0.5, 0.5, 0.75], ddof=1)
    alone = (1 / 3 + 0 + 1 / 3 + 1 / 3) / 16
    assert spread(table) == pytest.approx(np.sqrt(max(between, (2 * between + PRIOR * alone) / (2 + PRIOR))))
    together = np.array([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5]])  # examples vary together: nothing is taken off
    assert spread(together) == pytest.approx(0.5)
    assert spread(table[:1]) is None


def test_difference_shares_its_level_among_the_tests() -> None:
    from scipy.stats import t

    one = difference(1.0, 0.5, models=1, runs=3, tolerance=0.0, tests=1)
    many = difference(1.0, 0.5, models=1, runs=3, tolerance=0.0, tests=5)
    assert one.value == 1.0
    assert one.half == pytest.approx(t.ppf(0.975, 2 + PRIOR) * 0.5 * np.sqrt(1 + 1 / 3))
    assert many.half == pytest.approx(t.ppf(0.995, 2 + PRIOR) * 0.5 * np.sqrt(1 + 1 / 3))
    assert difference(0.1, 0.0, models=1, runs=3, tolerance=0.5, tests=1).visible == 0.5


def test_a_model_that_relearns_in_half_the_time_is_not_within() -> None:
    within = Verdict("m", WITHIN, "…")
    assert residue(within, [1.0, 1.2], [4.0, 5.0]).word == PARTLY
    assert residue(within, [3.0, 3.0], [4.0, 5.0]) is within
    assert residue(within, [], [4.0]) is within
    done = Verdict("m", NO_EFFECT, "…")
    assert residue(done, [0.1], [4.0]) is done


def test_models_made_from_one_original_count_as_one() -> None:
    retrained = [told(s, forget=0.9 + 0.02 * s) for s in range(3)]
    made = [told(20 + s, forget=0.92) for s in range(3)]
    one = Judge(retrained, [told(10, forget=1.0)]).verdict("m", made)
    three = Judge(retrained, [told(10 + s, forget=1.0) for s in range(3)]).verdict("m", made)
    assert one.metric == three.metric
    assert one.visible / three.visible == pytest.approx(np.sqrt((1 + 1 / 3) / (2 / 3)))


def test_an_interval_counts_the_spread_of_the_methods_models_too() -> None:
    """Of a forgotten class all retrainings may be alike; a method's models are not, and its mean is as uncertain."""
    found = difference(-39.0, 0.0, models=3, runs=3, tolerance=0.5, tests=6, own=10.5)
    expected = student.ppf(1 - 0.05 / 12, 4) * 10.5 / np.sqrt(3)
    assert found.half == pytest.approx(expected)
    assert found.visible == 0.5  # another retraining would still show nothing
    assert difference(1.0, 0.5, models=1, runs=3, tolerance=0.0, tests=6, own=0.1).half == pytest.approx(
        difference(1.0, 0.5, models=1, runs=3, tolerance=0.0, tests=6).half
    )
    assert difference(-39.0, 0.0, models=1, runs=3, tolerance=0.5, tests=6).half is None


def test_an_interval_without_width_is_none_and_says_why() -> None:
    retrained, original = [told(s, forget=0.0) for s in range(3)], [told(10 + s, forget=1.0) for s in range(3)]
    judge = Judge(retrained, original)
    three = judge.verdict("m", [told(20 + s, forget=0.3 + 0.1 * s) for s in range(3)])
    assert three.low < three.difference < three.high
    one = judge.verdict("m", [told(20, forget=0.4)])
    assert (one.metric, one.low, one.high) == (three.metric, None, None)
    assert "without an interval: nothing differs between seeds; the smallest" in one.sentence


def test_what_retraining_does_better_than_the_original_is_no_damage() -> None:
    """Without a class that was confused with others, a retrained model is better on the rest."""
    retrained = [told(s, forget=0.5, retain=0.99, unseen=0.99) for s in range(3)]
    original = told(10, forget=1.0, retain=0.85, unseen=0.85)
    judge = Judge(retrained, [original])
    assert judge.verdict("original", [original]).word == NO_EFFECT
    forgot = told(20, forget=0.5, retain=0.85, unseen=0.85)
    assert judge.verdict("m", [forgot]).word != WITHIN
    assert judge.verdict("m", [told(21, forget=0.5, retain=0.6, unseen=0.85)]).word == DAMAGED


def test_one_distance_between_two_retrainings_gives_no_interval() -> None:
    original, unsure = told(10, forget=1.0), told(20, forget=0.98, sure=1.0)
    two = Judge([told(s, forget=0.98) for s in range(2)], [original]).verdict("m", [unsure])
    three = Judge([told(s, forget=0.98) for s in range(3)], [original]).verdict("m", [unsure])
    assert two.metric == three.metric == "js"
    assert two.low is None
    assert two.high is None
    assert "without an interval: two retrainings have one distance between them" in two.sentence
    assert three.low < three.difference < three.high
    assert "interval" not in three.sentence
