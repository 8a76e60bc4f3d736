"""The loop: against loops written by hand in plain PyTorch, and what it leaves as it was."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import expunge as ex
from expunge import ExpungeError, Rows
from expunge.artifact import TrainingCheckpoint
from expunge.descend import descend
from expunge.feed import Feed
from expunge.phase import Phase, Term
from expunge.run import Run
from expunge.surrogate import Relabel
from expunge.task import Classification
from kit import Recording, bits

TASK = Classification(classes=10)
PARTS = {"retain": torch.arange(100, 803), "forget": torch.arange(100)}


def phase(**fields) -> Phase:
    return Phase(**{"terms": (Term("retain"),), "epochs": 2, "lr": 0.05, "batch_size": 64, **fields})


def plan(p: Phase, epoch: int, run: Run, number: int = 0) -> list:
    """The batches the loop is bound to take."""
    return list(p.plan(PARTS, run.generator("plan", number, epoch)))


def loop(model: nn.Module, rows: Rows, *phases: Phase, run: Run | None = None, **more):
    return descend(model, rows, PARTS, TASK, phases, run or Run(), **more)


def dropout_net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(288, 10)
        )


# -- against a loop by hand ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "make"),
    [
        ({"momentum": 0.0, "weight_decay": 0.0}, lambda p: torch.optim.SGD(p, 0.05, fused=True)),
        ({"weight_decay": 5e-4}, lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=5e-4, fused=True)),
        ({"optimizer": "adam", "lr": 1e-3}, lambda p: torch.optim.Adam(p, 1e-3, weight_decay=5e-4, fused=True)),
        ({"optimizer": "adamw", "lr": 1e-3}, lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=5e-4, fused=True)),
    ],
)
@pytest.mark.parametrize("architecture", ["mlp", "net"])
def test_it_is_plain_training_bit_for_bit(settings, make, architecture, train, request):
    model = request.getfixturevalue(architecture)
    mine, run, p = copy.deepcopy(model).train(), Run(seed=5), phase(**settings)
    layout = {"memory_format": torch.channels_last if architecture == "net" else torch.contiguous_format}
    mine.to(**layout)  # as the loop holds convolutions; in the other layout sums are rounded otherwise
    optimizer = make(mine.parameters())
    for epoch in range(2):
        for picks in plan(p, epoch, run):
            index = picks[0][1]
            optimizer.zero_grad()
            F.cross_entropy(mine(train.x(index).contiguous(**layout)), train.y[index]).backward()
            optimizer.step()
    loop(model, train, p, run=run)
    assert bits(model) == bits(mine)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_the_rate_follows_the_schedule(schedule, train, mlp):
    mine, run = copy.deepcopy(mlp), Run()
    p = phase(schedule=schedule, momentum=0.0, weight_decay=0.0)
    steps = [picks[0][1] for epoch in range(2) for picks in plan(p, epoch, run)]
    for i, index in enumerate(steps):
        t = i / len(steps)
        if schedule == "cosine":
            factor = (1 + math.cos(math.pi * t)) / 2
        else:
            factor = 0.04 + 0.96 * 4 * t if t < 0.25 else (1 + math.cos(math.pi * (t - 0.25) / 0.75)) / 2
        mine.zero_grad()
        F.cross_entropy(mine(train.x(index)), train.y[index]).backward()
        with torch.no_grad():
            for q in mine.parameters():
                q -= 0.05 * factor * q.grad
    loop(mlp, train, p, run=run)
    for a, b in zip(mlp.parameters(), mine.parameters()):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def one_step_gradient(model: nn.Module, rows: Rows, p: Phase) -> list[torch.Tensor]:
    """What one step of plain SGD at rate 1 moved: the gradient of the step, from outside."""
    before = [q.detach().clone() for q in model.parameters()]
    loop(model, rows, p)
    return [b - q.detach() for b, q in zip(before, model.parameters())]


ONE = {"epochs": 1, "lr": 1.0, "batch_size": 1000, "momentum": 0.0, "weight_decay": 0.0}


def gradient(model: nn.Module, loss: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("alpha", [0.95, 0.3])
def test_signed_terms_give_the_difference_of_the_mean_gradients(alpha, train, mlp):
    """NegGrad+: alpha times the gradient on retain less (1 - alpha) times that on forget."""
    r, s = ((train.x(i), train.y[i]) for i in (PARTS["retain"], PARTS["forget"]))
    g_r = gradient(mlp, F.cross_entropy(mlp(r[0]), r[1]))
    g_s = gradient(mlp, F.cross_entropy(mlp(s[0]), s[1]))
    terms = (Term("retain", weight=alpha), Term("forget", weight=alpha - 1))
    moved = one_step_gradient(mlp, train, phase(terms=terms, **ONE))
    for m, a, b in zip(moved, g_r, g_s):
        torch.testing.assert_close(m, alpha * a - (1 - alpha) * b, atol=2e-6, rtol=1e-4)


def test_shuffled_terms_give_each_example_its_own_weight(train, mlp):
    """One pool of n rows: each row's loss counts weight / n, whatever the sizes of the parts."""
    index = torch.cat([PARTS["retain"], PARTS["forget"]])
    weight = torch.cat([torch.full((703,), 1.0), torch.full((100,), -0.5)]) / 803
    loss = (weight * F.cross_entropy(mlp(train.x(index)), train.y[index], reduction="none")).sum()
    expected = gradient(mlp, loss)
    terms = (Term("retain"), Term("forget", weight=-0.5))
    for m, g in zip(one_step_gradient(mlp, train, phase(terms=terms, mix="shuffled", **ONE)), expected):
        torch.testing.assert_close(m, g, atol=2e-6, rtol=1e-4)


