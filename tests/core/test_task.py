"""Classification: losses and scores against NumPy, and models that do not fit their data."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn

import expunge as ex
from expunge import Classification, ExpungeError, Rows


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


@pytest.fixture
def rows() -> Rows:
    random = np.random.default_rng(0)
    return Rows(random.standard_normal((9, 4)).astype(np.float32), np.arange(9) % 3)


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return SimpleNamespace(logits=self.inner(x))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("wrap", [lambda m: m, Wrapped])
def test_the_loss_is_cross_entropy_example_by_example(rows, smoothing, wrap):
    model, x = linear(), rows.x(torch.arange(9))
    logits = x.numpy() @ model.weight.detach().numpy().T + model.bias.detach().numpy()
    target = np.full((9, 3), smoothing / 3)
    target[np.arange(9), rows.y.numpy()] += 1 - smoothing
    expected = -(target * log_softmax(logits.astype(np.float64), axis=1)).sum(1)
    task = Classification(classes=3, label_smoothing=smoothing)
    loss = task.loss(wrap(model), x, rows.y)
    assert loss.requires_grad
    np.testing.assert_allclose(loss.detach(), expected, rtol=1e-5)
    np.testing.assert_allclose(task.scores(wrap(model), x).detach(), logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_what_is_no_logits_is_named_with_the_mode_it_was_returned_in(rows, mode):
    class Two(nn.Linear):
        """Returns a second answer while it is trained, as some networks with auxiliary heads do."""

        def forward(self, x):
            return (super().forward(x), x) if self.training else super().forward(x)[:, 0]

    model, told = Two(4, 3), {"eval": r"got shape \(9,\)\.$", "train": r"got tuple in training mode\.$"}[mode]
    model.train(mode == "train")
    with pytest.raises(ExpungeError, match=r"must return logits of shape \(batch, classes\), .*" + told):
        Classification(classes=3).loss(model, rows.x(torch.arange(9)), rows.y)


def test_scores_of_a_half_precision_model_are_full_floats():
    task = Classification(classes=3)
    assert task.scores(linear().bfloat16(), torch.ones(2, 4).bfloat16()).dtype == torch.float32


def test_noise_is_standard_normal_and_shaped_like_the_input():
    x = torch.empty(200, 3, 8, 8)
    noise = Classification(classes=3).noise_like(x, torch.Generator().manual_seed(0)).numpy()
    assert noise.shape == x.shape
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    with pytest.raises(ExpungeError, match="tokens"):
        Classification(classes=3).noise_like(torch.zeros(2, 5, dtype=torch.long), torch.Generator())


def test_cells_are_the_linear_and_convolutional_modules():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Sequential(nn.Linear(2, 2)))
    assert list(Classification(classes=3).cells(model)) == ["0", "3.0"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"classes": 1}, "at least 2"), ({"classes": 3, "label_smoothing": 1}, "label_smoothing")],
)
def test_wrong_settings_are_refused(fields, words):
    with pytest.raises(ExpungeError, match=words):
        Classification(**fields)


def test_no_admissible_label_is_refused():
    task = Classification(classes=2, without=(0,))
    with pytest.raises(ExpungeError, match="label"):
        task.another_label(torch.tensor([1, 1]), torch.Generator())


def broken() -> nn.Module:
    model = linear()
    model.bias.data[1] = float("nan")
    return model


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Linear(4, 5), r"5 outputs, but data has 3 classes"),
        (nn.Linear(4, 2), r"2 outputs, but data has 3 classes"),
        (nn.Linear(6, 3), r"does not accept inputs of shape \(4,\)"),
        (nn.Linear(4, 3).double(), r"Its weights are float64 and inputs float32: give model\.float\(\)"),
        (nn.Linear(4, 3).half(), r"Its weights are float16 and inputs float32: give model\.float\(\)"),
        (nn.Sequential(nn.Linear(4, 3), nn.Unflatten(1, (3, 1))), r"logits of shape \(batch, classes\).*\(2, 3, 1\)"),
        (Wrapped(nn.LSTM(4, 3)), "tuple|NoneType|SimpleNamespace"),
        (broken(), "NaN or infinity"),
    ],
)
def test_models_that_do_not_fit_the_data_are_refused_before_compute(rows, model, words):
    problems = Classification(classes=3).problems(model, rows)
    assert len(problems) == 1
    with pytest.raises(ExpungeError, match=words):
        ex.unlearn(model, ex.Request(rows, ids=[0]), "finetune")


def test_looking_at_a_model_leaves_it_and_the_random_state_as_they_were(rows):
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.layer = nn.BatchNorm1d(4), nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(self.norm(x + torch.randn_like(x)))

    model = Noisy().train()
    model.norm.eval()
    state = torch.get_rng_state()
    assert Classification(classes=3).problems(model, rows) == []
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == [True, False, True]
    assert not model.norm.num_batches_tracked
