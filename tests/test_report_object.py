"""expunge.audit in Python, and the report it returns."""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import expunge as ex
from expunge.dossier import make_terms
from expunge.errors import ExpungeError

LIGHT: dict[str, Any] = {"seeds": 2, "attacks": ["loss"], "relearn": False}
COLUMNS = ["method", "seed", "ua", "ra", "ta", "tfa", "mia", "avg_gap", "tow", "seconds", "verdict"]


@pytest.fixture(autouse=True)
def _own_cache(shared_cache: None) -> None:
    """The same retrainings serve all tests here."""


@pytest.fixture(scope="module")
def recipe() -> ex.Recipe:
    return ex.Recipe(model={"name": "mlp", "hidden": [32]}, epochs=3, lr=0.1, batch_size=64)


@pytest.fixture(scope="module")
def originals(recipe: ex.Recipe, train: ex.Rows) -> list[nn.Module]:
    return [recipe(train, seed=seed) for seed in (0, 1)]


def keys(report: ex.Report) -> set[tuple[str, int]]:
    return {(row["method"], row["seed"]) for row in report.rows}


def both(*names: str) -> set[tuple[str, int]]:
    return {(name, seed) for name in names for seed in (0, 1)}


def broken(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    return model


ALWAYS = ("original", "retrain", "retrain_again")


def test_results_models_and_lists_of_them(
    originals: list[nn.Module], train: ex.Rows, test: ex.Rows, recipe: ex.Recipe
) -> None:
    request = ex.Request(train, classes=[3])
    results = [ex.unlearn(m, request, "random_label", epochs=1, seed=s) for s, m in enumerate(originals)]
    models = {"original": originals, "results": results, "modules": [r.model for r in results], "one": results[0]}
    report = ex.audit(models, request, unseen=test, recipe=recipe, **LIGHT)
    assert keys(report) == both(*ALWAYS, "results", "modules") | {("one", 0)}
    by = {(row["method"], row["seed"]): row for row in report.rows}
    timed = {"method", "seconds", "cost_ratio", "examples", "verdict"}
    for seed in (0, 1):
        a, b = by["results", seed], by["modules", seed]
        assert {k: v for k, v in a.items() if k not in timed} == {k: v for k, v in b.items() if k not in timed}
        assert a["seconds"] == results[seed].seconds
        assert a["examples"] == results[seed].log.examples
        assert b["seconds"] is None
    assert list(report.rows[0])[: len(COLUMNS)] == COLUMNS
    assert set(report.verdicts) == {"original", "results", "modules", "one"}
    assert report.verdicts["original"]["word"] == "no effect"
    assert by["results", 1]["verdict"] == report.verdicts["results"]["word"]
    text = str(report)
    assert all(name in text for name in ("results", "modules", "retrain", "146"))


def test_a_result_that_was_tuned_on_retraining_is_shown_so_under_any_name(
    originals: list[nn.Module], train: ex.Rows, test: ex.Rows, recipe: ex.Recipe
) -> None:
    request = ex.Request(train, classes=[3])
    more: dict[str, Any] = {"of": {"name": "finetune", "epochs": 1}, "tries": 1, "recipe": recipe}
    tuned = ex.unlearn(originals[0], request, "search", select="oracle_gap", **more)
    plain = ex.unlearn(originals[0], request, "search", **more)
    report = ex.audit({"best": tuned, "other": plain}, request, unseen=test, recipe=recipe, **LIGHT)
    assert "best (tuned on retraining): " in str(report)
    assert "other (" not in str(report)
    assert set(report.verdicts) == {"original", "best", "other"}
    assert [row["method"] for row in report.rows if "note" in row] == ["best"]


def test_the_original_is_trained_where_it_is_missing(train: ex.Rows, test: ex.Rows, recipe: ex.Recipe) -> None:
    request = ex.Request(train, classes=[3])
    report = ex.audit({}, request, unseen=test, recipe=recipe, **LIGHT)
    assert keys(report) == both(*ALWAYS)
    row = next(r for r in report.rows if (r["method"], r["seed"]) == ("original", 1))
    threes = request.forget
    with torch.no_grad():
        wrong = (recipe(train, seed=1)(train.x(threes)).argmax(1) != 3).double().mean()
    assert row["ua"] == pytest.approx(100 * float(wrong))


def test_one_seed_still_makes_two_retrainings(
    originals: list[nn.Module], train: ex.Rows, test: ex.Rows, recipe: ex.Recipe
) -> None:
    request = ex.Request(train, classes=[3])
    report = ex.audit({"original": originals[0]}, request, unseen=test, recipe=recipe, **{**LIGHT, "seeds": 1})
    assert keys(report) == both("retrain", "retrain_again") | {("original", 0)}
    assert report.verdicts["original"]["word"] == "no effect"
    report = ex.audit({"original": originals[0]}, request, unseen=test, recipe=recipe, **{**LIGHT, "seeds": [4]})
    assert {seed for name, seed in keys(report) if name == "retrain"} == {4, 5}


def test_without_a_recipe_the_verdict_says_what_is_missing(
    originals: list[nn.Module], train: ex.Rows, test: ex.Rows
) -> None:
    report = ex.audit({"original": originals[0], "same": originals[1]}, ex.Request(train, classes=[3]), unseen=test)
    assert {v["word"] for v in report.verdicts.values()} == {"cannot say"}
    assert "recipe" in report.verdicts["same"]["sentence"]
    assert all(row["avg_gap"] is None and row["tow"] is None for row in report.rows)
    assert all(row["ta"] > 50 for row in report.rows)
    assert report.manifest["recipe"] is None


def test_an_own_training_function_is_called_with_the_ids_to_keep(train: ex.Rows, test: ex.Rows) -> None:
    calls: list[tuple[int, int]] = []

    def mine(rows: ex.Rows, ids: Any, seed: int) -> nn.Module:
        part = rows.take(rows.positions(ids))
        calls.append((len(part), seed))
        centres = torch.stack(
            [part.x((part.y == c).nonzero().flatten()).mean(0).flatten() for c in range(10) if (part.y == c).any()]
            + [torch.zeros(64)] * sum(not (part.y == c).any() for c in range(10))
        )
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        linear: Any = model[1]
        with torch.no_grad():
            linear.weight.copy_(centres)
            linear.bias.copy_(-centres.square().sum(1) / 2 + 0.01 * torch.randn(10))
        return model

    request = ex.Request(train, ids=train.ids[:100].tolist())
    report = ex.audit({}, request, unseen=test, recipe=mine, **LIGHT)
    assert sorted(calls) == [(1338, 0), (1338, 1), (1438, 0), (1438, 1)]
    assert keys(report) == both(*ALWAYS)
    assert "tfa" not in {n for n, v in report.rows[0].items() if v is not None}  # samples go, no class


def test_unseen_as_a_pair_of_arrays(originals: list[nn.Module], train: ex.Rows, test: ex.Rows) -> None:
    request = ex.Request(train, classes=[3])
    source: Any = test.source
    pair = (source.numpy(), test.y.numpy())
    ours = ex.audit({"a": originals[0]}, request, unseen=test, **LIGHT)
    theirs = ex.audit({"a": originals[0]}, request, unseen=pair, **LIGHT)
    assert theirs.rows == ours.rows
    few = test.y < 9  # the last class has no unseen row
    part = ex.audit({"a": originals[0]}, request, unseen=(pair[0][few.numpy()], pair[1][few.numpy()]), **LIGHT)
    index = (few & (test.y != 3)).nonzero().flatten()
    with torch.no_grad():
        right = (originals[0](test.x(index)).argmax(1) == test.y[index]).double().mean()
    assert part.rows[0]["ta"] == pytest.approx(100 * float(right))


def test_a_damaged_model_does_not_take_the_others_with_it(
    originals: list[nn.Module], train: ex.Rows, test: ex.Rows, recipe: ex.Recipe
) -> None:
    request = ex.Request(train, classes=[3])
    models = {"original": originals, "sound": originals}
    alone = ex.audit(models, request, unseen=test, recipe=recipe, **LIGHT)
    report = ex.audit({**models, "broken": broken(originals[0])}, request, unseen=test, recipe=recipe, **LIGHT)
    assert report.verdicts["broken"]["word"] == "model damaged"
    assert "NaN" in report.verdicts["broken"]["sentence"]
    others = [row for row in report.rows if row["method"] != "broken"]
    assert [{**r, "cost_ratio": 0} for r in others] == [{**r, "cost_ratio": 0} for r in alone.rows]
    assert next(row for row in report.rows if row["method"] == "broken")["ua"] is None
    entry = next(e for e in report.results["models"] if e["method"] == "broken")
    assert "NaN" in entry["measurements"]["ua"]["failed"]
    json.dumps(report.results, allow_nan=False)


@pytest.mark.parametrize("row", ["original", "retrain"])
def test_where_one_to_compare_with_is_damaged_the_others_keep_their_own_numbers(
    row: str, originals: list[nn.Module], train: ex.Rows, test: ex.Rows, recipe: ex.Recipe
) -> None:
    settings = {"seeds": 2, "attacks": ["loss"], "relearn": {"max_epochs": 0.5}}
    models = {"original": originals, "mine": originals, row: [broken(originals[0]), originals[1]]}
    report = ex.audit(models, ex.Request(train, classes=[3]), unseen=test, recipe=recipe, **settings)
    with torch.no_grad():
        wrong = (originals[0](train.x((train.y == 3).nonzero().flatten())).argmax(1) != 3).double().mean()
    assert report.verdicts["mine"]["word"] == "cannot say"
    told = f"{row} (seed 0) answers NaN or infinity; its weights are damaged. Give a sound one."
    assert told in report.verdicts["mine"]["sentence"]
    by = {(e["method"], e["seed"]): e["measurements"] for e in report.results["models"]}
    assert by["mine", 0]["ua"]["value"] == pytest.approx(100 * float(wrong))
    assert "NaN" in by[row, 0]["ua"]["failed"]
    assert "value" in by["mine", 1]["relearn"]
    json.dumps(report.results, allow_nan=False)


def test_a_row_whose_first_model_is_damaged(originals: list[nn.Module], train: ex.Rows, test: ex.Rows) -> None:
    models = {"mine": [broken(originals[0]), originals[1]]}
    report = ex.audit(models, ex.Request(train, classes=[3]), unseen=test, **LIGHT)
    assert [row["ua"] is None for row in report.rows] == [True, False]
    assert "histogram" in report.results["models"][1]


def test_gone_classes_are_neither_kept_nor_asked_about(
    originals: list[nn.Module], train: ex.Rows, test: ex.Rows, recipe: ex.Recipe
) -> None:
    request = ex.Request(train, classes=[3]).after(ex.Request(train, classes=[5]))
    report = ex.audit({}, request, unseen=test, recipe=recipe, **LIGHT)
    assert report.results["question"]["gone"] == 146
    for seed in (0, 1):
        kept = [i for i, y in zip(train.ids.tolist(), train.y.tolist()) if y not in (3, 5)]
        model = recipe(train, ids=kept, seed=seed)
        index = ((test.y != 3) & (test.y != 5)).nonzero().flatten()
        with torch.no_grad():
            right = (model(test.x(index)).argmax(1) == test.y[index]).double().mean()
        row = next(r for r in report.rows if (r["method"], r["seed"]) == ("retrain", seed))
        assert row["ta"] == pytest.approx(100 * float(right))


def test_a_model_of_another_architecture_is_judged_against_kept_retrainings(
    originals: list[nn.Module], train: ex.Rows, test: ex.Rows, recipe: ex.Recipe
) -> None:
    other = ex.models.build("mlp", channels=1, size=8, classes=10, hidden=[8])
    for _ in range(2):  # the second time the retrainings are read from the cache
        report = ex.audit({"other": other}, ex.Request(train, classes=[3]), unseen=test, recipe=recipe, **LIGHT)
    assert keys(report) == both(*ALWAYS) | {("other", 0)}
    row = next(row for row in report.rows if row["method"] == "other")
    assert row["ta"] < 50
    size = sum(p.numel() for p in originals[0].parameters())
    told = [note for note in report.results["notes"] if "another architecture" in note]
    assert len(told) == 1
    assert told[0].startswith(f"other is of another architecture than the recipe trains (610 weights, and {size:,})")
    same = ex.audit({"same": originals[0]}, ex.Request(train, classes=[3]), unseen=test, recipe=recipe, **LIGHT)
    assert not any("another architecture" in note for note in same.results["notes"])


@pytest.mark.parametrize(
    ("given", "read_as"),
    [
        (np.int64(2), (0, 1)),
        (torch.tensor(2), (0, 1)),
        (np.array([4, 1]), (4, 1)),
        (torch.tensor([4, 1]), (4, 1)),
        ((s for s in (4, 1)), (4, 1)),
        (range(3, 5), (3, 4)),
    ],
)
def test_seeds_as_people_hold_them(given: Any, read_as: tuple[int, ...]) -> None:
    seeds = make_terms(given).seeds
    assert seeds == read_as
    assert all(type(seed) is int for seed in seeds)


def test_an_original_that_is_a_result_of_another_request_is_told_what_to_give(
    originals: list[nn.Module], train: ex.Rows, test: ex.Rows
) -> None:
    first = ex.unlearn(originals[0], ex.Request(train, classes=[3]), "random_label", epochs=1)
    second = ex.unlearn(first.model, ex.Request(train, classes=[4]), "random_label", epochs=1)
    with pytest.raises(ExpungeError, match=r"original was made for another request: .* {'original': result.model}"):
        ex.audit({"original": first, "second": second}, second.request, unseen=test, **LIGHT)
    report = ex.audit({"original": first.model, "second": second}, second.request, unseen=test, **LIGHT)
    assert report.results["question"]["gone"] == len(second.request.gone) > 0


def test_models_read_from_files_are_judged_after_all_that_they_forgot(
    train: ex.Rows, test: ex.Rows, recipe: ex.Recipe, originals: list[nn.Module], tmp_path: Path
) -> None:
    def from_file(model: nn.Module) -> nn.Module:
        ex.io.save_weights(tmp_path / "weights.safetensors", model)
        found = ex.models.build("mlp", channels=1, size=8, classes=10, hidden=[32])
        ex.io.load_weights(tmp_path / "weights.safetensors", found)
        return found

    first = ex.unlearn(originals[0], ex.Request(train, classes=[3]), "retrain", recipe=recipe)
    second = ex.unlearn(first.model, ex.Request(train, classes=[5]), "retrain", recipe=recipe)
    later = ex.Request(train, classes=[5])
    report = ex.audit({"second": from_file(second.model)}, later, unseen=test, recipe=recipe, **LIGHT)
    known = ex.audit({"second": second}, second.request, unseen=test, recipe=recipe, **LIGHT)
    assert report.results["question"] == known.results["question"]
    assert report.results["question"]["gone"] == len(first.request.forget)
    row, same = (next(r for r in one.rows if r["method"] == "second") for one in (report, known))
    assert {k: row[k] for k in ("ua", "ra", "ta", "verdict")} == {k: same[k] for k in ("ua", "ra", "ta", "verdict")}
    assert row["ra"] > 95  # of rows that it has learned: those of class 3 are no part of it
    both_months = {"first": from_file(first.model), "second": from_file(second.model)}
    assert ex.audit(both_months, later, unseen=test, **LIGHT).results["question"]["gone"] == len(first.request.forget)
    with pytest.raises(ExpungeError, match=r"first has forgotten 146 rows.* 0 of the 146 asked for.* 146 others"):
        ex.audit({"first": from_file(first.model)}, later, unseen=test, **LIGHT)
    with pytest.raises(
        ExpungeError, match=r"second has forgotten .* 0 of the \d+ that are gone.*Request\(\.\.\., gone="
    ):
        ex.audit({"second": from_file(second.model)}, later.after(ex.Request(train, classes=[4])), unseen=test, **LIGHT)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"models": {"a": "model"}}, "must be a torch.nn.Module or a Result"),
        ({"models": "three"}, "by name"),
        ({"models": {"a": 3}}, "3 models for 2 seeds"),
        ({"models": {"retrain_again": 1}}, "choose another"),
        ({"models": {}}, "nothing to audit"),
        ({"attacks": ["los"]}, "Did you mean 'loss'"),
        ({"attacks": ["correctness"]}, "Unknown attack 'correctness'"),
        ({"attacks": []}, "at least one attack"),
        ({"relearn": {"max_epoch": 3}}, "Did you mean 'max_epochs'"),
        ({"relearn": {"lr": 0}}, "relearn: lr must be above 0"),
        ({"relearn": {"lr": None}}, "relearn: lr must be a number"),
        ({"relearn": {"cap": 1e2}}, "relearn: cap must be a whole number"),
        ({"relearn": {3: 4}}, "no field '3'"),
        ({"relearn": 3}, "max_epochs: 20"),
        ({"seeds": 0}, "one at least"),
        ({"seeds": "0-2"}, "whole"),
        ({"seeds": -1}, "got -1"),
        ({"unseen": "train"}, "unseen must be rows that no model was trained on.* training rows of digits"),
        ({"unseen": "a copy"}, "unseen must be rows that no model was trained on"),
        ({"seeds": [0, 0]}, "different"),
        ({"seeds": True}, "whole"),
        ({"seeds": {0, 1}}, "whole"),
        ({"seeds": [0, 1.0]}, "whole"),
        ({"recipe": 3}, "A recipe is"),
        ({"unseen": 3}, "Expected"),
        ({"request": "three"}, "must be an expunge.Request"),
    ],
)
def test_what_cannot_work_is_said(
    originals: list[nn.Module], train: ex.Rows, test: ex.Rows, changes: dict[str, Any], told: str
) -> None:
    settings: dict[str, Any] = {"models": {"a": 1}, "unseen": test, **LIGHT, **changes}
    models = settings.pop("models")
    if isinstance(models, dict):
        models = {name: [originals[0]] * n if isinstance(n, int) else n for name, n in models.items()}
    copied = ex.Rows(train.source, train.y, ids=train.ids)
    settings["unseen"] = {"train": train, "a copy": copied}.get(str(settings["unseen"]), settings["unseen"])
    request = settings.pop("request", ex.Request(train, classes=[3]))
    with pytest.raises(ExpungeError, match=told):
        ex.audit(models, request, **settings)


