"""Run: seeds for each purpose, global state, precision, progress."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
import torch

from expunge import ExpungeError, Run
from expunge.run import derive, progress_bar


def draws(run: Run, *purpose: object) -> list[float]:
    return torch.rand(4, generator=run.generator(*purpose)).tolist()


def test_each_purpose_has_its_own_draws_in_any_order():
    run = Run(seed=1)
    a, b = draws(run, "plan", 0), draws(run, "plan", 1)
    assert a != b
    assert draws(Run(seed=1), "plan", 1) == b
    assert draws(Run(seed=1), "plan", 0) == a
    assert draws(Run(seed=2), "plan", 0) != a
    assert draws(run, "plan", "0") != a


def test_derived_seeds_are_the_first_63_bits_of_a_digest():
    expected = int(hashlib.blake2b(b"(0, 'plan', 1)", digest_size=8).hexdigest(), 16) // 2
    assert derive(0, "plan", 1) == expected
    assert len({derive(s, k) for s in range(100) for k in range(10)}) == 1000
    assert all(0 <= derive(s) < 2**63 for s in range(100))


def test_isolated_computes_gradients_inside_inference_mode():
    with torch.inference_mode():
        with Run().isolated():
            x = torch.ones(2, requires_grad=True)
            x.square().sum().backward()
            assert x.grad.tolist() == [2, 2]
        assert torch.is_inference_mode_enabled()
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("fails", [False, True])
def test_isolated_leaves_random_state_and_grad_mode_alone(fails):
    state = torch.get_rng_state()
    try:
        with torch.no_grad(), Run().isolated():
            assert torch.is_grad_enabled()
            first = torch.rand(3)
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    with Run().isolated():
        assert torch.equal(torch.rand(3), first)  # inside, the seed alone decides
    with Run(seed=1).isolated():
        assert not torch.equal(torch.rand(3), first)


@pytest.mark.parametrize("fails", [False, True])
def test_isolated_leaves_numpy_and_random_alone_too(fails):
    def here() -> list[float]:
        return [random.random(), float(np.random.rand())]

    random.seed(3), np.random.seed(3)
    expected = here() + here()
    random.seed(3), np.random.seed(3)
    before, inside = here(), []
    for seed in (0, 0, 1):
        try:
            with Run(seed=seed).isolated():
                inside.append(here())
                random.seed(9), np.random.seed(9)
                if fails:
                    raise RuntimeError
        except RuntimeError:
            pass
    assert before + here() == expected
    assert inside[0] == inside[1]
    assert all(a != b for a, b in zip(inside[0], inside[2]))


@pytest.mark.parametrize("one", [np.int64(1), np.uint8(1), torch.tensor(1)])
def test_a_seed_is_its_number_whatever_holds_it(one):
    assert draws(Run(seed=one), "plan") == draws(Run(seed=1), "plan")
    assert type(Run(seed=one).seed) is int


@pytest.mark.parametrize("wrong", [1.0, 1.5, -1, True, "1", None, np.float64(1), torch.tensor(1.0), [1]])
def test_what_is_no_seed_is_refused(wrong):
    with pytest.raises(ExpungeError, match="seed must be a whole number, 0 or more; got"):
        Run(seed=wrong)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_precision_on_a_cpu(precision, dtype):
    with Run(precision=precision).autocast(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_the_device_is_that_of_the_model_unless_said():
    assert Run().device_of(torch.nn.Linear(1, 1)) == torch.device("cpu")
    assert Run().device_of(torch.nn.Linear(1, 1, device="meta")) == torch.device("meta")
    assert Run(device="cpu").device_of(torch.nn.Linear(1, 1, device="meta")) == torch.device("cpu")
    assert Run().device_of(torch.nn.ReLU()) == torch.device("cpu")


def test_one_process_has_the_whole_batch():
    index, factor = Run().share(torch.arange(5))
    assert index.tolist() == [0, 1, 2, 3, 4]
    assert factor == 1
    assert Run().mean(torch.tensor([1.0, 2.0, 6.0])) == 3


def test_progress_is_silent_where_there_is_no_terminal(capsys):
    with progress_bar("step", 3, show=True) as tick:
        for _ in range(3):
            tick("more")
    out = capsys.readouterr()
    assert out.out == out.err == ""


def test_progress_shows_on_a_terminal(capsys, monkeypatch):
    import io
    import sys

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("training", 3, show=True) as tick:
        for _ in range(3):
            tick("epoch 1")
    assert "training" in screen.getvalue()
    quiet = Terminal()
    monkeypatch.setattr(sys, "stderr", quiet)
    with progress_bar("training", 3, show=False) as tick:
        tick()
    assert quiet.getvalue() == ""
