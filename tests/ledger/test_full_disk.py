"""A disk that fills up in the middle of a training of one's own: it stops, or goes on, as the settings say."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import torch
import torch.nn.functional as F
from training import OPTIMIZERS, Story, batches, net, weights

import expunge as ex
from expunge import ExpungeError
from kit import bits

resource = pytest.importorskip("resource")

BEFORE = 9  # steps that are safe before the disk is full
SOME = 60_000  # room for the index, and for no more than this in a shard
NONE = 0  # room for nothing: what else there is on the disk has taken all


@contextmanager
def full(room: int) -> Iterator[None]:
    """No file may grow beyond so many bytes; the system says so as it says that the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Loop:
    """A user's training, one step at a time."""

    def __init__(self, rows: ex.Rows, ledger: ex.Ledger | None = None) -> None:
        self.rows, self.ledger = rows, ledger
        self.model = net()
        self.optimizer = OPTIMIZERS["momentum"](self.model.parameters())
        self.plan = batches(rows, 4)
        self.story = Story([weights(self.model)])
        if ledger is not None:
            ledger.watch(self.model, self.optimizer)

    def steps(self, count: int | None = None) -> None:
        """The next steps of the plan, or all that are left."""
        done = len(self.story.batches)
        for index in self.plan[done : None if count is None else done + count]:
            ids = self.rows.ids[index.numpy()]
            self.optimizer.zero_grad()
            if self.ledger is not None:
                self.ledger.uses(ids)
            F.cross_entropy(self.model(self.rows.x(index)), self.rows.y[index]).backward()
            self.story.batches.append(ids.tolist())
            self.optimizer.step()
            self.story.weights.append(weights(self.model))


def begun(rows: ex.Rows, folder, on_error: str, commit_every: float = 1.0) -> Loop:
    loop = Loop(rows, ex.Ledger(folder, keep=1.0, values="float64", on_error=on_error))
    loop.ledger._writer.commit_every = commit_every
    loop.steps(BEFORE)
    loop.ledger.mark()
    return loop


def intact(ledger: ex.Ledger, story: Story) -> None:
    """What it holds is what happened, step by step."""
    assert ledger.verify() == []
    for step in range(1, ledger.steps + 1):
        assert ledger.touched(story.batches[step - 1]).steps[0] <= step
        for name, moved in ledger.reader().total([step]).items():
            assert torch.equal(moved, story.update(step, name))


@pytest.fixture(scope="module")
def plain(train) -> Loop:
    loop = Loop(train)
    loop.steps()
    return loop


def following(loop: Loop, call: str, steps: int) -> None:
    """The call that is to tell of the full disk; the thread behind needs a moment, so which step it is is not said."""
    if call == "step":
        loop.steps()
        loop.ledger.mark()  # at the latest: small steps may wait in memory
    else:
        loop.steps(steps)
        getattr(loop.ledger, call)()


@pytest.mark.parametrize("room", [SOME, NONE], ids=["some room", "no room"])
@pytest.mark.parametrize("call", ["step", "mark", "close"])
def test_stop_raises_at_a_following_call_and_what_was_recorded_is_intact(train, tmp_path, call, room):
    loop = begun(train, tmp_path, "stop")
    with full(room), pytest.raises(ExpungeError, match=r"ends at step \d+: .*could not be written.*large") as caught:
        following(loop, call, 1 if room == NONE else 6)
    with suppress(ExpungeError):  # said already
        loop.ledger.close()
    again = ex.Ledger(tmp_path)
    last = again.steps
    assert f"ends at step {last}: Step {last + 1} could not" in str(caught.value)
    assert last == BEFORE if room == NONE else BEFORE <= last < BEFORE + 6
    if room or call != "close":  # else there was no moment with room to write even that down
        assert f"it ends at step {last}: " in again.ended
    assert len(loop.story.batches) > last
    intact(again, loop.story)
    again.rewind(BEFORE)  # with room again, from the checkpoint
    assert (again.steps, again.ended) == (BEFORE, "")