def test_a_bare_model_is_told_to_have_a_name(originals: list[nn.Module], train: ex.Rows, test: ex.Rows) -> None:
    models: Any = originals[0]
    with pytest.raises(ExpungeError, match="by name"):
        ex.audit(models, ex.Request(train, classes=[3]), unseen=test)


def test_relearning_and_all_attacks(
    originals: list[nn.Module], train: ex.Rows, test: ex.Rows, recipe: ex.Recipe
) -> None:
    request = ex.Request(train, classes=[3])
    report = ex.audit({}, request, unseen=test, recipe=recipe, seeds=1, relearn={"max_epochs": 1})
    assert report.manifest["audit"]["relearn"]["max_epochs"] == 1
    assert report.manifest["audit"]["attacks"]
    row = report.rows[0]
    assert {f"auc_{attack}" for attack in report.manifest["audit"]["attacks"]} <= set(row)
    assert 0 <= row["relearn"] <= 1


def test_relearning_that_did_not_end_is_not_told_as_a_time(
    originals: list[nn.Module], train: ex.Rows, test: ex.Rows, recipe: ex.Recipe, tmp_path: Path
) -> None:
    request = ex.Request(train, classes=[3])
    settings: dict[str, Any] = {"unseen": test, "recipe": recipe, **LIGHT, "seeds": 1}
    slow = ex.audit({"original": originals[0]}, request, **{**settings, "relearn": {"max_epochs": 0.5, "lr": 1e-5}})
    by = {e["method"]: e["measurements"] for e in slow.results["models"]}
    assert by["original"]["relearn"]["value"] == 0
    assert "censored" not in by["original"]["relearn"]
    for name in ("retrain", "retrain_again"):
        assert by[name]["relearn"] == {"value": 0.5, "low": None, "high": None, "censored": "at least", "gap": None}
    assert by["original"]["relearn"]["gap"] is None
    assert by["retrain"]["ain"]["value"] == 1  # by definition
    assert "neither this nor the retrained model" in by["retrain_again"]["ain"]["failed"]
    assert (by["original"]["ain"]["value"], by["original"]["ain"]["censored"]) == (0, "at most")
    told = [note for note in slow.results["notes"] if note.startswith("Relearning ends after 0.5 epochs.")]
    assert told[0].endswith("at least at that number: retrain (seed 0, 1); retrain_again (seed 0, 1).")
    assert [row.get("censored") for row in slow.rows] == ["ain", "relearn", "relearn", "relearn", "relearn"]
    assert "≥ 0.5" in slow.save(tmp_path / "slow").read_text()
    rows = list(csv.DictReader(io.StringIO((tmp_path / "slow" / "results.csv").read_text())))
    assert [row["censored"] for row in rows] == ["ain", *["relearn"] * 4]

    quick = ex.audit({"original": originals[0]}, request, **{**settings, "relearn": {"max_epochs": 60, "lr": 0.1}})
    by = {e["method"]: e["measurements"] for e in quick.results["models"]}
    assert by["retrain"]["ain"]["value"] == 1
    assert "Relearning ends after 60 epochs." in quick.results["notes"]
    assert not any("censored" in row for row in quick.rows)


