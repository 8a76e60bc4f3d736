"""What every architecture does: shapes, copies, gradients, evaluation."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from expunge import models
from expunge.errors import Problems
from expunge.models.table import TABLE, patch_for
from expunge.untrained import untrained

SMALL = {  # fields that keep the tests quick
    "allcnn": {"width": 16, "dropout": 0.0, "input_dropout": 0.0},
    "convnet": {"width": 16},
    "resnet9": {"width": 8},
    "resnet18": {"width": 8},
    "vit_tiny": {"dim": 24, "depth": 2},
}
AT_8 = ["mlp", "convnet", "resnet9", "resnet18", "vit_tiny", "mobilenet_v2"]
VARIANTS = [(name, SMALL.get(name, {})) for name in models.names()] + [
    ("allcnn", {"width": 16, "batch_norm": True}),
    ("alexnet", {"dropout": 0.5}),
    *(("convnet", {"width": 16, "norm": norm}) for norm in ("batch", "group", "none")),
    *(("resnet9", {"width": 8, "norm": norm}) for norm in ("group", "instance", "none")),
]
IDS = ["-".join([name, *(str(v) for v in fields.values())]) for name, fields in VARIANTS]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def make(name, fields=None, **shape):
    torch.manual_seed(0)
    return models.build(name, **shape, **(SMALL.get(name, {}) if fields is None else fields))


def shapes():
    for name in models.names():
        yield name, 3, 32, 10
        yield name, 1, 28, 7
        yield name, 1, 32, 2
        if name in AT_8:
            yield name, 1, 8, 10
            yield name, 3, 8, 10
    for name in set(models.names()) - {"vit_tiny", "vgg16_bn"}:  # any size; vgg16_bn is vgg11_bn, slower
        yield name, 3, 45, 10
        yield name, 2, TABLE[name].smallest(models.fields(name)), 10


@pytest.mark.parametrize(("name", "channels", "size", "classes"), sorted(shapes()))
def test_logits_have_a_row_per_image(name, channels, size, classes):
    model = make(name, channels=channels, size=size, classes=classes)
    x = torch.randn(3, channels, size, size)
    with torch.no_grad():
        logits = model.eval()(x)
        alone = model(x[1:2])
    assert logits.shape == (3, classes)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(alone[0], logits[1], rtol=1e-4, atol=1e-5)  # images do not mix
    assert logits[0].sub(logits[1]).abs().max() > 1e-4  # and they matter


@pytest.mark.parametrize("name", models.names())
def test_one_pixel_below_the_smallest_is_refused(name):
    smallest = TABLE[name].smallest(models.fields(name))
    if smallest > 1:
        with pytest.raises(Problems, match="at least"):
            models.build(name, size=smallest - 1)


@pytest.mark.parametrize("name", models.names())
def test_the_last_layer_is_called_head(name):
    model = make(name, classes=7)
    assert isinstance(model.head, nn.Linear | nn.Conv2d)
    assert model.head.weight.shape[0] == 7
    *_, last = (cell for cell in model.modules() if isinstance(cell, nn.Linear | nn.Conv2d))
    assert last is model.head
    seen = []
    model.head.register_forward_hook(lambda cell, inputs, output: seen.append(output))
    logits = model.eval()(torch.randn(2, 3, 32, 32))
    per_place = seen[0] if seen[0].dim() == 2 else seen[0].mean(dim=(2, 3))
    assert torch.equal(logits, per_place)


@pytest.mark.parametrize("name", models.names())
def test_cells_come_in_the_order_of_computation(name):
    model, order = make(name).eval(), []
    cells = [c for c in model.modules() if isinstance(c, nn.Linear | nn.Conv2d)]
    for cell in cells:
        cell.register_forward_hook(lambda cell, inputs, output: order.append(cell))
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    assert len(order) == len(cells)
    assert all(a is b for a, b in zip(order, cells))


@pytest.mark.parametrize(("name", "fields"), VARIANTS, ids=IDS)
def test_copies_and_states_give_the_same_model(name, fields):
    model = make(name, fields).eval()
    x = torch.randn(2, 3, 32, 32)
    logits = model(x).detach()
    copied = copy.deepcopy(model)
    loaded = models.build(name, **fields).eval()  # other weights: the generator has moved on
    assert not torch.equal(loaded(x), logits)
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(copied(x), logits)
    assert torch.equal(loaded(x), logits)
    with torch.no_grad():
        for p in copied.parameters():
            p.zero_()
    assert torch.equal(model(x), logits)


@pytest.mark.parametrize(("name", "fields"), VARIANTS, ids=IDS)
def test_every_parameter_learns_and_a_step_lowers_the_loss(name, fields):
    model = make(name, fields)
    x, y = torch.randn(8, 3, 32, 32), torch.arange(8)
    model.eval() if "dropout" in fields else model.train()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    for key, p in model.named_parameters():
        assert p.grad is not None, key
        assert torch.isfinite(p.grad).all(), key
        if p.dim() > 1:  # the bias of a convolution that is normalised next cannot matter
            assert p.grad.abs().sum() > 0, key
    length = sum(p.grad.square().sum() for p in model.parameters()).sqrt()
    with torch.no_grad():  # small enough for the first order to rule, whatever the architecture
        for p in model.parameters():
            p -= 1e-2 * p.grad / length
    after = F.cross_entropy(model(x), y)
    assert after < loss - 0.2 * 1e-2 * length


@pytest.mark.parametrize(("name", "fields"), VARIANTS, ids=IDS)
def test_evaluation_is_repeatable_and_leaves_no_trace(name, fields):
    model = make(name, fields).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.randn(4, 3, 32, 32)
    kept = x.clone()
    assert torch.equal(model(x), model(x))
    assert torch.equal(x, kept)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", models.names())
def test_the_same_seed_builds_the_same_weights(name):
    one, two = make(name).state_dict(), make(name).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", models.names())
def test_nothing_writes_over_its_input(name):
    for cell in make(name).modules():
        assert not getattr(cell, "inplace", False)


@pytest.mark.parametrize("name", sorted(set(models.names()) - {"mlp"}))
def test_channels_last_gives_the_same_logits(name):
    model = make(name).eval()
    x = torch.randn(2, 3, 32, 32)
    expected = model(x)
    found = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_dropout_is_where_the_fields_say():
    x = torch.randn(4, 3, 32, 32)
    for name, field in (("allcnn", "dropout"), ("allcnn", "input_dropout"), ("alexnet", "dropout")):
        off = {key: 0.0 for key in models.fields(name) if "dropout" in key}
        still, moving = models.build(name, **off), models.build(name, **{**off, field: 0.5})
        assert torch.equal(still(x), still(x))
        assert not torch.equal(moving(x), moving(x))


def test_resnet9_scale_is_a_factor_on_the_logits():
    x = torch.randn(2, 3, 32, 32)
    one = make("resnet9", {"width": 8, "scale": 1.0}).eval()(x)
    torch.testing.assert_close(make("resnet9", {"width": 8}).eval()(x), one / 8)


@pytest.mark.parametrize(("size", "patch"), [(8, 2), (28, 4), (32, 4), (64, 4), (96, 8), (224, 16)])
def test_default_patches(size, patch):
    assert patch_for(size) == patch
    model = make("vit_tiny", size=size)
    assert model.patches.weight.shape[-2:] == (patch, patch)
    assert model.positions.shape[1] == (size // patch) ** 2 + 1


def test_attention_is_softmax_of_scaled_products():
    attention = make("vit_tiny").blocks[0].attention
    x = torch.randn(2, 5, 24, dtype=torch.float64)
    attention.double()
    q, k, v = attention.qkv(x).chunk(3, dim=-1)
    heads = []
    for part in range(3):
        d = slice(8 * part, 8 * part + 8)
        weights = torch.softmax(q[..., d] @ k[..., d].transpose(1, 2) / 8**0.5, dim=-1)
        heads.append(weights @ v[..., d])
    torch.testing.assert_close(attention(x), attention.proj(torch.cat(heads, dim=-1)))


def test_he_initialisation_keeps_the_scale_of_all_cnn():
    # Without normalisation, nine layers at torch's variance (a sixth of He's) would shrink it a thousandfold.
    with torch.no_grad():
        logits = make("allcnn", {"dropout": 0.0, "input_dropout": 0.0})(torch.randn(16, 3, 32, 32))
    assert 0.2 < logits.square().mean().sqrt() < 5


# -- drawn anew ------------------------------------------------------------------------------------------------------

UNET = ("unet", {"width": 8, "multiples": [1, 2]})


def test_every_architecture_is_compared():
    assert {name for name, _ in (*VARIANTS, UNET)} == set(TABLE)


@pytest.mark.parametrize(("name", "fields"), [*VARIANTS, UNET])
def test_layers_drawn_anew_spread_as_those_of_a_new_network(name, fields):
    """Of n draws the spread is known to about 1/√(2n) of itself: torch's and He's are 2.4 times apart."""
    if name == "unet":
        pytest.importorskip("diffusers")
    torch.manual_seed(0)
    new = models.build(name, channels=3, size=32, classes=10, **fields)
    model = copy.deepcopy(new).requires_grad_(False)
    for tensor in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
        tensor.fill_(7.0)  # as after a training, far away
    again = untrained(model, 1)
    there = dict(again.named_parameters())
    for layer, p in new.named_parameters():
        spread, mean = (float(v) for v in torch.std_mean(there[layer].detach(), correction=0))
        spread_new, mean_new = (float(v) for v in torch.std_mean(p.detach(), correction=0))
        assert (spread == 0) == (spread_new == 0), layer
        assert spread == pytest.approx(spread_new, rel=max(0.02, 5 / p.numel() ** 0.5)), layer
        assert abs(mean - mean_new) <= 5 * (spread**2 + spread_new**2) ** 0.5 / p.numel() ** 0.5, layer
    assert all(torch.equal(b, c) for b, c in zip(again.buffers(), new.buffers()))  # statistics begin again
