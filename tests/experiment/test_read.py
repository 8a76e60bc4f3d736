"""From plain data to an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import expunge as ex
from expunge.audit.measure import ATTACKS
from expunge.conduct import conduct, judge_given
from expunge.errors import ExpungeError, Problems
from expunge.experiment import from_dict, read
from expunge.recipe import OwnRecipe
from shell import SMALL, write_yaml


def test_every_part_of_a_file_arrives(tmp_path: Path) -> None:
    experiment = read(write_yaml(tmp_path / "run.yaml", SMALL, out="here"))
    assert (len(experiment.train), len(experiment.unseen)) == (1438, 359)
    assert experiment.request.classes == (3,)
    assert list(experiment.methods) == ["finetune", "random_label"]
    assert experiment.methods["finetune"].to_config()["epochs"] == 1
    recipe: Any = experiment.recipe
    assert (recipe.epochs, recipe.lr, recipe.batch_size, recipe.model["name"]) == (3, 0.1, 64, "mlp")
    assert experiment.terms.seeds == (0, 1)
    assert experiment.terms.attacks == ("loss",)
    assert experiment.terms.relearning is None
    assert experiment.out == Path("here")
    blank: Any = experiment.blank()
    assert blank.body[1].weight.shape == (32, 64)


def test_defaults() -> None:
    experiment = from_dict({key: SMALL[key] for key in ("model", "data", "request", "recipe")})
    assert experiment.terms.seeds == (0, 1, 2)
    assert experiment.terms.attacks == tuple(ATTACKS)
    assert experiment.terms.relearning is not None
    assert not experiment.methods
    empty = {key: None for key in ("methods", "audit", "models", "out")}  # `audit:` with nothing after it
    assert from_dict({**SMALL, **empty}).terms.seeds == (0, 1, 2)


@pytest.mark.parametrize(("seeds", "read_as"), [(2, (0, 1)), ("0-3", (0, 1, 2, 3)), ([5, 1], (5, 1)), ("4", (4,))])
def test_ways_to_give_seeds(seeds: Any, read_as: tuple[int, ...]) -> None:
    assert from_dict({**SMALL, "audit": {"seeds": seeds}}).terms.seeds == read_as


def test_one_attack_and_one_method_need_no_list() -> None:
    experiment = from_dict({**SMALL, "audit": {"attacks": "margin"}, "methods": "finetune"})
    assert experiment.terms.attacks == ("margin",)
    assert list(experiment.methods) == ["finetune"]
    assert list(from_dict({**SMALL, "methods": {"name": "finetune"}}).methods) == ["finetune"]


def test_rows_have_names_of_their_own() -> None:
    methods = ["finetune", {"name": "finetune", "lr": 0.2}, {"name": "finetune", "row": "mine"}, "original", "retrain"]
    experiment = from_dict({**SMALL, "methods": methods})
    assert list(experiment.methods) == ["finetune", "finetune 2", "mine"]  # original and retrain are there anyway
    assert experiment.methods["finetune 2"].to_config()["lr"] == 0.2


def test_reading_trains_nothing_and_leaves_random_numbers_alone(cache: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    before = sorted(cache.rglob("*"))
    from_dict(SMALL)
    assert torch.equal(torch.rand(3), expected)
    assert sorted(cache.rglob("*")) == before


def test_ids_and_shares(tmp_path: Path) -> None:
    ids = from_dict(SMALL).train.ids[:5].tolist()
    (tmp_path / "ids.txt").write_text("\n".join(map(str, ids)))
    for request in ({"ids": ids}, {"ids": "ids.txt"}):
        experiment = from_dict({**SMALL, "request": request})
        assert experiment.train.ids[experiment.request.forget.numpy()].tolist() == ids
    share = from_dict({**SMALL, "request": {"fraction": 0.1, "seed": 4}}).request
    assert torch.equal(share.forget, ex.Request(share.rows, fraction=0.1, seed=4).forget)


def test_limit(tmp_path: Path) -> None:
    experiment = from_dict({**SMALL, "data": {"name": "digits", "limit": 200}})
    assert len(experiment.train) == 200
    assert len(experiment.unseen) == 359


def test_rows_that_the_given_original_forgot_earlier_count_as_gone(tmp_path: Path, train: ex.Rows) -> None:
    model = ex.models.build("mlp", channels=1, size=8, classes=10, hidden=[32])
    five = ex.Request(train, classes=[5])
    ex.io.save_weights(tmp_path / "w.safetensors", ex.unlearn(model, five, "finetune", epochs=1).model)
    weights = {"weights": str(tmp_path / "w.safetensors")}
    request = from_dict({**SMALL, "model": {**SMALL["model"], **weights}}).request
    assert torch.equal(request.gone, five.forget)
    assert not set(request.keep.tolist()) & set(five.forget.tolist())
    given = from_dict({**SMALL, "models": {"original": weights["weights"]}}).request
    assert torch.equal(given.gone, five.forget)


def test_a_change_of_ones_own_model_code_trains_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing trained from the old source may be served for the new one."""
    import importlib
    import sys

    monkeypatch.syspath_prepend(str(tmp_path))
    source = "from torch import nn\ndef make(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias={}))\n"
    config = {**SMALL, "model": {"build": "changing_net:make"}}
    described = []
    for bias in (True, False):
        (tmp_path / "changing_net.py").write_text(source.format(bias))
        sys.modules.pop("changing_net", None)
        importlib.invalidate_caches()
        recipe = from_dict(config).recipe
        assert recipe is not None
        described.append(recipe.describe()["model"])
    assert described[0] != described[1]
    assert all(text.startswith("changing_net:make#") for text in described)