def test_saving(originals: list[nn.Module], train: ex.Rows, test: ex.Rows, tmp_path: Path) -> None:
    report = ex.audit({"a": originals}, ex.Request(train, classes=[3]), unseen=test, **LIGHT)
    page = report.save(tmp_path / "new" / "dossier")
    folder = tmp_path / "new" / "dossier"
    assert page == folder / "report.html"
    assert {p.name for p in folder.iterdir()} == {"results.json", "results.csv", "manifest.json", "report.html"}
    assert json.loads((folder / "results.json").read_text()) == report.results
    rows = list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))
    assert len(rows) == 2
    for saved, row in zip(rows, report.rows):
        assert saved == {name: "" if value is None else str(value) for name, value in row.items()}
    files = json.loads((folder / "manifest.json").read_text())["files"]
    for name, digest in files.items():
        assert hashlib.blake2b((folder / name).read_bytes(), digest_size=16).hexdigest() == digest

    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ExpungeError, match="not empty"):
        report.save(folder)
    report.save(folder, force=True)
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(ExpungeError, match="is a file"):
        report.save(folder / "notes.txt")


def test_forgotten_rows_can_be_kept_out_of_the_results(
    originals: list[nn.Module], train: ex.Rows, test: ex.Rows, recipe: ex.Recipe
) -> None:
    request = ex.Request(train, classes=[3])
    settings = {"unseen": test, "recipe": recipe, "seeds": 1, "relearn": False}
    assert len(ex.audit({"original": originals[0]}, request, **settings, examples=2).results["examples"]) == 2
    assert ex.audit({"original": originals[0]}, request, **settings, examples=0).results["examples"] == []
    with pytest.raises(ex.ExpungeError, match="examples must be a whole number"):
        ex.audit({"original": originals[0]}, request, **settings, examples=-1)


