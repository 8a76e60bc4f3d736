"""Names, fields and what `build` refuses."""

import inspect
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from expunge import models
from expunge.errors import ExpungeError, Problems, UnknownName
from expunge.models.table import TABLE

EXPECTED = [
    "alexnet",
    "allcnn",
    "convnet",
    "lenet",
    "mlp",
    "mobilenet_v2",
    "resnet18",
    "resnet9",
    "vgg11_bn",
    "vgg16_bn",
    "vit_tiny",
]


def test_names_are_those_of_the_papers():
    assert models.names() == EXPECTED
    assert all(models.source(name) for name in EXPECTED)


def test_listing_and_checking_do_not_import_torch():
    code = (
        "import sys, expunge.models as m\n"
        "for n in m.names(): m.fields(n); m.source(n); m.check(n)\n"
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", EXPECTED)
def test_table_has_the_defaults_of_the_code(name):
    module, made_by = TABLE[name].made_by.split(":")
    parameters = inspect.signature(getattr(import_module(module), made_by)).parameters
    of_all = {"channels", "size", "classes"}
    assert of_all <= set(parameters)
    assert models.fields(name) == {k: p.default for k, p in parameters.items() if k not in of_all}


def test_fields_are_a_copy():
    models.fields("resnet9")["width"] = 1
    assert models.fields("resnet9")["width"] == 64


def test_check_fills_in_and_converts():
    assert models.check("mlp", hidden=[np.int64(7), 5]) == {"hidden": (7, 5)}
    assert models.check("resnet9", width=16, size=np.int64(8)) == {
        "width": 16,
        "norm": "batch",
        "scale": 0.125,
    }


@pytest.mark.parametrize("call", [models.build, models.check, models.fields, models.source])
def test_unknown_name_offers_the_nearest(call):
    with pytest.raises(UnknownName, match=r"Unknown model 'resnet_18'\. Did you mean 'resnet18'"):
        call("resnet_18")


def test_unhashable_name_is_our_error():
    with pytest.raises(UnknownName, match="Unknown model"):
        models.build(["lenet"])


def test_unknown_field_offers_the_nearest_and_lists_all():
    with pytest.raises(ExpungeError) as e:
        models.build("resnet9", widht=16)
    assert "Unknown field of resnet9 'widht'. Did you mean 'width'?" in str(e.value)
    assert "norm, scale, width" in str(e.value)


def test_unknown_field_of_a_model_without_fields():
    with pytest.raises(ExpungeError, match="none beyond channels, size and classes"):
        models.build("lenet", width=3)


def test_everything_wrong_is_told_at_once():
    with pytest.raises(Problems) as e:
        models.build("vit_tiny", channels=0, size=30, classes=1, depht=2, heads=0)
    told = e.value.problems
    assert len(told) == 5
    for word, problem in zip(("channels", "classes", "depht", "heads", "30 is not a multiple of 4"), told):
        assert word in problem


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("resnet9", "width", 0),
        ("resnet9", "width", 16.0),
        ("resnet9", "width", True),
        ("resnet9", "width", "16"),
        ("resnet9", "norm", "layer"),
        ("resnet9", "norm", ["batch"]),
        ("resnet9", "scale", 0),
        ("resnet9", "scale", float("inf")),
        ("resnet9", "scale", float("nan")),
        ("mlp", "hidden", 128),
        ("mlp", "hidden", [128, 0]),
        ("alexnet", "dropout", 1.0),
        ("alexnet", "dropout", -0.1),
        ("allcnn", "batch_norm", 1),
        ("vit_tiny", "patch", 0),
    ],
)
def test_values_out_of_range_are_refused_with_what_was_found(name, field, value):
    with pytest.raises(Problems, match=f"{name}: {field} must be .*not ") as e:
        models.build(name, **{field: value})
    assert repr(value) in str(e.value)


@pytest.mark.parametrize(("key", "value"), [("classes", 1), ("classes", 2.0), ("channels", 0), ("size", -1)])
def test_shape_arguments_are_checked(key, value):
    with pytest.raises(Problems, match=f"lenet: {key} must be a whole number"):
        models.build("lenet", **{key: value})


def test_too_small_says_the_smallest_and_what_fits():
    with pytest.raises(Problems) as e:
        models.build("lenet", channels=1, size=8)
    told = str(e.value)
    assert "at least 12x12" in told
    fitting = told.split("that fits: ")[1].rstrip(".").split(", ")
    assert fitting == ["convnet", "mlp", "mobilenet_v2", "resnet18", "resnet9", "vit_tiny"]


def test_smallest_depends_on_fields():
    with pytest.raises(Problems, match="convnet with these fields needs images of at least 16x16"):
        models.build("convnet", size=8, depth=4)
    with pytest.raises(Problems, match="at least 16x16"):
        models.build("vit_tiny", size=8, patch=16)


def test_patches_must_fit_and_heads_must_divide():
    with pytest.raises(Problems, match=r"patch one of 1, 2, 3, 5, 6, 10, 15, 30") as e:
        models.build("vit_tiny", size=30, dim=10, heads=3)
    assert "dim (10) must be a multiple of heads (3)" in str(e.value)