@pytest.mark.parametrize("room", [SOME, NONE], ids=["some room", "no room"])
def test_go_on_trains_to_the_same_weights_and_the_ledger_says_where_it_ends(train, tmp_path, plain, room):
    loop = begun(train, tmp_path, "go_on")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with full(room):
            loop.steps(8)
            assert loop.ledger.mark() == BEFORE + 8  # as for a checkpoint
            loop.steps()
        loop.ledger.close()
    assert len(loop.story.batches) == len(plain.story.batches)
    assert bits(loop.model) == bits(plain.model)
    (warning,) = said
    ledger = ex.Ledger(tmp_path)
    last = ledger.steps
    assert f"ends at step {last}: Step {last + 1} could not be written" in str(warning.message)
    assert str(warning.message).endswith("Training goes on without it.")
    assert BEFORE <= last < BEFORE + 8
    assert ledger.ended.startswith(f"it ends at step {last}: Step {last + 1} could not be written")
    intact(ledger, loop.story)
    request = ex.Request(train.take(torch.arange(200)), ids=loop.story.batches[0][:1])
    for opened in (ledger, loop.ledger):
        with pytest.raises(ExpungeError) as caught:
            ex.unlearn(loop.model, request, "amnesiac", ledger=opened)
        assert str(caught.value) == f"The ledger {tmp_path} does not hold the whole training; {ledger.ended}."


def test_go_on_also_closes_on_a_disk_that_stays_full(train, tmp_path, plain):
    """Then not even the end can be written down; that the model is not where the ledger ends is known all the same."""
    loop = begun(train, tmp_path, "go_on")
    with full(NONE), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        loop.steps()
        loop.ledger.close()
    (warning,) = said
    assert f"ends at step {BEFORE}: " in str(warning.message)
    assert bits(loop.model) == bits(plain.model)
    ledger = ex.Ledger(tmp_path)
    assert ledger.steps == loop.ledger.steps == BEFORE
    intact(ledger, loop.story)
    request = ex.Request(train.take(torch.arange(200)), ids=loop.story.batches[0][:1])
    with pytest.raises(ExpungeError, match="This model is neither the one that the training"):
        ex.unlearn(loop.model, request, "amnesiac", ledger=ledger)
    there = copy.deepcopy(loop.model)  # the marked checkpoint is where it ends
    there.load_state_dict(loop.story.weights[BEFORE])
    assert ledger.ends_at(there)


def test_the_room_that_commits_took_in_the_log_is_there_for_the_last_words(train, tmp_path):
    """A commit writes to the log of the index first; many of them fill the disk with what is but a second copy."""
    loop = begun(train, tmp_path, "stop", commit_every=0)
    assert (tmp_path / "index.sqlite-wal").stat().st_size > SOME
    with full(SOME), pytest.raises(ExpungeError, match="could not be written"):
        following(loop, "close", 6)
    ledger = ex.Ledger(tmp_path)
    assert ledger.steps > BEFORE
    assert f"it ends at step {ledger.steps}: " in ledger.ended
    intact(ledger, loop.story)


@pytest.mark.parametrize("call", ["mark", "close"])
@pytest.mark.parametrize("on_error", ["stop", "go_on"])
def test_a_disk_that_is_full_when_only_the_mark_is_left_to_write(train, tmp_path, call, on_error):
    loop = Loop(train, ex.Ledger(tmp_path, keep=1.0, values="float64", on_error=on_error))
    loop.steps(BEFORE)
    loop.ledger._writer.sync()  # all steps are safe
    refusal = r"could not be committed to: .* ends at step 9"
    expected = pytest.raises(ExpungeError, match=refusal) if on_error == "stop" else pytest.warns(match=refusal)
    with full(NONE), expected:
        getattr(loop.ledger, call)()
    if call == "mark":
        loop.ledger.close()  # there is room again
    ledger = ex.Ledger(tmp_path)
    assert ledger.steps == BEFORE
    intact(ledger, loop.story)
    assert ledger.ends_at(loop.model) == (call == "mark")