def test_what_an_original_forgot_earlier_counts_as_gone(
    originals: list[nn.Module], train: ex.Rows, test: ex.Rows, recipe: ex.Recipe
) -> None:
    once = ex.unlearn(originals[0], ex.Request(train, ids=train.ids[:5].tolist()), "gradient_ascent", epochs=1).model
    request = ex.Request(train, classes=[3])
    result = ex.unlearn(once, request, "finetune", epochs=1)
    settings = {"unseen": test, "recipe": recipe, "seeds": 1, "relearn": False}
    report = ex.audit({"original": once, "finetune": result}, request, **settings)
    assert report.results["question"]["gone"] > 0
    with pytest.raises(ex.ExpungeError, match="made for another request"):
        ex.audit({"original": originals[0], "finetune": result}, ex.Request(train, classes=[4]), **settings)


def test_audit_shows_its_parameters() -> None:
    import inspect

    assert {"models", "request", "unseen", "recipe", "seeds"} <= set(inspect.signature(ex.audit).parameters)


def test_unseen_rows_with_ids_of_training_rows_are_noted(
    originals: list[nn.Module], train: ex.Rows, test: ex.Rows
) -> None:
    def named(rows: ex.Rows, ids: list[str]) -> ex.Rows:
        return ex.Rows(rows.source, rows.y, ids=ids, classes=rows.classes, scale=rows.scale)

    own = named(train, [f"r{i}" for i in range(len(train))])
    request, models = ex.Request(own, classes=[3]), {"original": originals[0]}

    def notes(unseen: ex.Rows) -> list[str]:
        report = ex.audit(models, request, unseen=unseen, seeds=1, attacks=["loss"], relearn=False)
        return [note for note in report.results["notes"] if "id of a training row" in note]

    shared = ["r1", "r2", *(f"t{i}" for i in range(len(test) - 2))]
    assert len(notes(named(test, shared))) == 1
    assert notes(named(test, shared))[0].startswith(f"2 of {len(test)} unseen rows have the id of a training row, e.g.")
    assert notes(named(test, [f"t{i}" for i in range(len(test))])) == []
    assert notes(test) == []  # its ids are positions


def test_positions_as_text_are_no_ids_of_ones_own(train: ex.Rows, test: ex.Rows) -> None:
    from expunge.data.unseen import shared_rows

    def numbered(rows: ex.Rows) -> ex.Rows:
        return ex.Rows(rows.source, rows.y, ids=[str(i) for i in range(len(rows))])

    assert shared_rows(numbered(test), numbered(train)) == []


def test_what_methods_have_to_say_stands_in_the_notes(originals, recipe, train, test) -> None:
    request = ex.Request(train, classes=[3])
    idle = [ex.unlearn(model, request, "ssd", alpha=1e6) for model in originals]
    svd = [ex.unlearn(originals[0], request, "svd_forget", scale_retain=(1e3,), scale_forget=(1e-3, 2e-3))]
    report = ex.audit({"ssd": idle, "svd": svd}, request, unseen=test, recipe=recipe, **LIGHT)
    said = [note for note in report.results["notes"] if note.startswith(("ssd", "svd"))]
    assert len([note for note in said if "No weight was dampened" in note]) in (1, 2)  # the figures in it may differ
    assert "svd: No pair of scales did better" in "\n".join(said)
    assert all(f"Note: {note[:30]}" in " ".join(str(report).split()) for note in said)
