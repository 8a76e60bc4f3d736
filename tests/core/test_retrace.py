"""Retrace: every point of its curves against weights that a plain loop wrote down, and maps as pictures."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import expunge as ex
from expunge.artifact.ledger import Ledger
from expunge.data import Rows
from expunge.retrace import MAPS, POINTS, SHARES, Retrace
from expunge.run import Run, derive
from expunge.unlearning import default_task
from kit import accuracy, bits
from ledger.training import trained


def story_of(folder: Path, train: Rows, norm: bool = False, **settings: object) -> SimpleNamespace:
    """A small training whose every step is known, on the rows that its ledger knows."""
    rows = train.take(torch.arange(200))
    model, ledger, story = trained(folder, rows, epochs=3, norm=norm, **settings)
    return SimpleNamespace(model=model.eval(), ledger=ledger, story=story, rows=rows)


@pytest.fixture(scope="module")
def plain(train: Rows, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """With double values, so that a replayed weight has the very bits that it had."""
    return story_of(tmp_path_factory.mktemp("plain"), train, keep=1.0, values="float64")


def retrace(made: SimpleNamespace, request: ex.Request, unseen: Rows, seed: int = 0) -> Retrace:
    return Retrace(made.model, made.ledger, request, unseen, default_task(request), Run(seed=seed))


def with_weights(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    other = copy.deepcopy(model)
    other.load_state_dict({**other.state_dict(), **{n: w.float() for n, w in weights.items()}})
    return other


def undone(made: SimpleNamespace, steps: list[int], keep: float = 1.0) -> dict[str, Tensor]:
    """The last weights minus what these steps did, of each layer and step only the largest entries."""
    weights = {n: w.double() for n, w in made.story.weights[-1].items()}
    for step in steps:
        for name, w in weights.items():
            flat = made.story.update(step, name).numpy().ravel().copy()
            flat[np.argsort(-np.abs(flat), kind="stable")[max(1, round(keep * flat.size)) :]] = 0
            w -= torch.from_numpy(flat).view(w.shape)
    return weights


def right(model: nn.Module, request: ex.Request, unseen: Rows) -> dict[str, float]:
    """Percent on unseen threes and on the other unseen rows, or on the request's rows and on all unseen ones."""
    threes = unseen.y == 3
    if request.classes:
        parts = {"targeted": (unseen, threes), "retained": (unseen, ~threes)}
    else:
        parts = {"targeted": (request.rows, request.state == 1), "retained": (unseen, threes | ~threes)}
    found = {part: accuracy(model, rows, where.nonzero().flatten()) for part, (rows, where) in parts.items()}
    return {part: round(100 * share, 2) for part, share in found.items()}


