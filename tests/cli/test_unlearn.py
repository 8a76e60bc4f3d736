"""`expunge unlearn`: one model, one request, one method."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import expunge as ex
from expunge.experiment import load_data
from expunge.io import model_digest
from shell import SMALL, Shell, read_json


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a trained model, as another program would have saved them."""
    model = ex.Recipe(model=SMALL["model"], **SMALL["recipe"])(load_data({"name": "digits"})[0])
    path = tmp_path_factory.mktemp("trained") / "mlp.safetensors"
    save_file(model.state_dict(), path)
    return path


@pytest.fixture
def words(trained: Path, tmp_path: Path) -> list[object]:
    model = ["--model", "mlp", "--model-set", "hidden=[32]", "--weights", trained]
    return ["unlearn", *model, "--data", "digits", "--method", "random_label", "--out", tmp_path / "out"]


def load(path: Path) -> torch.nn.Module:
    model = ex.models.build("mlp", channels=1, size=8, classes=10, hidden=[32]).eval()
    model.load_state_dict(load_file(path))
    return model


def test_weights_and_a_record_of_what_was_done(
    expunge: Shell, words: list[object], trained: Path, tmp_path: Path, train: ex.Rows
) -> None:
    outcome = expunge(*words, "--classes", "3", "--set", "epochs=1", "--set", "lr=5e-2", "--seed", "7")
    assert outcome.code == 0, outcome.err
    assert "Forget class 3: 146 of 1,438 rows" in outcome.out
    assert "audit" in outcome.out
    record = read_json(tmp_path / "out" / "manifest.json")
    assert record["ids"] == train.ids[(train.y == 3).numpy()].tolist()
    assert record["data"]["hash"] == train.hash
    assert (record["method"]["name"], record["method"]["epochs"], record["method"]["lr"]) == ("random_label", 1, 0.05)
    assert record["seed"] == 7
    assert "--seed 7" in record["command"]
    model = load(tmp_path / "out" / "weights.safetensors")
    assert record["models"] == {"before": model_digest(load(trained)), "after": model_digest(model)}
    threes = (train.y == 3).nonzero().flatten()
    with torch.no_grad():
        assert (model(train.x(threes)).argmax(1) == 3).double().mean() < 0.2
        assert (load(trained)(train.x(threes)).argmax(1) == 3).double().mean() > 0.8

    same = ex.unlearn(load(trained), ex.Request(train, classes=[3]), "random_label", epochs=1, lr=0.05, seed=7)
    assert model_digest(same.model) == record["models"]["after"]


def test_what_an_earlier_request_removed_is_gone_for_the_next(
    expunge: Shell, words: list[object], tmp_path: Path
) -> None:
    assert expunge(*words, "--classes", "3", "--set", "epochs=1").code == 0
    again: list[object] = [*words, "--weights", tmp_path / "out" / "weights.safetensors", "--out", tmp_path / "second"]
    outcome = expunge(*again, "--classes", "5", "--set", "epochs=1")
    assert outcome.code == 0, outcome.err
    assert "(146 more are already gone)" in outcome.out
    outcome = expunge(*again, "--classes", "3", "--force")
    assert outcome.code == 2
    assert "nothing would be forgotten" in outcome.err
    third: list[object] = [*words, "--weights", tmp_path / "second" / "weights.safetensors", "--out", tmp_path / "3rd"]
    outcome = expunge(*third, "--classes", "1,7", "--set", "epochs=1")
    first, second, last = (read_json(tmp_path / n / "manifest.json")["ids"] for n in ("out", "second", "3rd"))
    assert f"({len(first) + len(second)} more are already gone)" in outcome.out
    assert not set(last) & {*first, *second}


def test_ids_from_a_csv_file(expunge: Shell, words: list[object], tmp_path: Path, train: ex.Rows) -> None:
    ids = train.ids[:20].tolist()
    (tmp_path / "ids.csv").write_text("name,id\n" + "".join(f"someone,{i}\n" for i in ids))
    outcome = expunge(*words, "--ids", "ids.csv", "--set", "epochs=1")
    assert outcome.code == 0, outcome.err
    assert "20 of 1,438" in outcome.out
    assert sorted(read_json(tmp_path / "out" / "manifest.json")["ids"]) == sorted(ids)


