"""The hooks in loops of all kinds, and what is refused before a step is lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset
from training import OPTIMIZERS, batches, fit, net, trained, weights

import expunge as ex
from expunge import ExpungeError
from kit import bits


def begin(folder, **settings):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ledger = ex.Ledger(folder, **settings)
    ledger.watch(model, optimizer)
    return model, optimizer, ledger


def backward(model, rows, index):
    F.cross_entropy(model(rows.x(index)), rows.y[index]).backward()


@pytest.mark.parametrize("loader", ["shuffled", "replacement", "drop_last", "workers"])
def test_the_index_equals_a_plain_scan(loader, train, tmp_path):
    data = TensorDataset(torch.arange(100), train.x(torch.arange(100)), train.y[:100])
    settings = {
        "shuffled": {"shuffle": True},
        "replacement": {"sampler": RandomSampler(data, replacement=True, num_samples=90)},
        "drop_last": {"shuffle": True, "drop_last": True},
        "workers": {"shuffle": True, "num_workers": 1},
    }[loader]
    model, optimizer, ledger = begin(tmp_path, keep=0.1)
    seen = []
    torch.manual_seed(0)
    for _ in range(2):
        for ids, x, y in DataLoader(data, batch_size=16, **settings):
            optimizer.zero_grad()
            ledger.uses(ids)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            seen.append(set(ids.tolist()))
    ledger.close()
    for wanted in ([3], [5, 17, 60], list(range(50))):
        asked = [i for i in wanted if any(i in batch for batch in seen)]
        expected = [s for s, batch in enumerate(seen, start=1) if batch & set(asked)]
        touched = ledger.touched(asked)
        assert touched.steps.tolist() == expected
        assert touched.others == len(set().union(*(seen[s - 1] for s in expected)) - set(asked))


def test_the_touched_share_is_that_of_random_batches(train, tmp_path):
    """1 − C(N−n, B)/C(N, B) of the steps of an epoch, for n rows of N in batches of B."""
    model, optimizer, ledger = begin(tmp_path, keep=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        for index in torch.randperm(640, generator=generator).split(32):
            ledger.uses(index.tolist())
            optimizer.zero_grad()
            backward(model, train, index)
            optimizer.step()
    ledger.close()
    expected = 1 - np.prod([(640 - 20 - i) / (640 - i) for i in range(32)])
    assert ledger.touched(list(range(20))).share == pytest.approx(expected, abs=0.06)  # three standard errors


def test_batches_that_share_a_step_count_together(train, tmp_path):
    model = net()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    ledger = ex.Ledger(tmp_path, keep=1.0)
    ledger.watch(model, optimizer, accumulate=3)
    for index in batches(train, 1, size=20, most=180):
        ledger.uses(index.tolist())
        backward(model, train, index)
        if len(ledger._capture.pending) == 3:
            optimizer.step()
            optimizer.zero_grad()
    ledger.close()
    assert ledger.steps == 3
    plan = batches(train, 1, size=20, most=180)
    assert ledger.touched(plan[4].tolist()).steps.tolist() == [2]


def test_a_step_without_uses_is_refused_before_it_is_taken(train, tmp_path):
    model, optimizer, _ = begin(tmp_path)
    before = bits(model)
    backward(model, train, torch.arange(8))
    with pytest.raises(ExpungeError, match=r"Step 1 was taken without ledger.uses\(ids\)"):
        optimizer.step()
    assert bits(model) == before


def test_uses_twice_is_refused_with_what_to_say_instead(train, tmp_path):
    model, optimizer, ledger = begin(tmp_path)
    ledger.uses([1, 2])
    with pytest.raises(ExpungeError, match=r"called 2 times before step 1.*accumulate=n.*scaler=scaler"):
        ledger.uses([3])
    backward(model, train, torch.arange(2))
    optimizer.step()  # the first batch still counts
    ledger.close()
    assert ledger.touched([1]).steps.tolist() == [1]


def test_other_misuse_of_uses(tmp_path):
    with pytest.raises(ExpungeError, match=r"before ledger.watch"):
        ex.Ledger(tmp_path / "a").uses([1])
    _, _, ledger = begin(tmp_path / "b")
    with pytest.raises(ExpungeError, match="got no ids for step 1"):
        ledger.uses([])
    with pytest.raises(ExpungeError, match="watches a training already"):
        ledger.watch(net(), torch.optim.SGD(net().parameters(), lr=1))


def test_a_step_without_a_gradient_is_refused(tmp_path):
    model, optimizer, ledger = begin(tmp_path)
    before = bits(model)
    ledger.uses([1])
    with pytest.raises(ExpungeError, match=r"no gradient for any recorded layer; was loss.backward\(\) called"):
        optimizer.step()
    assert bits(model) == before


@pytest.mark.parametrize("change", ["added", "shared", "replaced"])
def test_parameters_that_change_during_training_are_refused(change, train, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ledger = ex.Ledger(tmp_path)
    ledger.watch(model, optimizer)
    if change == "added":
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
        expected = "parameter groups"
    elif change == "shared":
        model[2].weight = model[1].weight
        expected = "2.weight"
    else:
        model[3].weight = nn.Parameter(torch.zeros(10, 64))
        expected = "3.weight"
    ledger.uses([1])
    backward(model, train, torch.arange(4))
    with pytest.raises(ExpungeError, match=f"added, replaced, shared or converted: .*{expected}"):
        optimizer.step()


def test_a_layer_frozen_on_the_way_simply_stops_moving(train, tmp_path):
    model, optimizer, ledger = begin(tmp_path, keep=1.0)
    for step, index in enumerate(batches(train, 1)):
        if step == 3:
            model[0].requires_grad_(False)
            model[0].weight.grad = model[0].bias.grad = None
            start = weights(model)
        ledger.uses(index.tolist())
        for p in model.parameters():
            p.grad = None
        backward(model, train, index)
        optimizer.step()
    ledger.close()
    total = ledger.reader().total(range(4, ledger.steps + 1))
    assert not total["0.weight"].any()
    assert torch.allclose(model[3].weight.double() - total["3.weight"], start["3.weight"].double(), atol=1e-6)


def test_shared_weights_are_recorded_once(train, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 10))
    model[3].weight = model[1].weight
    ledger = ex.Ledger(tmp_path, keep=1.0)
    first = weights(model)
    fit(model, train, batches(train, 1), torch.optim.SGD(model.parameters(), lr=0.1), ledger)
    assert [name for name, _, _ in ledger.about["layers"]] == ["1.weight", "1.bias", "3.bias", "4.weight", "4.bias"]
    total = ledger.reader().total(range(1, ledger.steps + 1))
    assert torch.allclose(model[1].weight.double() - total["1.weight"], first["1.weight"].double(), atol=1e-6)


def test_steps_that_a_scaler_skips_are_recorded_as_skipped(train, tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1000)
    ledger = ex.Ledger(tmp_path, keep=1.0)
    first = weights(model)
    ledger.watch(model, optimizer, scaler=scaler)
    for step, index in enumerate(batches(train, 1), start=1):
        optimizer.zero_grad()
        ledger.uses(index.tolist())
        loss = F.cross_entropy(model(train.x(index)), train.y[index])
        scaler.scale(loss * (float("inf") if step in (2, 3) else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
    ledger.close()
    abouts = ledger.reader().journal.abouts(range(1, ledger.steps + 1))
    assert [s for s, about in enumerate(abouts, start=1) if about.get("skipped")] == [2, 3]
    total = ledger.reader().total(range(1, ledger.steps + 1))
    assert all(torch.allclose(p.double() - total[n], first[n].double(), atol=1e-6) for n, p in model.named_parameters())


def test_layers_can_be_chosen(train, tmp_path):
    _, ledger, _ = trained(tmp_path / "a", train, keep=1.0, layers=["3.*"])
    assert set(ledger.reader().total([1])) == {"3.weight", "3.bias"}
    _, ledger, _ = trained(tmp_path / "module", train, keep=1.0, layers=["3"])  # by its module, as in a region
    assert set(ledger.reader().total([1])) == {"3.weight", "3.bias"}
    _, ledger, _ = trained(tmp_path / "bias", train, keep=1.0, layers=["*.bias"])
    assert set(ledger.reader().total([1])) == {"0.bias", "3.bias"}
    with pytest.raises(ExpungeError, match="Unknown layer pattern of the ledger 'fc"):
        trained(tmp_path / "b", train, layers=["fc*"])


def test_only_steps_with_sensitive_rows_are_stored_when_asked(train, tmp_path):
    sensitive = train.ids[:2].tolist()
    _, ledger, story = trained(tmp_path, train, keep=1.0, sensitive=sensitive)
    assert ledger.steps == len(story.batches)
    stored = {s for s, _ in ledger.reader().updates(range(1, ledger.steps + 1))}
    assert stored == set(story.touched(sensitive))
    with pytest.raises(ExpungeError, match="records sensitive rows only, and 1 of 1 ids"):
        ledger.touched(train.ids[5:6].tolist())


def test_without_decay_the_updates_hold_gradients_only(train, tmp_path):
    """Against a twin trained step by step from the same weights with the decay's own memory taken off."""
    for optimizer in ("momentum", "adamw"):
        _, ledger, story = trained(tmp_path / optimizer, train, optimizer, keep=1.0, decay=False)
        lr, momentum, decay = (0.02, 0.9, 5e-3) if optimizer == "momentum" else (2e-3, 0.0, 0.1)
        pull = {n: torch.zeros_like(w) for n, w in story.weights[0].items()}
        for step in range(1, ledger.steps + 1):
            for name, value in ledger.reader().total([step]).items():
                pull[name] = momentum * pull[name] + decay * story.weights[step - 1][name]
                expected = story.update(step, name) + lr * pull[name]
                assert torch.allclose(value, expected, rtol=0, atol=1e-7)
    model = net()
    adam = torch.optim.Adam(model.parameters(), weight_decay=0.1)
    with pytest.raises(ExpungeError, match="cannot tell Adam's weight decay"):
        ex.Ledger(tmp_path / "adam", decay=False).watch(model, adam)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 0}, "keep must be above 0"),
        ({"keep": 1.2}, "keep must be above 0"),
        ({"keep": "half"}, "keep must be above 0"),
        ({"values": "int8"}, "Unknown values 'int8'"),
        ({"keep": 0.1, "values": "float64"}, "float64 is for keep: 1"),
        ({"record": "weights"}, "Unknown record 'weights'"),
        ({"buffers": "forget"}, "Unknown buffers"),
        ({"record": "sample", "carry": True}, "carry is for record"),
        ({"kept": 0.1}, "kept"),
    ],
)
def test_impossible_settings_are_refused_at_once(settings, message, tmp_path):
    with pytest.raises(ExpungeError, match=message):
        ex.Ledger(tmp_path, **settings)


