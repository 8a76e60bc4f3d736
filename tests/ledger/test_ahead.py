"""What would not be recorded is refused before the first step: by watch, by a recipe, by a check of an experiment."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training import batches, fit, net, subtracted, trained

import expunge as ex
from expunge import ExpungeError
from expunge.experiment import from_dict
from kit import bits
from shell import SMALL


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05)


# -- weights that nobody records -------------------------------------------------------------------------------


def test_weights_that_another_optimiser_may_train_are_refused(train, tmp_path):
    model = net()
    ledger, head = ex.Ledger(tmp_path / "a", keep=1.0), torch.optim.SGD(model[3].parameters(), lr=0.1)
    with pytest.raises(ExpungeError, match=r"does not hold 0.weight, 0.bias.*requires_grad_.*layers=\[...\]"):
        ledger.watch(model, head)
    assert not (tmp_path / "a").exists()
    fit(model, train, batches(train, 1), head, ex.Ledger(tmp_path / "b", keep=1.0, layers=["3.*"]))  # said so
    model[0].requires_grad_(False)
    fit(model, train, batches(train, 1), head, ledger)


def test_a_result_says_which_share_of_the_weights_is_recorded(train, tmp_path):
    model, ledger, _ = trained(tmp_path / "a", train, keep=1.0, layers=["0.*"])
    request = ex.Request(train, ids=train.ids[:1].tolist())
    result = ex.unlearn(model, request, "amnesiac", ledger=ledger, control=False)
    share = 40 / (40 + 1450)  # 4 kernels of 3x3 and 4 biases; 144x10 and 10
    assert result.log.facts["touched"]["recorded"] == pytest.approx(share)
    assert any(f"records {100 * share:.1f} % of the model's weights" in note for note in result.log.notes)
    model, ledger, _ = trained(tmp_path / "b", train, keep=1.0)
    whole = ex.unlearn(model, request, "amnesiac", ledger=ledger, control=False)
    assert whole.log.facts["touched"]["recorded"] == 1
    assert not any("of the model's weights" in note for note in whole.log.notes)


@pytest.mark.parametrize("record", ["gradient", "sample"])
def test_sparse_gradients_are_refused_before_the_training(record, tmp_path):
    model = nn.Sequential(nn.EmbeddingBag(20, 8, sparse=True), nn.Linear(8, 3))
    with pytest.raises(ExpungeError, match=f"record: {record} needs dense gradients; those of 0.weight are sparse"):
        ex.Ledger(tmp_path / "a", record=record).watch(model, sgd(model))
    ex.Ledger(tmp_path / "b", record=record, layers=["1.*"]).watch(model, sgd(model)).close()
    ex.Ledger(tmp_path / "c").watch(model, sgd(model)).close()


# -- what could be recorded and never be taken back --------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_inputs_that_no_method_gives_are_refused_before_the_first_step(kind, train, tmp_path):
    model = net().to(kind)
    x = train.x(torch.arange(5))
    with ex.Ledger(tmp_path) as ledger:
        ledger.watch(model, sgd(model))
        told = str(kind).removeprefix("torch.")
        with pytest.raises(ExpungeError, match=f"inputs of {told}, as its weights are.*Keep the weights in float32"):
            model(x.to(kind))
    assert ledger.steps == 0
    model(x.to(kind))  # as before


def test_a_wide_model_under_autocast_is_given_what_it_likes(train, tmp_path):
    model = net()
    with ex.Ledger(tmp_path) as ledger, torch.autocast("cpu", torch.bfloat16):
        ledger.watch(model, sgd(model))
        model(train.x(torch.arange(5)).to(torch.bfloat16))


def test_two_ledgers_of_parts_of_one_model_are_refused_while_both_record(tmp_path):
    model = net()
    body, head = (torch.optim.SGD(model[i].parameters(), lr=0.1) for i in (0, 3))
    one, two = ex.Ledger(tmp_path / "one", layers=["0.*"]), ex.Ledger(tmp_path / "two", layers=["3.*"])
    one.watch(model, body)
    with pytest.raises(ExpungeError, match=r"one watches other weights of this model.*one optimiser, as groups"):
        two.watch(model, head)
    with pytest.raises(ExpungeError, match="other weights of this model"):
        ex.Ledger(tmp_path / "two").watch(model[3], head)
    assert not (tmp_path / "two").exists()
    ex.Ledger(tmp_path / "other").watch(other := net(), sgd(other)).close()
    one.close()
    two.watch(model, head).close()


def test_two_ledgers_of_the_same_weights_serve_each_by_itself(train, tmp_path):
    model = net()
    optimizer = sgd(model)
    ledgers = [ex.Ledger(tmp_path / name, keep=1.0).watch(model, optimizer) for name in "ab"]
    for index in batches(train, 1):
        for ledger in ledgers:
            ledger.uses(train.ids[index.numpy()])
        optimizer.zero_grad()
        F.cross_entropy(model(train.x(index)), train.y[index]).backward()
        optimizer.step()
    for ledger in ledgers:
        ledger.close()
    one, two = (bits(subtracted(model, ledger, train.ids[:1].tolist(), train)) for ledger in ledgers)
    assert one == two != bits(model)


# -- arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"accumulate": "2"}, "accumulate must be a whole number of batches"),
        ({"accumulate": None}, "accumulate must be"),
        ({"accumulate": 0}, "accumulate must be"),
        ({"accumulate": -1}, "accumulate must be"),
        ({"accumulate": True}, "accumulate must be"),
        ({"accumulate": 1.5}, "accumulate must be"),
        ({"scaler": 5}, "The scaler must be a torch.amp.GradScaler"),
        ({"model": "m"}, "The model must be a torch.nn.Module; got 'm'"),
        ({"optimizer": "sgd"}, "The optimizer must be a torch.optim.Optimizer; got 'sgd'"),
    ],
)
def test_watch_refuses_what_it_cannot_use(given, message, tmp_path):
    model = net()
    with pytest.raises(ExpungeError, match=message):
        ex.Ledger(tmp_path / "a").watch(**{"model": model, "optimizer": sgd(model), **given})
    assert not (tmp_path / "a").exists()


def test_a_ledger_and_a_request_that_are_none_are_refused(train, tmp_path):
    with pytest.raises(ExpungeError, match="A ledger is a folder; give its path, got None"):
        ex.Ledger(None)
    _, ledger, _ = trained(tmp_path, train, epochs=1)
    with pytest.raises(ExpungeError, match="ids are a list of whole numbers or strings"):
        ledger.touched(3)
    with pytest.raises(ExpungeError, match="A ledger is a folder; give its path, got 5"):
        ex.unlearn(net(), ex.Request(train, ids=train.ids[:1].tolist()), "amnesiac", ledger=5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"carry": "no"}, "carry must be true or false; got 'no'"),
        ({"decay": "false"}, "decay must be true or false; got 'false'"),
        ({"sensitive": []}, "sensitive is a list of ids, one at least"),
        ({"sensitive": "nowhere.csv"}, "The ids in nowhere.csv cannot be read"),
    ],
)
def test_settings_that_mean_something_else_are_refused(settings, message, tmp_path):
    with pytest.raises(ExpungeError, match=message):
        ex.Ledger(tmp_path, **settings)


@pytest.mark.parametrize("fields", [{"keep": True}, {"keep": "a"}, {"scale": True}, {"scale": "a"}, {"spill": 1.5}])
def test_fields_that_are_no_numbers_are_refused(fields):
    with pytest.raises(ExpungeError, match=rf"partial_amnesiac: {next(iter(fields))} must be"):
        ex.methods.PartialAmnesiac(**fields)


@pytest.mark.parametrize("epochs", [0, 2])
def test_fields_of_the_repair_are_refused_by_their_own_names(epochs):
    with pytest.raises(ExpungeError) as caught:
        ex.methods.Amnesiac(repair_epochs=epochs, repair_lr=-1.0, repair_batch_size=0)
    assert str(caught.value).count("amnesiac: repair_lr must be above 0; got -1.0.") == 1
    assert "amnesiac: repair_batch_size must be a whole number, 1 or more; got 0." in str(caught.value)
    with pytest.raises(ExpungeError, match=r"amnesiac: repair_epochs must be a whole number, 0 or more; got -1\."):
        ex.methods.Amnesiac(repair_epochs=-1)


def test_numpy_s_numbers_are_shares(tmp_path):
    assert ex.Ledger(tmp_path, keep=np.float32(0.5)).settings.keep == 0.5


# -- sensitive rows --------------------------------------------------------------------------------------------


def test_sensitive_rows_from_a_file_or_as_text_are_those_of_the_training(train, tmp_path):
    wanted = train.ids[[3, 40]].tolist()
    (tmp_path / "ids.csv").write_text("id\n" + "\n".join(map(str, wanted)))
    model, numbers, story = trained(tmp_path / "numbers", train, keep=1.0, sensitive=wanted, epochs=1)
    for name, given in (
        ("file", str(tmp_path / "ids.csv")),
        ("path", tmp_path / "ids.csv"),
        ("text", [*map(str, wanted)]),
    ):
        _, ledger, _ = trained(tmp_path / name, train, keep=1.0, sensitive=given, epochs=1)
        assert ledger.stored.tolist() == numbers.stored.tolist() == story.touched(wanted)
        assert ledger.touched(wanted).steps.tolist() == story.touched(wanted)
    after = subtracted(model, ledger, wanted[:1], train)
    ledger.purge(after, ids=wanted[:1])
    assert ledger.settings.sensitive == (str(wanted[1]),)  # the text of the purged row is gone


def test_a_ledger_in_which_nothing_is_stored_says_so_when_it_is_closed(train, tmp_path):
    with pytest.warns(UserWarning, match="Nothing is stored of the 7 steps.*none of the sensitive rows took part"):
        trained(tmp_path / "a", train, epochs=1, sensitive=[99_999])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(tmp_path / "b", train, epochs=1, sensitive=[99_999, train.ids[3].item()])


@pytest.mark.parametrize("given", [[99_999, 3], ["99999", "3"]])
def test_a_recipe_refuses_sensitive_ids_that_are_no_rows(given, train, tmp_path):
    recipe = ex.Recipe(model={"name": "mlp", "hidden": [8]}, epochs=1, ledger={"sensitive": given})
    with pytest.raises(ExpungeError, match=r"sensitive: 1 of 2 ids are not in digits, e\.g\. 99999"):
        recipe(train, ledger=tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"ledger": {"layers": ["nope*"]}}, r"recipe: ledger: Unknown layer pattern of the ledger 'nope\*'"),
        ({"ledger": {"record": "gradient"}, "optimizer": "rmsprop"}, "recipe: ledger: .*needs SGD, Adam or AdamW"),
        (
            {"ledger": {"record": "sample"}, "optimizer": "adam", "weight_decay": 0.1},
            "recipe: ledger: record: sample cannot tell Adam's weight decay",
        ),
        ({"ledger": {"sensitive": [0, 99_999]}}, "recipe: ledger: sensitive: 1 of 2 ids are not in digits"),
        ({"ledger": {"sensitive": [3]}}, r"methods.*amnesiac\): The ledger records sensitive rows only, and 1 of 1"),
        ({"ledger": {"sensitive": "nowhere.txt"}}, "recipe: ledger: The ids in nowhere.txt cannot be read"),
        ({"ledger": {"carry": "maybe"}}, "recipe: ledger: carry must be true or false; got 'maybe'"),
    ],
)
def test_a_check_tells_what_could_not_be_recorded(recipe, message):
    settings = {**recipe["ledger"], "keep": 1.0}
    config = {**SMALL, "request": {"ids": [0]}, "recipe": {**SMALL["recipe"], **recipe, "ledger": settings}}
    with pytest.raises(ExpungeError, match=message):
        from_dict({**config, "methods": ["amnesiac"]})


def test_a_check_has_nothing_against_what_works():
    recipe = {**SMALL["recipe"], "ledger": {"keep": 1.0, "sensitive": ["0", "3"], "layers": ["body.*"]}}
    from_dict({**SMALL, "request": {"ids": [0]}, "recipe": recipe, "methods": ["amnesiac"]})


# -- calls in the wrong order ----------------------------------------------------------------------------------


def own_losses(model, rows, index):
    return F.cross_entropy(model(rows.x(index)), rows.y[index], reduction="none") / len(index)


def test_rows_whose_step_was_refused_can_be_announced_anew(train, tmp_path):
    model, ledger, index = net(), ex.Ledger(tmp_path, keep=1.0), torch.arange(4)
    optimizer = sgd(model)
    ledger.watch(model, optimizer)
    ledger.uses([8, 9])
    with pytest.raises(ExpungeError, match="no gradient"):
        optimizer.step()
    ledger.uses(train.ids[:4])
    own_losses(model, train, index).sum().backward()
    optimizer.step()
    ledger.close()
    assert ledger.touched(train.ids[:4]).steps.tolist() == [1]
    with pytest.raises(ExpungeError, match="took part in no step"):
        ledger.touched([8])


def test_losses_that_come_too_late_or_are_none_are_refused_and_can_be_given_anew(train, tmp_path):
    model, ledger, index = net(), ex.Ledger(tmp_path, keep=1.0, record="sample"), torch.arange(4)
    optimizer = sgd(model)
    ledger.watch(model, optimizer)
    losses = own_losses(model, train, index)
    losses.sum().backward()
    with pytest.raises(ExpungeError, match=r"losses\) before loss.backward\(\)"):
        ledger.uses(train.ids[:4], losses)
    with pytest.raises(ExpungeError, match="got list for 4 ids"):
        ledger.uses(train.ids[:4], [1.0, 2.0, 3.0, 4.0])
    optimizer.zero_grad()
    losses = own_losses(model, train, index)
    ledger.uses(train.ids[:4], losses)
    before = bits(model)
    losses.sum().backward()
    optimizer.step()
    ledger.close()
    assert bits(model) != before
    assert ledger.touched(train.ids[:4]).steps.tolist() == [1]


def test_another_current_folder_does_not_lead_a_ledger_astray(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, _, _ = trained("ledger", train, keep=1.0, epochs=1)
    opened = ex.Ledger("ledger")
    os.makedirs(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert bits(subtracted(model, opened, train.ids[:1].tolist(), train)) != bits(model)
    assert opened.path == Path(tmp_path / "ledger")
