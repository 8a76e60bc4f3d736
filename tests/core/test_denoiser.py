"""What rows a denoiser is shown: inputs outside [-1, 1] are refused, inputs in [0, 1] are told of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import expunge as ex
from expunge import ExpungeError, Rows
from expunge.data.rows import Scale

pytest.importorskip("diffusers")

Y = np.arange(36) % 3
STORED = np.random.default_rng(0).integers(0, 256, (36, 1, 8, 8), dtype=np.uint8)
STORED[:, 0, 0, :2] = (0, 255)  # every image reaches both ends
FLOAT = STORED.astype(np.float32)
DESCENT = {"epochs": 1, "lr": 1e-3, "batch_size": 12, "optimizer": "adam", "weight_decay": 0.0}


class Net(nn.Module):
    """A denoiser that anything can be shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.linspace(-0.5, 0.5, 4))

    def forward(self, x, t, class_labels):
        return 0.3 * x + self.shift[class_labels].view(-1, 1, 1, 1)


class Items(Dataset):
    """Images as many datasets give them, in [0, 1], read one by one."""

    def __init__(self) -> None:
        self.read: set[int] = set()

    def __len__(self) -> int:
        return len(FLOAT)

    def __getitem__(self, i: int):
        self.read.add(int(i))
        return torch.from_numpy(FLOAT[i] / 255), int(Y[i])


@pytest.mark.parametrize(
    ("rows", "scale", "told"),
    [
        (Rows(FLOAT, Y), None, "from 0 to 255. Give uint8 images, or bring floats there: x / 127.5 - 1"),
        (Rows(FLOAT / 127.5 - 1.1, Y), None, "from -1.1 to 0.9"),
        (Rows(FLOAT / 127.5 - 0.9, Y), None, "from -0.9 to 1.1"),
        (Rows(STORED, Y), None, "The task was not told how data is scaled: give it scale=rows.scale"),
        (Rows(FLOAT, Y), Scale((0.0,), (1.0,)), "from -1 to 509. The task's scale is not that of data"),
    ],
)
def test_inputs_that_do_not_lie_where_denoisers_are_trained_are_refused(rows, scale, told):
    (problem,) = ex.Diffusion(3, scale=scale).problems(Net(), rows)
    assert "A denoiser is shown inputs in [-1, 1]" in problem
    assert told in problem


@pytest.mark.parametrize(
    ("rows", "scale"),
    [
        (Rows(STORED, Y), Rows(STORED, Y).scale),
        (Rows(FLOAT / 127.5 - 1, Y), None),
        (Rows(FLOAT / 255, Y), None),
        (Rows(FLOAT / 255, Y), Scale((0.0,), (1.0,))),
        (Rows(1.04 * (FLOAT / 127.5 - 1), Y), None),  # resized by splines, say
    ],
)
def test_inputs_that_lie_there_are_not(rows, scale):
    assert ex.Diffusion(3, scale=scale).problems(Net(), rows) == []


def test_one_image_far_down_the_rows_is_found_and_a_dataset_is_hardly_read():
    late = FLOAT / 127.5 - 1
    late[-1] = 200
    assert "to 200" in ex.Diffusion(3).problems(Net(), Rows(late, Y))[0]
    items = Items()
    assert ex.Diffusion(3).problems(Net(), Rows(items, Y)) == []
    assert items.read <= {0, 1}


def test_a_row_that_cannot_be_read_is_a_problem_and_no_traceback():
    class Torn(Items):
        def __getitem__(self, i: int):
            if i == 1:
                raise OSError("torn page")
            return super().__getitem__(i)

    (problem,) = ex.Diffusion(3).problems(Net(), Rows(Torn(), Y))
    assert "torn page" in problem


def test_unlearning_and_auditing_refuse_before_compute():
    request = ex.Request((FLOAT, Y), classes=[0])
    net, task = Net(), ex.Diffusion(3)
    with pytest.raises(ExpungeError, match="lie from 0 to 255"):
        ex.unlearn(net, request, "finetune", task=task, **DESCENT)
    reader = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(ExpungeError, match=r"original: .*lie from 0 to 255"):
        ex.audit(
            {"original": net}, request, unseen=(FLOAT[:9] + 0.5, Y[:9]), task=task, generation={"classifier": reader}
        )


def test_a_task_that_names_no_scale_takes_that_of_the_rows():
    """What is moved is what it is with the scale given, bit by bit."""
    request = ex.Request((STORED, Y), classes=[0])
    told = ex.Diffusion(3, scale=request.rows.scale)
    one, other = (ex.unlearn(Net(), request, "finetune", task=task, **DESCENT) for task in (ex.Diffusion(3), told))
    assert one.model.shift.equal(other.model.shift)
    assert not one.model.shift.equal(Net().shift)


@pytest.mark.parametrize("x", [FLOAT / 255, Items()], ids=["array", "dataset"])
def test_inputs_between_0_and_1_are_taken_as_they_are_and_told_of(x):
    request = ex.Request(Rows(x, Y, name="greys"), classes=[0])
    told = "The inputs of greys lie in [0, 1] and are taken as they are"
    result = ex.unlearn(Net(), request, "finetune", task=ex.Diffusion(3), **DESCENT)
    assert sum(told in note for note in result.log.notes) == 1
    reader = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    how = {"samples": 2, "steps": 2, "classifier": reader}
    unseen = (np.minimum(FLOAT[:9] + 0.5, 255) / 255, Y[:9])
    report = ex.audit({"original": Net()}, request, unseen=unseen, task=ex.Diffusion(3), seeds=1, generation=how)
    assert sum(told in note for note in report.results["notes"]) == 1


def test_inputs_in_their_place_are_not_told_of():
    assert ex.Diffusion(3).notes(Rows(FLOAT / 127.5 - 1, Y)) == []
    assert ex.Diffusion(3, scale=Scale((0.0,), (1.0,))).notes(Rows(FLOAT / 255, Y)) == []
    request = ex.Request((STORED, Y), classes=[0])
    assert ex.unlearn(Net(), request, "finetune", task=ex.Diffusion(3), **DESCENT).log.notes == []


def test_more_classes_than_the_task_has_are_refused():
    (problem,) = ex.Diffusion(2).problems(Net(), Rows(FLOAT / 127.5 - 1, Y, name="greys"))
    assert problem == "greys has 3 classes, and the task 2."