def test_only_the_users_training_may_know_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "alone.py").write_text("def train(rows, ids, seed): ...\n")
    config = {**SMALL, "recipe": {"train": "alone:train"}}
    del config["model"]
    experiment = from_dict(config)
    assert isinstance(experiment.recipe, OwnRecipe)
    assert experiment.blank() is None
    with pytest.raises(ExpungeError, match="give the model it is for"):
        from_dict({**config, "models": {"mine": "a.safetensors"}})
    with pytest.raises(ExpungeError, match="'epochs'"):
        from_dict({**config, "recipe": {"train": "alone:train", "epochs": 3}})


def test_a_model_that_does_not_fit_the_data_is_told_with_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "small_net.py").write_text(
        "from torch import nn\ndef make(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))\n"
    )
    methods = [{"name": "finetune", "region": {"layers": "nothing*"}}]
    with pytest.raises(Problems) as raised:
        from_dict({**SMALL, "model": {"build": "small_net:make"}, "methods": methods})
    assert any("7 outputs" in problem and "10 classes" in problem for problem in raised.value.problems)
    assert any("methods.0 (finetune): " in problem for problem in raised.value.problems)
    assert len(raised.value.problems) == 2


def test_methods_are_tried_on_the_data_whatever_is_wrong_with_others() -> None:
    methods = [
        {"name": "finetune", "lr": -1},
        "original",
        {"name": "last_layers", "k": 9},
        {"name": "random_label", "row": "mine", "region": {"layers": ["nope"]}},
    ]
    with pytest.raises(Problems) as raised:
        from_dict({**SMALL, "methods": methods, "audit": {"seeds": "4-2"}})
    told = "\n".join(raised.value.problems)
    assert len(raised.value.problems) == 4
    for piece in ("methods.0: finetune: lr", "audit: Seeds", "methods.2 (last_layers): The model has 2 layers"):
        assert piece in told
    assert "methods.3 (mine): random_label: Unknown layer pattern 'nope'" in told
    with pytest.raises(Problems) as raised:  # nothing is said of methods on a model that is not known
        from_dict({**SMALL, "methods": methods, "model": {"name": "mpl"}})
    assert len(raised.value.problems) == 2


def test_import_makes_methods_of_ones_own_known(tmp_path, monkeypatch):
    (tmp_path / "own_methods_here.py").write_text(
        "from dataclasses import dataclass\n"
        "import expunge as ex\n"
        "@ex.register\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Nothing(ex.methods.Original):\n"
        "    name = 'nothing_at_all'\n"
    )
    file = tmp_path / "run.yaml"
    file.write_text(
        "data: {name: digits}\nrequest: {classes: [3]}\nmodel: {name: mlp}\nrecipe: {epochs: 1}\n"
        "import: own_methods_here\nmethods: [nothing_at_all]\n"
    )
    assert list(read(file).methods) == ["nothing_at_all"]