def test_in_turn_is_one_term_and_then_the_other(train, mlp):
    mine = copy.deepcopy(mlp)
    for part, sign in (("forget", -1.0), ("retain", 1.0)):
        index = PARTS[part]
        g = gradient(mine, sign * F.cross_entropy(mine(train.x(index)), train.y[index]))
        with torch.no_grad():
            for q, d in zip(mine.parameters(), g):
                q -= d
    loop(mlp, train, phase(terms=(Term("forget", weight=-1), Term("retain")), mix="in_turn", **ONE))
    for a, b in zip(mlp.parameters(), mine.parameters()):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_a_penalty_is_added_and_knows_the_progress(train, mlp):
    seen = []

    def penalty(model: nn.Module, progress: float) -> torch.Tensor:
        seen.append(progress)
        return 0.01 * sum((q**2).sum() for q in model.parameters())

    index = PARTS["retain"]
    expected = gradient(mlp, F.cross_entropy(mlp(train.x(index)), train.y[index]))
    expected = [g + 0.02 * q.detach() for g, q in zip(expected, mlp.parameters())]
    moved = one_step_gradient(mlp, train, phase(penalty=penalty, **ONE))
    for m, g in zip(moved, expected):
        torch.testing.assert_close(m, g, atol=2e-6, rtol=1e-4)
    loop(mlp, train, phase(penalty=penalty, epochs=1, batch_size=200))
    assert seen == [0, 0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("norm", [0.01, 1e6])
def test_gradients_are_clipped_to_a_norm(norm, train, mlp):
    index = PARTS["retain"]
    g = gradient(mlp, F.cross_entropy(mlp(train.x(index)), train.y[index]))
    length = math.sqrt(sum(float((d.double() ** 2).sum()) for d in g))
    for m, d in zip(one_step_gradient(mlp, train, phase(clip_norm=norm, **ONE)), g):
        torch.testing.assert_close(m, d * min(1.0, norm / length), atol=2e-6, rtol=1e-3)


def test_surrogates_are_drawn_once_or_for_every_epoch(train):
    def labels(draw: str, epoch: int) -> dict[int, int]:
        p = phase(terms=(Term("forget", surrogate=Relabel(draw=draw)),))
        feed = Feed(train, PARTS, TASK, p, 0, Run(), torch.device("cpu"))
        indexes = torch.cat([picks[0][1] for picks in plan(p, epoch, Run())])
        return dict(zip(indexes.tolist(), torch.cat([b.y for step in feed.epoch(epoch) for b in step]).tolist()))

    assert labels("once", 0) == labels("once", 1)
    assert labels("epoch", 0) != labels("epoch", 1)
    assert labels("epoch", 1) == labels("epoch", 1)
    assert all(label != int(train.y[i]) for i, label in labels("epoch", 0).items())


def test_augmentation_is_only_of_what_the_loop_is_shown(train, mlp):
    other = copy.deepcopy(mlp)
    loop(mlp, train, phase(epochs=1), run=Run(augment="crop"))
    loop(other, train, phase(epochs=1))
    assert bits(mlp) != bits(other)


# -- what it does and does not touch ---------------------------------------------------------------------------------


def test_only_the_rows_of_the_terms_are_read(train, mlp):
    spied = Recording.of(train)
    loop(mlp, spied, phase(terms=(Term("forget"),), epochs=3))
    assert np.bincount(spied.seen, minlength=len(train)).tolist() == [3] * 100 + [0] * (len(train) - 100)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_global_state_is_as_before(train, dtype):
    model = dropout_net().eval()
    model[1].train()
    model[5].bias.requires_grad_(False)
    bias = model[5].bias.clone()
    torch.set_default_dtype(dtype)
    try:
        torch.manual_seed(99)
        state = torch.get_rng_state()
        with torch.no_grad():
            loop(model, train, phase())
            assert not torch.is_grad_enabled()
        assert torch.get_default_dtype() is dtype
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_default_dtype(torch.float32)
    assert [m.training for m in model.modules()] == [False, False, True, False, False, False, False]
    assert [p.requires_grad for p in model.parameters()] == [True] * 5 + [False]
    assert torch.equal(model[5].bias, bias)
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_modes_and_random_state_are_as_before_after_an_error(train, mlp):
    mlp.eval()
    state = torch.get_rng_state()
    with pytest.raises(ExpungeError):
        loop(mlp, train, phase(lr=1e30))
    assert not any(m.training for m in mlp.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_same_seed_same_bits_whatever_the_global_state(train):
    models = [dropout_net() for _ in range(3)]
    for i, (model, seed) in enumerate(zip(models, (0, 0, 1))):
        torch.manual_seed(i)
        torch.rand(i)
        loop(model, train, phase(terms=(Term("retain"), Term("forget", surrogate=Relabel()))), run=Run(seed=seed))
    assert bits(models[0]) == bits(models[1])
    assert bits(models[0]) != bits(models[2])


def test_dropout_differs_from_step_to_step_and_from_seed_to_seed(train):
    """Same batches in both runs (one for the whole part), so that only the dropout can differ."""
    one, other = dropout_net(), dropout_net()
    whole = phase(batch_size=1000, epochs=1)
    loop(one, train, whole, run=Run(seed=0))
    loop(other, train, whole, run=Run(seed=1))
    assert max(float((a - b).detach().abs().max()) for a, b in zip(one.parameters(), other.parameters())) > 1e-4


# -- the log, stopping, failing --------------------------------------------------------------------------------------


def test_the_log_counts(train, mlp):
    log = loop(mlp, train, phase(), phase(terms=(Term("retain"), Term("forget", weight=-0.1)), epochs=1))
    assert log.steps == 2 * 11 + 11
    forget = sum(len(picks[1][1]) for picks in plan(phase(terms=(Term("retain"), Term("forget"))), 0, Run()))
    assert log.examples == 3 * 703 + forget
    assert [len(epoch) for epoch in log.losses] == [1, 1, 2]
    assert log.seconds > 0
    assert log.stopped == ""


def test_the_losses_are_means_over_the_rows(train, mlp):
    index = PARTS["retain"]
    with torch.no_grad():
        expected = F.cross_entropy(mlp(train.x(index)), train.y[index])
    log = loop(mlp, train, phase(epochs=1, lr=1e-12, weight_decay=0.0))
    assert log.losses[0][0] == pytest.approx(float(expected), rel=1e-5)


def test_no_epochs_change_nothing(train, net):
    before = bits(net)
    log = loop(net, train, phase(epochs=0))
    assert bits(net) == before
    assert log.steps == 0


def test_a_ceiling_ends_the_phase_and_only_this_one(train, mlp):
    up = phase(terms=(Term("forget", weight=-1.0),), epochs=50, ceiling=4.0, batch_size=50)
    log = loop(copy.deepcopy(mlp), train, up)
    assert 0 < log.steps < 100
    assert "above the ceiling of 4.00" in log.stopped
    assert log.losses[-1][0] > 2
    both = loop(mlp, train, up, phase(epochs=2))
    assert both.steps == log.steps + 22  # the next phase runs to its end
    assert both.stopped == log.stopped


def test_a_ceiling_concerns_terms_that_ascend(train, mlp):
    log = loop(mlp, train, phase(ceiling=1e-9))
    assert log.steps == 22
    assert not log.stopped


@pytest.mark.parametrize("batch_size", [10, 64])
def test_a_loss_that_is_not_finite_is_an_error_with_step_and_rate(batch_size, train, mlp):
    with pytest.raises(ExpungeError, match=r"(nan|inf) at step \d+ of phase 2.*Lower lr \(now 1e\+20\)"):
        loop(mlp, train, phase(epochs=1), phase(lr=1e20, batch_size=batch_size))


def test_weights_that_the_last_step_blew_up_are_an_error_as_well(train, mlp):
    with pytest.raises(ExpungeError, match="Lower lr"):
        loop(mlp, train, phase(terms=(Term("retain", weight=1e6),), lr=1e38, epochs=1, batch_size=1000))


def test_what_cannot_be_descended_on_is_refused_before_the_first_step(train, mlp):
    before = bits(mlp)
    with pytest.raises(ExpungeError, match="'others', which does not exist"):
        loop(mlp, train, phase(), phase(terms=(Term("others"),)))
    with pytest.raises(ExpungeError, match="requires_grad"):
        loop(mlp.requires_grad_(False), train, phase())
    assert bits(mlp) == before


# -- going on after an interruption ----------------------------------------------------------------------------------


class Interrupting(TrainingCheckpoint):
    """Saves after every epoch, and pulls the plug after some of them."""

    def __init__(self, path, after: int) -> None:
        super().__init__(path, every=0)
        self.after = after

    def save(self, model, optimizer, phase, epochs) -> None:
        super().save(model, optimizer, phase, epochs)
        self.after -= 1
        if not self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 2, 3, 5])