def test_several_classes_and_a_share(expunge: Shell, words: list[object], tmp_path: Path, train: ex.Rows) -> None:
    expected = sorted(train.ids[((train.y == 3) | (train.y == 5)).numpy()].tolist())
    outcome = expunge(*words, "--classes", "3,5", "--set", "epochs=0")
    assert "classes 3, 5" in outcome.out
    for several in (["--classes", "3", "--classes", "5"], ["--classes", "3, 5"], ["--classes", "[3, 5]"]):
        outcome = expunge(*words, *several, "--set", "epochs=0", "--force")
        assert "classes 3, 5" in outcome.out, outcome.err
        assert sorted(read_json(tmp_path / "out" / "manifest.json")["ids"]) == expected
    outcome = expunge(*words, "--fraction", "0.1", "--seed", "4", "--set", "epochs=0", "--force")
    assert "144 of 1,438" in outcome.out
    first = read_json(tmp_path / "out" / "manifest.json")["ids"]
    expunge(*words, "--fraction", "0.1", "--seed", "5", "--set", "epochs=0", "--force")
    assert read_json(tmp_path / "out" / "manifest.json")["ids"] != first


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--classes", "12"], "labels run 0..9"),
        (["--classes", "cat"], "Unknown class 'cat'"),
        (["--classes", "3", "--fraction", "0.1"], "exactly one way"),
        ([], "exactly one way"),
        (["--classes", "3", "--classes", "12"], "labels run 0..9"),
        (["--ids", "a.csv", "--ids", "b.csv"], "--ids takes one file; got a.csv, b.csv"),
        (["--ids", "absent.csv"], "absent.csv cannot be read"),
        (["--classes", "3", "--method", "randomlabel"], "Did you mean 'random_label'"),
        (["--classes", "3", "--set", "epohcs=1"], "Did you mean 'epochs'"),
        (["--classes", "3", "--set", "seed=1"], "has no field 'seed'"),
        (["--classes", "3", "--set", "recipe=1"], "has no field 'recipe'"),
        (["--classes", "3", "--set", "epochs"], "field=value"),
        (["--classes", "3", "--set", "epochs=[1"], "not valid YAML"),
        (["--classes", "3", "--set", "lr=-1"], "above 0"),
        (["--classes", "3", "--method", "retrain"], "on the command line: expunge run, with recipe:"),
        (["--classes", "3", "--model-set", "hiden=[32]"], "Did you mean 'hidden'"),
        (["--classes", "3", "--model-set", "hidden=[16]"], "has shape (32, 64), the model's has (16, 64)"),
        (["--classes", "3", "--model", "mpl"], "Did you mean 'mlp'"),
        (["--classes", "3", "--model", "absent:make"], "Unknown setting 'hidden'"),
        (["--classes", "3", "--data", "digist"], "Did you mean 'digits'"),
        (["--classes", "3", "--weights", "absent.safetensors"], "There are no weights at absent.safetensors"),
    ],
)
def test_what_cannot_work_is_said_and_nothing_is_written(
    expunge: Shell, words: list[object], tmp_path: Path, more: list[str], told: str
) -> None:
    assert told in expunge.refuses(*words, *more)
    assert not list(tmp_path.rglob("out/*"))


def test_everything_that_is_wrong_is_said_at_once(expunge: Shell, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    words = ["--model", "mlpp", "--data", "digitz", "--method", "finetunee", "--weights", "absent.pt", "--seed", "-1"]
    said = expunge.refuses("unlearn", *words, "--out", tmp_path / "full")
    pieces = ["'mlp'", "'digits'", "'finetune'", "no weights at absent.pt", "got -1", "exactly one way", "not empty"]
    assert all(piece in said for piece in pieces)
    assert len(said.strip().splitlines()) == len(pieces)


def test_a_folder_with_something_in_it_is_refused(expunge: Shell, words: list[object], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "weights.safetensors").write_text("precious")
    assert "is not empty" in expunge.refuses(*words, "--classes", "3")
    assert (tmp_path / "out" / "weights.safetensors").read_text() == "precious"


def test_own_model_and_data_from_the_current_folder(expunge: Shell, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "import expunge as ex\n"
        "def net(): return ex.models.build('mlp', channels=1, size=8, classes=10, hidden=[32])\n"
        "def load(): return ex.data.load('digits')\n"
    )
    words = ["--model", "shop:net", "--weights", trained, "--data", "shop:load", "--method", "finetune"]
    outcome = expunge("unlearn", *words, "--classes", "3", "--set", "epochs=0", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert model_digest(load(tmp_path / "out" / "weights.safetensors")) == model_digest(load(trained))
