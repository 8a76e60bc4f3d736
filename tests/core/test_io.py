"""Weights in and out: nothing lost, nothing executed, every mismatch told at once."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import expunge as ex
from expunge import ExpungeError, io
from kit import bits


def model() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))
    net[1](torch.randn(4, 2, 3, 3) + 1)  # running statistics that are not the initial ones
    return net


def other() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))


class Evil:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


# -- round trips -----------------------------------------------------------------------------------------------------


def test_weights_and_buffers_come_back_bit_for_bit(tmp_path):
    saved, loaded = model(), other()
    io.save_weights(tmp_path / "deep" / "m.safetensors", saved, {"method": "finetune"})
    about = io.load_weights(tmp_path / "deep" / "m.safetensors", loaded)
    assert bits(loaded) == bits(saved) != bits(other())
    assert about["method"] == "finetune"
    assert load_file(tmp_path / "deep" / "m.safetensors").keys() == saved.state_dict().keys()  # readable by others


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8])
def test_tensors_of_every_kind_come_back(tmp_path, dtype):
    tensors = {"a": torch.arange(6).view(2, 3).to(dtype), "transposed": torch.arange(6).view(2, 3).to(dtype).T}
    tensors |= {"scalar": torch.tensor(1).to(dtype), "empty": torch.empty(0, dtype=dtype)}
    io.save_tensors(tmp_path / "t.safetensors", tensors, {"x": [1, "é"]})
    back, about = io.read_tensors(tmp_path / "t.safetensors")
    assert all(torch.equal(back[n], t) and back[n].dtype == dtype for n, t in tensors.items())
    assert about == {"x": [1, "é"]}


def test_tied_weights_are_written_for_each_name(tmp_path):
    tied = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    tied["b"].weight = tied["a"].weight
    io.save_weights(tmp_path / "m.safetensors", tied)
    assert set(load_file(tmp_path / "m.safetensors")) == {"a.weight", "a.bias", "b.weight", "b.bias"}


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.bin"])
def test_state_dicts_of_torch_can_be_read(tmp_path, name, wrapper):
    state = model().state_dict()
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 3}, tmp_path / name)
    loaded = other()
    io.load_weights(tmp_path / name, loaded)
    assert bits(loaded) == bits(model())


def test_a_checkpoint_with_two_sets_of_weights_is_refused(tmp_path):
    torch.save({"model": model().state_dict(), "state_dict": other().state_dict()}, tmp_path / "m.pt")
    with pytest.raises(ExpungeError, match="holds weights under state_dict and model; save the ones that are meant"):
        io.load_weights(tmp_path / "m.pt", other())


@pytest.mark.parametrize("name", ["m.pt", "m.bin", "weights"])
def test_safetensors_are_read_whatever_their_name(tmp_path, name):
    one = model()
    io.save_weights(tmp_path / name, one, {"seed": 3})
    two = other()
    assert io.load_weights(tmp_path / name, two)["seed"] == 3
    assert bits(one) == bits(two)


@pytest.mark.parametrize("function", [io.load_weights, io.save_weights])
def test_a_model_in_the_place_of_the_path_is_told(tmp_path, function):
    with pytest.raises(ExpungeError, match="takes a file and then a model; got a Sequential and a str"):
        function(model(), "m.safetensors")
    with pytest.raises(ExpungeError, match="takes a file and then a model; got a PosixPath and a OrderedDict"):
        function(tmp_path / "m.safetensors", model().state_dict())
    assert not list(tmp_path.iterdir())


def test_weights_of_others_have_no_history(tmp_path):
    forgetful = model()
    forgetful._expunge_gone = {"hash": [1, 2]}
    io.save_weights(tmp_path / "ours.safetensors", forgetful)
    save_file(model().state_dict(), tmp_path / "theirs.safetensors")
    loaded = other()
    io.load_weights(tmp_path / "ours.safetensors", loaded)
    assert loaded._expunge_gone == {"hash": [1, 2]}
    io.load_weights(tmp_path / "theirs.safetensors", loaded)
    assert not getattr(loaded, "_expunge_gone", {})


# -- digests ---------------------------------------------------------------------------------------------------------


def test_equal_models_have_equal_digests_and_others_do_not():
    base = io.model_digest(model())
    assert base == io.model_digest(model().state_dict())
    changed = model()
    changed[3].weight.data[0, 0] = float(np.nextafter(changed[3].weight.data[0, 0].numpy(), np.float32(9)))
    buffer = model()
    buffer[1].running_mean += 1
    assert len({base, io.model_digest(changed), io.model_digest(buffer), io.model_digest(other())}) == 4
    assert io.model_digest(model().double()) != base


def test_the_digest_of_a_file_is_blake2b(tmp_path):
    data = np.random.default_rng(0).bytes(3_000_000)
    (tmp_path / "f").write_bytes(data)
    assert io.file_digest(tmp_path / "f") == hashlib.blake2b(data, digest_size=16).hexdigest()


# -- what does not fit -----------------------------------------------------------------------------------------------


def test_all_mismatches_are_told_at_once_and_nothing_is_loaded(tmp_path):
    state = {k: v for k, v in model().state_dict().items() if k != "0.bias"}
    state["3.weight"] = torch.zeros(4, 2)
    state["head.weight"] = torch.zeros(1)
    save_file(state, tmp_path / "m.safetensors")
    target = other()
    with pytest.raises(ExpungeError) as caught:
        io.load_weights(tmp_path / "m.safetensors", target)
    text = str(caught.value)
    assert "lacks 0.bias" in text
    assert "has head.weight" in text
    assert "3.weight has shape (4, 2), the model's has (3, 2)" in text
    assert len(text.splitlines()) == 3
    assert bits(target) == bits(other())


@pytest.mark.parametrize(
    ("prefix", "told"),
    [("module.", "save model.module.state_dict()"), ("_orig_mod.", "save model._orig_mod.state_dict()")],
)
def test_weights_of_a_wrapped_model_are_recognised(tmp_path, prefix, told):
    save_file({f"{prefix}{k}": v for k, v in model().state_dict().items()}, tmp_path / "m.safetensors")
    target = other()
    with pytest.raises(ExpungeError) as caught:
        io.load_weights(tmp_path / "m.safetensors", target)
    assert f"all names begin with '{prefix}'" in str(caught.value)
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert bits(target) == bits(other())


def test_a_model_whose_own_names_begin_so_is_read(tmp_path):
    wrapped, target = nn.DataParallel(model()), nn.DataParallel(model())
    target.load_state_dict({k: torch.zeros_like(v) for k, v in target.state_dict().items()})
    save_file(wrapped.state_dict(), tmp_path / "m.safetensors")
    io.load_weights(tmp_path / "m.safetensors", target)
    assert bits(target) == bits(wrapped)


@pytest.mark.parametrize("content", [{"a": 1}, [torch.zeros(1)], torch.zeros(2), {"model": {"a": "text"}}])
def test_a_file_without_tensors_by_name_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(ExpungeError, match="no dictionary of tensors"):
        io.read_tensors(tmp_path / "m.pt")


# -- nothing is executed ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.bin", "m.ckpt", "m.safetensors", "m.SAFETENSORS", "m"])
@pytest.mark.parametrize("how", ["pickle", "torch", "old torch", "in a state dict"])
def test_a_pickle_is_never_executed_whatever_its_name(tmp_path, name, how):
    target, path = tmp_path / "written", tmp_path / name
    evil = Evil(target)
    if how == "pickle":
        path.write_bytes(pickle.dumps(evil))
    elif how == "in a state dict":
        torch.save({**model().state_dict(), "extra": evil}, path)
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(ExpungeError):
        io.load_weights(path, other())
    assert not target.exists()


def test_the_pickle_of_that_test_does_write_when_it_is_trusted(tmp_path):
    """The control."""
    torch.save(Evil(tmp_path / "written"), tmp_path / "m.pt")
    torch.load(tmp_path / "m.pt", weights_only=False)
    assert (tmp_path / "written").exists()


def test_a_whole_module_is_refused_with_advice_how_to_convert_it(tmp_path):
    torch.save(model(), tmp_path / "m.pt")
    with pytest.raises(ExpungeError, match=r"safetensors\.torch\.save_file\(model\.state_dict\(\)"):
        io.load_weights(tmp_path / "m.pt", other())


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt"])
@pytest.mark.parametrize("damage", ["empty", "cut", "header", "noise"])
def test_damaged_files_are_errors_of_ours(tmp_path, name, damage):
    path = tmp_path / name
    if name.endswith("pt"):
        torch.save(model().state_dict(), path)
    else:
        io.save_weights(path, model())
    data = path.read_bytes()
    damaged = {
        "empty": b"",
        "cut": data[: len(data) // 2],
        "header": b"\xff" * 16 + data[16:],
        "noise": np.random.default_rng(0).bytes(500),
    }
    path.write_bytes(damaged[damage])
    target = other()
    with pytest.raises(ExpungeError, match=path.name):
        io.load_weights(path, target)
    assert bits(target) == bits(other())


def test_metadata_that_is_not_ours_is_no_problem(tmp_path):
    save_file(model().state_dict(), tmp_path / "m.safetensors", metadata={"format": "pt"})
    assert io.load_weights(tmp_path / "m.safetensors", other()) == {}
    save_file(model().state_dict(), tmp_path / "n.safetensors", metadata={"expunge": "[1"})
    with pytest.raises(ExpungeError, match=r"n\.safetensors"):
        io.load_weights(tmp_path / "n.safetensors", other())


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir()])
def test_a_missing_file_is_named(tmp_path, make):
    path = tmp_path / "m.safetensors"
    make(path)
    with pytest.raises(ExpungeError, match=r"no weights at .*m\.safetensors"):
        io.load_weights(path, other())


# -- plain data and folders ------------------------------------------------------------------------------------------


def test_json_round_trip_and_damage(tmp_path):
    io.write_json(tmp_path / "a.json", {"ä": [1, 2.5, None]})
    assert io.read_json(tmp_path / "a.json") == {"ä": [1, 2.5, None]}
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ExpungeError, match=r"a\.json"):
        io.read_json(tmp_path / "a.json")
    with pytest.raises(ExpungeError, match=r"b\.json"):
        io.read_json(tmp_path / "b.json")


def test_a_number_that_json_has_no_word_for_is_never_written(tmp_path):
    io.write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="JSON"):
        io.write_json(tmp_path / "a.json", float("nan"))
    assert io.read_json(tmp_path / "a.json") == 1


def test_plain_is_what_json_gives_back():
    assert io.plain({4: (1, 2), 3: Path("x")}) == {"4": [1, 2], "3": "x"}


def test_output_folders(tmp_path):
    made = io.output_folder(tmp_path / "a" / "b")
    assert made.is_dir()
    (made / "f").write_text("")
    with pytest.raises(ExpungeError, match="not empty"):
        io.output_folder(made)
    assert io.output_folder(made, force=True) == made
    with pytest.raises(ExpungeError, match="is a file"):
        io.output_folder(made / "f")
    with pytest.raises(ExpungeError, match="cannot be written"):
        io.output_folder(made / "f" / "deeper")


def test_a_result_can_be_saved_and_used(train, mlp, three, tmp_path):
    result = ex.unlearn(mlp, three, "finetune", epochs=1)
    io.save_weights(tmp_path / "m.safetensors", result.model)
    io.load_weights(tmp_path / "m.safetensors", mlp)
    assert bits(mlp) == bits(result.model)