def close(found: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    assert [set(point) for point in found] == [set(point) for point in expected]
    for point, wanted in zip(found, expected):
        assert point == pytest.approx(wanted, abs=1e-9), (point, wanted)
    assert len({point["retained"] for point in found}) > 1  # else it could not have been wrong


def requests(rows: Rows) -> dict[str, ex.Request]:
    return {"class": ex.Request(rows, classes=[3]), "samples": ex.Request(rows, ids=rows.ids[5:9].tolist())}


@pytest.mark.parametrize("scope", ["class", "samples"])
def test_the_training_is_replayed_to_the_weights_it_had(plain, test, scope):
    request = requests(plain.rows)[scope]
    found = retrace(plain, request, test).training()
    steps = [point["step"] for point in found]
    assert steps[0] == 0
    assert steps[-1] == plain.ledger.steps == len(plain.story.batches)
    assert len(steps) == POINTS + 1
    assert steps == sorted(set(steps))
    models = [with_weights(plain.model, plain.story.weights[step]) for step in steps]
    close(found, [{"step": s, **right(m, request, test)} for s, m in zip(steps, models)])


@pytest.mark.parametrize("scope", ["class", "samples"])
@pytest.mark.parametrize("keep", [None, 0.1])
def test_the_subtraction_goes_through_the_touched_steps_in_order(plain, test, scope, keep):
    request = requests(plain.rows)[scope]
    touched = plain.story.touched(request.rows.ids[request.forget.numpy()].tolist())
    found = retrace(plain, request, test).unlearning(plain.ledger.touched(request).steps, keep)
    taken = [round(point["share"] * len(touched)) for point in found]
    assert taken[0] == 0
    assert taken[-1] == len(touched)
    assert taken == sorted(set(taken))
    models = [with_weights(plain.model, undone(plain, touched[:k], keep or 1.0)) for k in taken]
    close(found, [{"share": k / len(touched), **right(m, request, test)} for k, m in zip(taken, models)])


@pytest.mark.parametrize("keep", [None, 0.1])
def test_random_shares_of_all_steps(plain, test, keep):
    """Which steps is the one thing that the reference shares: the draw of the run's seed."""
    request, total = requests(plain.rows)["class"], plain.ledger.steps
    found = retrace(plain, request, test, seed=4).affected(keep)
    order = np.random.default_rng(derive(4, "affected")).permutation(np.arange(1, total + 1)).tolist()
    taken = [0, *(max(1, round(share * total)) for share in SHARES)]
    models = [with_weights(plain.model, undone(plain, order[:k], keep or 1.0)) for k in taken]
    close(found, [{"share": k / total, **right(m, request, test)} for k, m in zip(taken, models)])
    assert retrace(plain, request, test, seed=4).affected(keep) == found
    assert retrace(plain, request, test, seed=5).affected(keep) != found


def test_batch_norm_is_estimated_anew_at_every_point_on_rows_that_stay(train, test, tmp_path):
    """With fewer rows than two batches hold, the statistics are those of all rows that stay, which NumPy finds."""
    made = story_of(tmp_path, train, norm=True, keep=1.0, values="float64")
    request = requests(made.rows)["class"]
    found = retrace(made, request, test).training()[1:]
    expected = []
    for point in found:
        model = with_weights(made.model, made.story.weights[int(point["step"])])
        with torch.no_grad():
            values = model[0](made.rows.x(request.keep)).double().transpose(0, 1).flatten(1).numpy()
        model[1].running_mean.copy_(torch.from_numpy(values.mean(1)))
        model[1].running_var.copy_(torch.from_numpy(values.var(1, ddof=1)))
        expected.append({"step": point["step"], **right(model, request, test)})
    close(found, expected)


def test_the_whole_tale(plain, test):
    request = requests(plain.rows)["class"]
    told = retrace(plain, request, test).tell({"all": None, "some": 0.1}, {"original": plain.model})
    touched = plain.story.touched(request.rows.ids[request.forget.numpy()].tolist())
    assert told["touched"] == len(touched)
    assert told["steps"] == len(plain.story.batches)
    assert told["bytes"] == plain.ledger.size
    assert told["keep"] == 1.0
    assert told["record"] == "update"
    assert told["rows"] == "unseen rows of the targeted classes"
    for part in ("unlearning", "affected"):
        assert list(told[part]) == ["all", "some"]
    samples = retrace(plain, requests(plain.rows)["samples"], test).tell({"all": None}, {"original": plain.model})
    assert samples["rows"] == "the targeted rows themselves"
    assert samples["maps"] == []


def test_a_pruned_ledger_replays_no_training_and_still_tells_the_rest(train, test, tmp_path):
    made = story_of(tmp_path, train, keep=0.1)
    request = requests(made.rows)["class"]
    told = retrace(made, request, test).tell({"some": 0.1}, {})
    assert told["training"] == []
    assert told["keep"] == 0.1
    touched = made.story.touched(request.rows.ids[request.forget.numpy()].tolist())
    model = with_weights(made.model, undone(made, touched, 0.1))
    assert told["unlearning"]["some"][-1] == {"share": 1.0, **right(model, request, test)}


def test_a_ledger_of_gradients_has_no_curves(train, test, tmp_path):
    made = story_of(tmp_path, train, keep=1.0, record="gradient")
    told = retrace(made, requests(made.rows)["class"], test).tell({"all": None}, {})
    assert (told["training"], told["unlearning"], told["affected"]) == ([], {}, {})


def test_a_lost_beginning_leaves_the_training_out(train, test, tmp_path):
    made = story_of(tmp_path, train, keep=1.0)
    (tmp_path / "start.safetensors").unlink()
    assert retrace(made, requests(made.rows)["class"], test).training() == []


# -- maps ------------------------------------------------------------------------------------------------------


def pixels(uri: str) -> np.ndarray:
    head, data = uri.split(",", 1)
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def of(model: nn.Module, request: ex.Request, unseen: Rows) -> Retrace:
    """With the ledger that the recipe recorded."""
    ledger = Ledger(model._expunge_ledger)
    return Retrace(model, ledger, request, unseen, default_task(request), Run())


def test_maps_of_a_class_are_pictures_under_each_model(net, three, test):
    blind = copy.deepcopy(net)
    with torch.no_grad():
        for p in blind.head.parameters():
            p.zero_()  # no score depends on the image
    models = {"original": net, "copy": copy.deepcopy(net), "blind": blind}
    found = of(net, three, test).maps(models)
    assert len(found) == MAPS
    images = test.x((test.y == 3).nonzero().flatten())
    shown = [pixels(one["image"]) for one in found]
    for picture in shown:  # each is an unseen three, from its darkest to its brightest
        grey = [255 * (x - x.min()) / (x.max() - x.min()) for x in images[:, 0].numpy()]
        assert min(np.abs(picture - g).max() for g in grey) <= 1
    for one in found:
        assert list(one["maps"]) == list(models)
        original, same, nothing = (pixels(uri) for uri in one["maps"].values())
        assert original.shape == (8, 8)
        assert original.max() == 255
        assert np.array_equal(original, same)
        assert not nothing.any()


def test_there_are_no_maps_for_samples_or_of_a_model_without_places(net, mlp, three, train, test):
    samples = ex.Request(train, ids=train.ids[:5].tolist())
    assert of(net, samples, test).maps({"original": net}) == []
    assert of(mlp, three, test).maps({"original": mlp}) == []


def test_nothing_is_changed_by_looking(net, train, test):
    request = ex.Request(train.take(torch.arange(300)), classes=[3])
    changed = copy.deepcopy(net)
    with torch.no_grad():
        next(changed.parameters()).mul_(2)
    next(net.children()).train()  # which a look must not put into eval mode
    models = (net, changed)
    folder = Path(net._expunge_ledger)

    def state() -> object:
        files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.is_file()}
        modes = [[m.training for m in model.modules()] for model in models]
        flags = [[(p.requires_grad, p.grad) for p in model.parameters()] for model in models]
        hooks = [[len(m._forward_hooks) for m in model.modules()] for model in models]
        return files, modes, flags, hooks, [bits(m) for m in models], torch.get_rng_state().tolist()

    before = state()
    told = of(net, request, test).tell({"amnesiac": None}, {"original": net, "changed": changed})
    assert len(told["maps"]) == MAPS
    assert len(told["training"]) == POINTS + 1
    assert state() == before


def test_unseen_data_without_the_class(plain, test):
    """Nothing to look at for the class: the curves of what stays are there all the same."""
    request, without = requests(plain.rows)["class"], test.take(test.y != 3)
    told = retrace(plain, request, without).tell({"all": None}, {"original": plain.model})
    assert told["maps"] == []
    first = {"share": 0.0, "retained": round(100 * accuracy(plain.model, without), 2)}  # and no 0 % of no rows
    assert told["unlearning"]["all"][0] == told["affected"]["all"][0] == first