def test_a_ledger_of_other_settings_data_or_training_is_refused(train, tmp_path):
    model = net()
    ledger = ex.Ledger(tmp_path, keep=0.1, data="abc", recipe={"epochs": 2})
    fit(model, train, batches(train, 1), torch.optim.SGD(model.parameters(), lr=0.1), ledger)
    assert ex.Ledger(tmp_path).settings.keep == 0.1
    with pytest.raises(ExpungeError, match=r"has keep: 0\.1, not 0\.2"):
        ex.Ledger(tmp_path, keep=0.2)
    with pytest.raises(ExpungeError, match="another data: abc there, xyz here"):
        ex.Ledger(tmp_path, data="xyz")
    with pytest.raises(ExpungeError, match="another recipe: epochs 2 there, 3 here"):
        ex.Ledger(tmp_path, recipe={"epochs": 3})
    with pytest.raises(ExpungeError, match="belongs to another data"):
        ex.unlearn(model, ex.Request(train, ids=train.ids[:1].tolist()), "partial_amnesiac", ledger=ledger)


def test_going_on_needs_the_model_where_the_ledger_ends(train, tmp_path):
    model, _, story = trained(tmp_path, train, keep=1.0)
    again, other = ex.Ledger(tmp_path), net()
    with pytest.raises(ExpungeError, match=r"14 steps, and this model is not where they end.*ledger.rewind"):
        again.watch(other, torch.optim.SGD(other.parameters(), lr=1))
    again.close()
    more = ex.Ledger(tmp_path)
    fit(model, train, batches(train, 1, seed=5), torch.optim.SGD(model.parameters(), lr=0.1), more)
    assert more.steps == len(story.batches) + 7