@pytest.mark.parametrize("settings", [{"momentum": 0.9}, {"momentum": 0.0}, {"optimizer": "adam", "lr": 1e-3}])
@pytest.mark.parametrize("architecture", ["mlp", "dropout"])
def test_an_interrupted_training_ends_with_the_same_bits(architecture, settings, after, train, mlp, tmp_path):
    start = mlp if architecture == "mlp" else dropout_net()
    terms = (Term("retain"), Term("forget", surrogate=Relabel()))
    phases = [
        phase(epochs=3, schedule="one_cycle", **settings),
        phase(epochs=3, terms=terms, mix="shuffled", **settings),
    ]
    run = Run(seed=4, augment="crop")
    whole, broken, resumed = (copy.deepcopy(start) for _ in range(3))
    log = loop(whole, train, *phases, run=run)
    path = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        loop(broken, train, *phases, run=run, checkpoint=Interrupting(path, after))
    assert bits(broken) != bits(whole)
    again = loop(resumed, train, *phases, run=run, checkpoint=TrainingCheckpoint(path, every=1e9))
    assert bits(resumed) == bits(whole)
    assert len(again.losses) == 6 - after  # it did go on and not begin again
    assert (again.steps, again.examples) == (log.steps, log.examples)


def test_a_damaged_state_means_to_begin_again(train, mlp, tmp_path):
    whole, path = copy.deepcopy(mlp), tmp_path / "state.safetensors"
    loop(whole, train, phase())
    path.write_bytes(b"\x00" * 100)
    loop(mlp, train, phase(), checkpoint=TrainingCheckpoint(path, every=1e9))
    assert bits(mlp) == bits(whole)
    assert not path.exists()


