import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from expunge.audit.accuracy import error
from expunge.audit.attacks.classifier import CLASSIFIERS, forget_vs_unseen, mia, share_of_nonmembers
from expunge.audit.attacks.scores import FEATURES, membership_score
from expunge.errors import ExpungeError


@pytest.fixture(scope="module")
def digits():
    """Logits and labels of a small network on real digits: retain, unseen, and forget (a mix of both)."""
    x, y = load_digits(return_X_y=True)
    flip = np.random.default_rng(0)
    y = np.where(flip.random(len(y)) < 0.1, flip.integers(0, 10, len(y)), y)  # wrong labels: something to memorise
    x_in, x_out, y_in, y_out = train_test_split(x / 16, y, test_size=0.5, random_state=0)
    network = MLPClassifier((64,), max_iter=60, random_state=0, learning_rate_init=3e-3).fit(x_in, y_in)
    logits = {
        "in": np.log(network.predict_proba(x_in) + 1e-12),
        "out": np.log(network.predict_proba(x_out) + 1e-12),
    }
    forget = np.concatenate([logits["in"][:60], logits["out"][:90]]), np.concatenate([y_in[:60], y_out[:90]])
    return (logits["in"][60:], y_in[60:]), (logits["out"][90:], y_out[90:]), forget


@pytest.fixture(autouse=True)
def quiet():
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Maximum iterations.*")
        yield


def test_the_confidence_attack_is_the_published_one(digits):
    retain, unseen, forget = (membership_score("confidence", *part)[:300] for part in digits)
    reference = SVC(C=3, kernel="rbf", gamma="auto")
    reference.fit(np.concatenate([retain, unseen])[:, None], np.repeat([1, 0], [300, 300]))
    called = int((reference.predict(forget[:, None]) == 0).sum())
    expected = binomtest(called, len(forget)).proportion_ci(method="exact")
    e = share_of_nonmembers(retain, unseen, forget)
    assert (e.value, e.low, e.high) == pytest.approx(
        (100 * called / len(forget), 100 * expected.low, 100 * expected.high)
    )
    assert 0 < called < len(forget)


@pytest.mark.parametrize("feature", sorted(set(FEATURES) - {"correctness"}))
def test_capped_attack_agrees_with_the_whole_one_on_average_over_draws(digits, feature):
    # On average only: single draws scatter beyond the interval, which takes the classifier as given.
    whole = mia(feature, *digits, cap=None)
    capped = [mia(feature, *digits, cap=500, seed=s).value for s in range(20)]
    assert whole.low <= np.mean(capped) <= whole.high
    assert 0 < whole.value < 100


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize(("cap", "seeds"), [(500, range(8)), (None, range(1))])
def test_correctness_reproduces_ua_exactly(digits, classifier, cap, seeds):
    ua = error(digits[2][0].argmax(axis=1), digits[2][1])
    assert ua.value > 0
    assert all(mia("correctness", *digits, classifier=classifier, cap=cap, seed=s) == ua for s in seeds)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_the_rule_points_the_right_way(classifier):
    random = np.random.default_rng(1)
    retain, unseen = random.normal(3, 1, 400), random.normal(-3, 1, 300)
    called = [share_of_nonmembers(retain, unseen, x, classifier=classifier).value for x in (retain, unseen)]
    assert called[0] < 2
    assert called[1] > 98


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_unbalanced_sets_do_not_tilt_the_attack(classifier):
    random = np.random.default_rng(2)
    called = []
    for seed in range(20):  # one draw of the threshold attack scatters by 4.5 points, the mean of 20 by 1
        retain, unseen, fresh = (
            random.normal(1, 1, 5000),
            random.normal(-1, 1, 200),
            random.normal(-1, 1, 2000),
        )
        called.append(share_of_nonmembers(retain, unseen, fresh, classifier=classifier, seed=seed).value)
    assert np.mean(called) == pytest.approx(84.13, abs=3)  # the best balanced threshold is 0, one sd off


def test_draws_are_seeded(digits):
    assert mia("loss", *digits, cap=60, seed=3) == mia("loss", *digits, cap=60, seed=3)
    assert len({mia("loss", *digits, cap=20, seed=s).value for s in range(5)}) > 1


def test_too_few_examples_say_so(digits):
    retain, unseen, forget = digits
    nothing = (np.zeros((0, 10)), np.zeros(0))
    assert "no forget examples" in mia("loss", retain, unseen, nothing).why
    assert "it has 838 and 0" in mia("loss", retain, nothing, forget).why
    assert not mia("loss", retain, unseen, forget, cap=1).ok


def test_refusals(digits):
    with pytest.raises(ExpungeError, match="'logistic'"):
        mia("loss", *digits, classifier="logistik")
    with pytest.raises(ExpungeError, match="Unknown attack feature"):
        mia("lossy", *digits)
    with pytest.raises(ExpungeError, match="forget scores"):
        share_of_nonmembers([1.0, 2.0], [0.0, 1.0], [np.inf])


def test_forget_against_unseen_without_signal_is_guessing():
    random = np.random.default_rng(4)
    trials = [forget_vs_unseen(random.normal(size=50), random.normal(size=80), seed=i) for i in range(200)]
    assert np.mean([e.value for e in trials]) == pytest.approx(0.5, abs=0.015)
    assert np.mean([e.low <= 0.5 <= e.high for e in trials]) >= 0.93


def test_forget_against_unseen_finds_what_is_there():
    random = np.random.default_rng(5)
    forget, unseen = random.normal(1, 1, 3000), random.normal(-1, 1, 1500)
    assert forget_vs_unseen(forget, unseen).value == pytest.approx(0.841, abs=0.015)
    assert forget_vs_unseen(unseen, forget).value == pytest.approx(0.841, abs=0.015)  # either way round
    two = (
        np.stack([random.normal(size=3000), forget], axis=1),
        np.stack([random.normal(size=1500), unseen], axis=1),
    )
    assert forget_vs_unseen(*two).value == pytest.approx(0.841, abs=0.015)
    assert forget_vs_unseen(np.ones(30), np.zeros(30)).value == 1
    assert forget_vs_unseen(np.ones(30), np.ones(30)).value == pytest.approx(0.5)


def test_forget_against_unseen_refuses_or_fails():
    assert "1 forget and 5 unseen" in forget_vs_unseen([1.0], np.zeros(5)).why
    with pytest.raises(ExpungeError, match="1 features, unseen rows 2"):
        forget_vs_unseen(np.zeros(5), np.zeros((5, 2)))
    with pytest.raises(ExpungeError, match="finite"):
        forget_vs_unseen([np.nan, 1.0], [0.0, 1.0])