def test_ids_never_seen_are_refused(train, tmp_path):
    model, ledger, _ = trained(tmp_path, train)
    with pytest.raises(ExpungeError, match=r"1 of 2 ids took part in no step.*987"):
        ledger.touched([train.ids[0].item(), 987_654])
    rows = ex.Rows(train.x(torch.arange(300)), train.y[:300])
    with pytest.raises(ExpungeError, match="took part in no step"):
        ex.unlearn(model, ex.Request(rows, ids=[290]), "partial_amnesiac", ledger=ledger)


def test_an_optimiser_of_some_layers_only(train, tmp_path):
    """A head that is tuned on: only what moves is recorded, and can be taken back."""
    model, ledger = net(), ex.Ledger(tmp_path, keep=1.0)
    model[0].requires_grad_(False)
    first = weights(model)
    fit(model, train, batches(train, 1), torch.optim.SGD(model[3].parameters(), lr=0.1), ledger)
    total = ledger.reader().total(range(1, ledger.steps + 1))
    assert set(total) == {"3.weight", "3.bias"}
    assert torch.allclose(model[3].weight.double() - total["3.weight"], first["3.weight"].double(), atol=1e-6)
    changed = net()
    changed.load_state_dict(model.state_dict())
    with torch.no_grad():
        changed[0].weight += 1  # a layer that is not recorded counts as well
    assert ledger.ends_at(model)
    assert not ledger.ends_at(changed)