@pytest.mark.parametrize("wrong", ["no_such_module_anywhere", 3])
def test_what_cannot_be_imported_is_said(wrong):
    config = {"data": {"name": "digits"}, "request": {"classes": [3]}, "model": {"name": "mlp"}, "recipe": {}}
    with pytest.raises(ExpungeError, match="import: "):
        from_dict({**config, "import": wrong})


def test_a_device_that_is_not_there_is_refused():
    config = {"data": {"name": "digits"}, "request": {"classes": [3]}, "model": {"name": "mlp"}, "recipe": {}}
    assert from_dict({**config, "device": "cpu"}).device == "cpu"
    with pytest.raises(ExpungeError, match="device: nowhere cannot be used"):
        from_dict({**config, "device": "nowhere"})


def test_rows_to_choose_by_are_not_those_to_judge_by() -> None:
    whole = from_dict(SMALL)
    assert whole.held is None
    experiment = from_dict({**SMALL, "data": {"name": "digits", "validation": 0.3}})
    held = experiment.held
    assert held is not None
    assert len(held) == 108
    assert not set(held.ids.tolist()) & set(experiment.unseen.ids.tolist())
    assert {*held.ids.tolist(), *experiment.unseen.ids.tolist()} == set(whole.unseen.ids.tolist())
    assert set(held.y.tolist()) == set(range(10))
    assert held.scale == experiment.train.scale


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "validation is a share"), (1.0, "a share"), (True, "a share"), ("much", "a share"), (1e-4, "no row on one")],
)
def test_a_share_to_choose_by_that_cannot_be(share: Any, said: str) -> None:
    with pytest.raises(ExpungeError, match=said):
        from_dict({**SMALL, "data": {"name": "digits", "validation": share}})


def test_methods_that_choose_get_them(tmp_path: Path) -> None:
    search = {"name": "search", "of": {"name": "finetune", "epochs": 1}, "tries": 2}
    plain = {**SMALL, "request": {"fraction": 0.1}, "methods": [search], "audit": {"seeds": 1, "relearn": False}}
    with pytest.raises(ExpungeError, match=r"search among samples needs rows [^}]*validation: 0\.3\}"):
        from_dict(plain)
    held = {**plain, "data": {"name": "digits", "validation": 0.3}, "out": str(tmp_path / "run")}
    report = conduct(from_dict(held))
    rows = {row["method"] for row in report.rows}
    assert "finetune (searched)" in rows
    (entry,) = [m for m in report.results["models"] if m["method"] == "finetune (searched)"]
    assert len(entry["facts"]["search"]["tried"]) <= 2