def test_short_trainings_are_not_slowed_down_by_writing(train, mlp, tmp_path):
    loop(mlp, train, phase(), checkpoint=TrainingCheckpoint(tmp_path / "state.safetensors"))
    assert not list(tmp_path.iterdir())


def test_a_model_of_ones_own_that_returns_an_object_with_logits_can_be_trained(train):
    class Output:
        def __init__(self, logits):
            self.logits = logits

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = ex.models.build("mlp", channels=1, size=8, classes=10, hidden=[8])

        def forward(self, x):
            return Output(self.body(x))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        own = Own()
    plain = copy.deepcopy(own.body)
    loop(own, train, phase())
    loop(plain, train, phase())
    assert bits(own.body) == bits(plain)


# -- what cannot be learned from -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mix", ["together", "in_turn", "shuffled"])
def test_a_batch_of_one_row_is_learned_from_and_it_is_said(mix, train):
    """BatchNorm on maps of 1x1 has no variance there; PyTorch refuses it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 10))
    parts = {"retain": torch.arange(3, 4), "forget": torch.arange(1)}
    p = phase(terms=(Term("forget", weight=-0.1), Term("retain")), mix=mix, epochs=2, batch_size=1, lr=0.01)
    before = bits(model)
    log = descend(model, train, parts, TASK, [p], Run())
    assert [note for note in log.notes if "one row" in note] == log.notes
    assert len(log.notes) == 1  # however many batches
    after = bits(model)
    assert after["1.running_mean"] == before["1.running_mean"]
    assert after["0.weight"] != before["0.weight"]
    p = phase(terms=(Term("retain"),), epochs=1, lr=0.01)
    assert not descend(model, train, {"retain": torch.arange(2)}, TASK, [p], Run()).notes


class Mean(Classification):
    """A loss that is averaged too early."""

    def loss(self, model, x_B, y_B):
        return super().loss(model, x_B, y_B).mean()


@pytest.mark.parametrize(
    ("loss", "got"),
    [
        (lambda task, model, x, y: task.loss(model, x, y).mean(), r"shape \(\)"),
        (lambda task, model, x, y: task.loss(model, x, y)[:, None], r"shape \(64, 1\)"),
        (lambda task, model, x, y: 0.0, "float"),
    ],
)
def test_a_loss_that_is_not_one_number_for_each_row_is_refused(loss, got, train, mlp):
    before = bits(mlp)
    parts = {"retain": torch.arange(64)}
    with pytest.raises(ExpungeError, match=f"one number for each row, .* of shape .64,. for 64 rows; got {got}"):
        descend(mlp, train, parts, TASK, [phase(terms=(Term("retain", loss=loss),))], Run())
    with pytest.raises(ExpungeError, match=r"one number for each row, .* got shape \(\)\. Take no mean"):
        descend(mlp, train, parts, Mean(classes=10), [phase()], Run())
    assert bits(mlp) == before


class Detached(nn.Module):
    """A forward pass that computes no gradient, and a layer that it does not use."""

    def __init__(self, grad: bool) -> None:
        super().__init__()
        self.head, self.unused, self.grad = nn.Linear(64, 10), nn.Linear(2, 2), grad

    def forward(self, x):
        with torch.set_grad_enabled(self.grad):
            return self.head(x.flatten(1))


@pytest.mark.parametrize("method", ["finetune", "scrub", "random_label"])
@pytest.mark.parametrize(
    ("grad", "region"), [(True, {"layers": "unused"}), (True, {"last": 1}), (False, None)], ids=["off", "last", "none"]
)
def test_a_loss_without_gradient_is_refused_with_what_to_do(method, grad, region, train, three):
    model = Detached(grad)
    with pytest.raises(ExpungeError, match=r"no weight that may move.* another region.* no torch\.no_grad\(\)"):
        ex.unlearn(model, three, method, region=region)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("method", ["finetune", "salun", "ssd"])
def test_it_learns_inside_inference_mode_too_and_gives_the_same_bits(mode, method, mlp, three):
    expected = ex.unlearn(mlp, three, method)
    with mode():
        result = ex.unlearn(mlp, three, method)
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
        assert not torch.is_grad_enabled()
    assert bits(result.model) == bits(expected.model)
    result.model(three.rows.x(torch.arange(2))).sum().backward()  # what comes out can be trained on