@pytest.mark.parametrize("record", ["update", "gradient"])
def test_a_layer_is_frozen_for_a_second_phase_whose_optimiser_leaves_it_out(record, train, tmp_path):
    model, stories = net(), []
    for epoch in range(2):
        model[0].requires_grad_(not epoch)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        plan = batches(train, 1, seed=epoch)
        stories.append(fit(model, train, plan, optimizer, ex.Ledger(tmp_path, keep=1.0, record=record)))
    ledger = ex.Ledger(tmp_path)
    first, last = stories[0].weights[0], stories[1].weights[-1]
    half = len(batches(train, 1))
    for steps in (range(1, 2 * half + 1), range(half + 1, 2 * half + 1)):
        total = ledger.reader().total(steps)
        for name, moved in total.items():
            before = first if steps[0] == 1 else stories[1].weights[0]
            torch.testing.assert_close(last[name].double() - before[name], moved, rtol=0, atol=1e-6)
    after = ex.unlearn(model, ex.Request(train, ids=train.ids[:1]), "amnesiac", ledger=ledger, control=False).model
    assert not torch.equal(after[0].weight, model[0].weight)


def test_a_model_with_a_part_of_that_name_is_recorded_as_a_whole(train, tmp_path):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.module, self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), nn.Linear(8, 10)

        def forward(self, x):
            return self.head(self.module(x))

    model, ledger = Own(), ex.Ledger(tmp_path, keep=1.0)
    fit(model, train, batches(train, 1), torch.optim.SGD(model.parameters(), lr=0.1), ledger)
    assert [n for n, _, _ in ledger.about["layers"]] == [n for n, _ in model.named_parameters()]


@pytest.mark.parametrize("wrong", [torch.eye(2), 2.5, "abc", [1.5]])
def test_ids_of_other_kinds_are_refused_before_the_step(wrong, tmp_path):
    _, _, ledger = begin(tmp_path)
    with pytest.raises(ExpungeError, match="Ids"):
        ledger.uses(wrong)


def test_ids_may_be_tensors_one_by_one(train, tmp_path):
    sensitive = train.ids[:2]
    model, ledger = net(), ex.Ledger(tmp_path, keep=1.0, sensitive=sensitive)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ledger.watch(model, optimizer)
    ledger.uses(list(torch.as_tensor(train.ids[:4])))
    backward(model, train, torch.arange(4))
    optimizer.step()
    ledger.close()
    assert ledger.touched(sensitive).bytes > 0


def test_a_closure_is_a_step_like_any_other(train, tmp_path):
    model, optimizer, ledger = begin(tmp_path, keep=1.0)
    first = weights(model)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(train.x(torch.arange(8))), train.y[:8])
        loss.backward()
        return loss

    ledger.uses([1, 2])
    optimizer.step(closure)
    ledger.close()
    total = ledger.reader().total([1])
    assert torch.allclose(model[3].weight.double() - total["3.weight"], first["3.weight"].double(), atol=1e-7)


def test_a_watch_that_is_refused_leaves_nothing_behind(train, tmp_path):
    model = net()
    with pytest.raises(ExpungeError, match="RMSprop"):
        ex.Ledger(tmp_path, record="gradient").watch(model, torch.optim.RMSprop(model.parameters()))
    ledger = ex.Ledger(tmp_path, keep=0.5)
    fit(model, train, batches(train, 1), torch.optim.SGD(model.parameters(), lr=0.1), ledger)
    assert ledger.steps == 7


class Narrow(nn.Module):
    """Weights of 16 bits behind inputs of 32, as methods give them."""

    def __init__(self):
        super().__init__()
        self.net = net().to(torch.bfloat16)

    def forward(self, x):
        return self.net(x.to(torch.bfloat16)).float()


def test_weights_of_half_precision_are_told_exactly(train, tmp_path):
    model = Narrow()
    first = weights(model)
    ledger = ex.Ledger(tmp_path, keep=1.0)
    fit(model, train, batches(train, 1), torch.optim.SGD(model.parameters(), lr=0.1), ledger)
    total = ledger.reader().total(range(1, ledger.steps + 1))
    assert all(torch.equal((p.double() - total[n]).to(p), first[n]) for n, p in model.named_parameters())
    request = ex.Request(train, ids=train.ids[:1])
    moved = ledger.reader().total(ledger.touched(request).steps)
    after = ex.unlearn(model, request, "amnesiac", ledger=ledger, control=False).model
    assert all(torch.equal((p.double() - moved[n]).to(p), weights(after)[n]) for n, p in model.named_parameters())


def test_a_second_process_of_shares_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    model = net()
    with pytest.raises(ExpungeError, match="works in one process only"):
        ex.Ledger(tmp_path, record="sample").watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