def test_a_row_that_is_tuned_on_retraining_says_so_whatever_its_name(tmp_path: Path) -> None:
    search = {"name": "search", "of": {"name": "finetune", "epochs": 1}, "tries": 1, "select": "oracle_gap"}
    chain = {"name": "chain", "row": "two", "steps": [{"name": "gradient_ascent", "epochs": 1}, search]}
    methods = [{**search, "row": "best"}, chain, {"name": "finetune", "epochs": 1}]
    config = {**SMALL, "methods": methods, "audit": {"seeds": 1, "relearn": False}, "out": str(tmp_path / "run")}
    report = conduct(from_dict(config))
    assert set(report.verdicts) == {"original", "best", "two", "finetune"}  # the keys are the names that were given
    assert {row["method"]: row.get("note") for row in report.rows} == {
        **dict.fromkeys(("original", "retrain", "retrain_again", "finetune")),
        **dict.fromkeys(("best", "two"), "tuned on retraining"),
    }
    text, page = str(report), (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    table = (tmp_path / "run" / "results.csv").read_text(encoding="utf-8").splitlines()
    for row in ("best", "two"):
        assert f"{row} (tuned on retraining): " in text
        assert f"\n{row} (tuned on retraining) " in text
        assert page.count(f"{row} (tuned on retraining)") >= 4
        assert all(line.endswith(",tuned on retraining") for line in table if line.startswith(f"{row},"))
    assert "finetune (tuned" not in text + page

    made = ex.Recipe(**SMALL["recipe"], model=SMALL["model"])(from_dict(config).train)
    result = ex.unlearn(made, from_dict(config).request, "finetune", epochs=1)
    kept = tmp_path / "weights.safetensors"  # as `expunge unlearn` leaves it
    ex.io.save_weights(kept, result.model, {"method": search, "seed": 0})
    given = {**config, "methods": [], "models": {"mine": str(kept)}, "out": str(tmp_path / "given")}
    assert "mine (tuned on retraining): " in str(judge_given(from_dict(given)))


def test_a_request_that_a_ledger_would_refuse_is_told_before_the_training(tmp_path: Path) -> None:
    """Which rows meet in a batch follows from the seed; a tenth of the rows is in every batch of 64."""
    recipe = {**SMALL["recipe"], "ledger": {"keep": 1.0}}
    methods = ["finetune", "partial_amnesiac", {"name": "amnesiac", "allow_full": True}]
    with pytest.raises(Problems) as raised:
        from_dict({**SMALL, "recipe": recipe, "methods": methods})
    (told,) = raised.value.problems
    assert told.startswith(
        "methods.1 (partial_amnesiac): Every step of the training (seed 0) shows some of the 146 rows"
    )
    for change in ({"recipe": {**recipe, "together": "class"}}, {"request": {"ids": [3, 5]}}):
        experiment = from_dict({**SMALL, "recipe": recipe, "methods": methods, **change, "out": str(tmp_path / "run")})
        assert list(experiment.methods) == [*methods[:2], "amnesiac"]
    conduct(experiment)  # and then the ledger serves it


@pytest.mark.parametrize(
    "method",
    [
        {"name": "chain", "steps": ["amnesiac", {"name": "finetune", "epochs": 1}]},
        {"name": "search", "of": "amnesiac"},
        {"name": "search", "of": {"name": "chain", "steps": ["amnesiac", "finetune"]}, "dial": "0.scale"},
    ],
)
def test_a_ledger_that_would_refuse_a_method_within_another_is_told_before_the_training(method: dict[str, Any]) -> None:
    recipe = {**SMALL["recipe"], "ledger": {"keep": 1.0}}
    with pytest.raises(Problems, match=r"Every step of the training \(seed 0\) shows some of the 146 rows"):
        from_dict({**SMALL, "recipe": recipe, "methods": [method]})
    recipe["ledger"] = {"keep": 1.0, "record": "sample", "sensitive": [3, 5]}
    with pytest.raises(Problems, match="sensitive"):
        from_dict({**SMALL, "recipe": recipe, "methods": [method], "request": {"ids": [7]}})


def test_unseen_rows_that_do_not_serve_a_method_are_told_before_the_training(tmp_path: Path) -> None:
    """Of class 3 nobody holds a row that the models have not seen."""
    train, test = ex.data.load("digits", limit=300)
    test = test.take(test.y != 3)
    np.savez(tmp_path / "d.npz", x_train=train.source, y_train=train.y, x_test=test.source, y_test=test.y)
    config = {**SMALL, "data": {"path": str(tmp_path / "d.npz"), "validation": 0.3}}
    with pytest.raises(Problems, match=r"methods\.0 \(scrub\): unseen holds no row of 3, of which rows are to be"):
        from_dict({**config, "methods": [{"name": "scrub", "rewind": True}]})


def test_rows_that_cannot_be_grouped_are_told_with_the_rest() -> None:
    recipe = {**SMALL["recipe"], "ledger": {"keep": 1.0}, "together": [999_999]}
    with pytest.raises(Problems) as raised:
        from_dict({**SMALL, "recipe": recipe, "methods": ["amnesiac", {"name": "last_layers", "k": 9}]})
    told = raised.value.problems
    assert [problem.partition(":")[0] for problem in told] == ["recipe", "methods.1 (last_layers)"]
    assert "999999" in told[0]
