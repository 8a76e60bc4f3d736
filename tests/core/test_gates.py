"""Gates: on activations and on weights alike, for every kind of layer, and for nothing that they would get wrong."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import expunge as ex
from expunge import ExpungeError
from expunge.artifact.gates import Gated, choose
from expunge.io import model_digest
from kit import bits


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Convolutions(nn.Module):
    """Groups, strides, dilation, biases and batch norm, on 3x9x9 images."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 12, 3, groups=4, padding=2, dilation=2, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(12, 7)
        self.head = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.fc(self.relu(self.b(self.relu(self.norm(self.a(x))))).mean((2, 3)))))


class Reused(nn.Module):
    """One block for three steps, and two modules that share a weight but not a bias, on 6 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.one, self.two, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = x + self.block(x).tanh()
        return self.head(self.two(self.one(x).tanh()))


class Attending(nn.Module):
    """Queries of one kind, keys of another, values of a third, a mask, and an extra key, on 5 tokens of 6 numbers."""

    def __init__(self, batch_first: bool = True, joint: bool = False) -> None:
        super().__init__()
        widths = {} if joint else {"kdim": 4, "vdim": 2}
        self.attention = nn.MultiheadAttention(6, 2, batch_first=batch_first, add_bias_kv=True, **widths)
        self.joint, self.head = joint, nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        given = (x, x, x) if self.joint else (x, x[..., :4], x[..., 1:3])
        first = self.attention.batch_first
        given = given if first else tuple(t.transpose(0, 1) for t in given)
        mask = torch.ones(5, 5).triu(1).bool()
        y, weights = self.attention(*given, attn_mask=mask)
        assert weights.shape == (len(x), 5, 6)
        return self.head(y.mean(1 if first else 0))


class Words(nn.Module):
    """Tokens: an embedding, an encoder layer of PyTorch, and a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(tokens)).mean(1))


class Windows(nn.Module):
    """Each example is cut into four pieces, which lie along the first axis, as in a Swin transformer."""

    def __init__(self, by_example: bool = True) -> None:
        super().__init__()
        self.by_example, self.fc, self.free, self.head = by_example, nn.Linear(3, 5), nn.Linear(12, 12), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        pieces = self.free(x).view(len(x), 4, 3)
        if self.by_example:
            return self.head(self.fc(pieces.flatten(0, 1)).relu().view(len(x), 4, 5).sum(1))
        return self.head(self.fc(pieces.transpose(0, 1).flatten(0, 1)).relu().view(4, len(x), 5).sum(0))


MODELS = {
    "convolutions": (Convolutions, draw(6, 3, 9, 9), 4),
    "lenet": (lambda: ex.models.build("lenet", channels=1, size=12, classes=10), draw(6, 1, 12, 12), 10),
    "resnet9": (lambda: ex.models.build("resnet9", channels=1, size=8, classes=5, width=4), draw(6, 1, 8, 8), 5),
    "vit_tiny": (
        lambda: ex.models.build("vit_tiny", channels=1, size=8, classes=5, dim=12, depth=2, heads=3),
        draw(6, 1, 8, 8),
        5,
    ),
    "reused": (Reused, draw(6, 6), 3),
    "attention": (Attending, draw(6, 5, 6), 3),
    "attention, tokens first": (lambda: Attending(batch_first=False), draw(6, 5, 6), 3),
    "attention, joint": (lambda: Attending(joint=True), draw(6, 5, 6), 3),
    "attention, joint, tokens first": (lambda: Attending(batch_first=False, joint=True), draw(6, 5, 6), 3),
    "tokens": (Words, torch.randint(11, (6, 5), generator=torch.Generator().manual_seed(0)), 3),
    "windows": (Windows, draw(6, 12), 2),
}


def seeded(name: str) -> tuple[nn.Module, Tensor, int]:
    make, x, classes = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):  # statistics that are not those of a fresh model
                m.running_mean.normal_()
                m.running_var.uniform_(0.5, 2)
            if isinstance(m, nn.MultiheadAttention):
                m.in_proj_bias.data.normal_()  # PyTorch's are zero
                m.out_proj.bias.data.normal_()
    return model.eval(), x, classes


def gated(name: str, **more) -> tuple[Gated, Tensor, nn.Module]:
    """Random gates, some of which are 0, on a copy; the inputs, and the model."""
    model, x, classes = seeded(name)
    mine = copy.deepcopy(model)
    made = Gated(mine, choose(mine, x[:2], classes)[0], [(0,), (1,), (2,)][:classes], **more)
    with torch.no_grad():
        made.free.copy_(2 * draw(*made.free.shape, seed=1))
        made.free[draw(*made.free.shape, seed=2) > 1] = -200.0
    return made, x, model


def by_hand(model: nn.Module, made: Gated, gates_U: Tensor) -> nn.Module:
    """A copy with its weights multiplied, found by name."""
    out = copy.deepcopy(model)
    for layer, gates_K in made.split(gates_U.detach()).items():
        name, _, part = layer.name.partition("[")
        weight = out.get_parameter(name).data
        start = "qkv".index(part[0]) * len(gates_K) if part else 0
        mine = weight.numpy()[start : start + len(gates_K)]
        mine *= gates_K.numpy().reshape(-1, *[1] * (mine.ndim - 1))
    return out


# -- the same on activations and on weights ------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_one_batch_of_mixed_rows_is_each_example_under_its_own_weights(name):
    made, x, model = gated(name)
    rows = torch.arange(len(x)) % (len(made.sets) + 1) - 1  # among them -1, no gates
    with torch.no_grad():
        mixed = made(x, rows)
        for i, row in enumerate(rows.tolist()):
            alone = model if row < 0 else by_hand(model, made, made.gates()[row])
            torch.testing.assert_close(mixed[i], alone(x[i : i + 1])[0], rtol=1e-4, atol=1e-5)
        assert (mixed - model(x))[rows >= 0].abs().amax(1).min() > 1e-4  # gates do something


@pytest.mark.parametrize("name", MODELS)
def test_a_folded_copy_is_the_gated_model(name):
    made, x, model = gated(name)
    for classes in ([0], [1], [0, 1]):
        out = made.forgetting(classes)
        assert type(out) is type(model)
        assert out.state_dict().keys() == model.state_dict().keys()
        expected = by_hand(model, made, made.row(classes))
        assert all(torch.equal(p, q) for p, q in zip(out.parameters(), expected.parameters()))
        assert all(torch.equal(p, q) for p, q in zip(out.buffers(), model.buffers()))
        rows = torch.tensor([classes] * len(x))
        torch.testing.assert_close(out(x), made(x, rows), rtol=1e-4, atol=1e-5)
    made.check(x[:2], torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MODELS)
def test_open_gates_leave_every_bit(name):
    made, x, model = gated(name)
    with torch.no_grad():
        plain = model(x)
        want = made.frozen(x)  # PyTorch's attention sums in another order where weights are to have gradients
        none = made(x, torch.full((len(x),), -1))
        made.free.fill_(200.0)
        whole = made(x, torch.zeros(len(x), dtype=torch.long))
    torch.testing.assert_close(want, plain, rtol=1e-4, atol=1e-5)
    assert torch.equal(none, want)
    assert "attention" in name or torch.equal(none, plain)
    if name == "tokens":  # hooks turn off the encoder's fast path, whose sums have another order
        torch.testing.assert_close(whole, want, rtol=1e-4, atol=1e-5)
    else:
        assert torch.equal(whole, want)
    assert bits(made.forgetting([0])) == bits(model)


def test_the_model_without_gates_keeps_its_bits_beside_rows_that_are_gated():
    made, x, _ = gated("attention, joint")
    with torch.no_grad():
        out, want = made(x, torch.tensor([-1, 0, -1, 1, 2, -1])), made.frozen(x)
    same = (out == want).all(1)
    assert same.tolist() == [True, False, True, False, False, True]


def test_only_the_rows_of_a_batch_get_gradients_and_no_weight_does():
    made, x, model = gated("resnet9")
    made.train()
    assert [n for n, p in made.named_parameters() if p.requires_grad] == ["free"]
    made(x, torch.tensor([0, 2, 0, 2, -1, 0])).square().sum().backward()
    assert made.free.grad[1].count_nonzero() == 0
    assert all(made.free.grad[r].count_nonzero() > made.free.shape[1] // 3 for r in (0, 2))
    assert all(p.grad is None for p in made.frozen.parameters())
    assert model_digest(made.frozen) == model_digest(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in made.frozen.modules())


def test_modes_and_flags_of_the_model_come_back():
    model, x, _ = seeded("convolutions")
    layers, _ = choose(model, x[:2], 4)
    model.train()
    model.norm.eval()
    model.a.bias.requires_grad_(False)
    modes, flags = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    made = Gated(model, layers, [(0,)])
    assert not any(m.training for m in made.train().frozen.modules())
    out = made.forgetting([0])
    assert [m.training for m in out.modules()] == modes
    assert [p.requires_grad for p in out.parameters()] == flags


@pytest.mark.parametrize("kind", ["vit", "swin"])
def test_models_of_transformers(kind):
    transformers = pytest.importorskip("transformers", reason="the models of transformers need it installed")
    shape = {"image_size": 16, "patch_size": 2, "num_channels": 1, "num_labels": 5}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "vit":
            size = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
            model = transformers.ViTForImageClassification(transformers.ViTConfig(**size, **shape)).eval()
        else:
            size = {"embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 2}
            model = transformers.SwinForImageClassification(transformers.SwinConfig(**size, **shape)).eval()
    x = draw(5, 1, 16, 16)
    mine = copy.deepcopy(model)
    layers, _ = choose(mine, x[:2], 5)
    assert len(layers) >= 12
    assert not any(word in layer.name for layer in layers for word in ("classifier", "patch_embeddings"))
    made = Gated(mine, layers, [(0,), (1,)])
    with torch.no_grad():
        made.free.copy_(2 * draw(*made.free.shape, seed=1))
        mixed = made(x, torch.tensor([0, 1, -1, 1, 0])).logits
        for i, row in enumerate([0, 1, -1, 1, 0]):
            alone = model if row < 0 else by_hand(model, made, made.gates()[row])
            torch.testing.assert_close(mixed[i], alone(x[i : i + 1]).logits[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(made.forgetting([1])(x[1:2]).logits, mixed[1:2], rtol=1e-4, atol=1e-5)
    made.check(x[:2], torch.Generator().manual_seed(0))


# -- which units ---------------------------------------------------------------------------------------------------


def names(name: str, **more) -> tuple[list[str], list[str]]:
    model, x, classes = seeded(name)
    layers, notes = choose(model, x[:2], classes, **more)
    return [layer.name for layer in layers], notes


def test_head_and_patches_are_left_out_unless_named():
    assert names("convolutions")[0] == ["a.weight", "b.weight", "fc.weight"]
    inside = [f"blocks.{i}.{part}.weight" for i in (0, 1) for part in ("attention.qkv", "attention.proj", "fc1", "fc2")]
    found, notes = names("vit_tiny")
    assert found == inside
    assert "token (ViT), positions (ViT)" in notes[0]
    assert names("vit_tiny", patterns=["*"])[0] == ["patches.weight", *inside, "head.weight"]
    assert names("vit_tiny", patterns=["blocks.1.fc*", "head"])[0] == [*inside[6:], "head.weight"]


def test_attention_of_pytorch_has_four_parts():
    parts = [f"attention.in_proj_weight[{p}]" for p in "qkv"]
    assert names("attention, joint")[0] == [*parts, "attention.out_proj.weight"]
    found, notes = names("tokens")
    assert len(found) == 6
    assert "embed.weight (Embedding)" in notes[0]


def test_a_weight_that_is_shared_or_used_again_has_one_set_of_gates():
    assert names("reused")[0] == ["block.weight", "one.weight"]


def test_what_is_not_sorted_by_example_is_named_and_left_alone():
    model, x = Windows(by_example=False).eval(), draw(6, 12)
    layers, notes = choose(model, x[:2], 2)
    assert [layer.name for layer in layers] == ["free.weight"]
    assert notes == ["Not gated, as what they return is not sorted by example: fc.weight."]
    assert [layer.name for layer in choose(Windows().eval(), x[:2], 2)[0]] == ["free.weight", "fc.weight"]


def test_a_layer_that_is_not_called_is_named():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model[0].spare = nn.Linear(2, 2)
    _, notes = choose(model.eval(), draw(2, 4), 2)
    assert notes == ["Not gated, as a forward pass does not call them: 0.spare.weight."]


def test_nothing_left_is_an_error_that_says_why():
    with pytest.raises(ExpungeError, match=r"No layer of the model can be gated\. It has none but its head"):
        choose(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval(), draw(2, 4), 3)
    with pytest.raises(ExpungeError, match=r"Unknown layer pattern 'cf\*'.* fc.weight"):
        names("convolutions", patterns=["cf*"])


class Elsewhere(nn.Module):
    """Its weight is used once by its module, and once without."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.linear(self.fc(x).tanh(), self.fc.weight))


def test_a_weight_that_is_used_behind_its_module_is_found_out():
    model, x = Elsewhere().eval(), draw(2, 4)
    made = Gated(model, choose(model, x, 3)[0], [(0,)])
    with pytest.raises(ExpungeError, match="not the same as scaling its weights"):
        made.check(x, torch.Generator().manual_seed(0))


class OfTheBatch(nn.Module):
    """It normalises by the batch at hand, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm = nn.Linear(4, 5), nn.BatchNorm1d(5, track_running_stats=False)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.fc(x).repeat(3, 1)).view(3, -1, 5).mean(0))


def test_a_model_whose_rows_depend_on_each_other_is_told_apart():
    model, x = OfTheBatch().eval(), draw(2, 4)
    made = Gated(model, choose(model, x, 3)[0], [(0,)])
    with pytest.raises(ExpungeError, match=r"depends on the other rows of its batch.*track_running_stats=True"):
        made.check(x, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["convolutions", "attention, joint"])
def test_gates_come_before_what_the_users_own_hooks_do(name):
    model, x, classes = seeded(name)
    which = model.a if name == "convolutions" else model.attention

    def doubled(module, args, out):
        return (2 * out[0], out[1]) if isinstance(out, tuple) else 2 * out

    which.register_forward_hook(doubled)
    made = Gated(model, choose(model, x[:2], classes)[0], [(0,), (1,)])
    with torch.no_grad():
        made.free.copy_(2 * draw(*made.free.shape, seed=1))
        made.check(x[:2], torch.Generator().manual_seed(0))
        mixed = made(x, torch.tensor([0, 1] * 3))
        for row in (0, 1):
            torch.testing.assert_close(mixed[row::2], made.forgetting([row])(x)[row::2], rtol=1e-4, atol=1e-5)
    assert list(which._forward_hooks.values()) == [doubled]


def test_a_layer_that_returns_nan_is_named_though_a_later_one_hides_it():
    class Hiding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.out, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.out(self.fc(x).nan_to_num()))

    model = Hiding().eval()
    model.fc.weight.data[2] = torch.nan
    with pytest.raises(ExpungeError, match=r"What fc returns is NaN or infinite.*damaged"):
        choose(model, draw(2, 4), 3)


# -- rows ----------------------------------------------------------------------------------------------------------


def test_classes_together_take_the_least_of_their_gates():
    made, _, _ = gated("lenet")
    rows = made.gates().detach().numpy()
    assert made.row([0, 2]).numpy().tolist() == rows[[0, 2]].min(0).tolist()
    assert torch.equal(made.row([2, 0]), made.row([0, 2]))
    assert torch.equal(made.row([0, 0]), made.row([0]))
    assert (made.row([0, 1, 2]) <= made.row([0, 2])).all()


def test_a_set_that_was_learned_together_is_used_as_it_is_and_only_together():
    model, x, _ = seeded("lenet")
    made = Gated(model, choose(model, x[:2], 10)[0], [(4, 1)])
    assert torch.equal(made.row([1, 4]), made.gates()[0])
    with pytest.raises(ExpungeError, match=r"gates that forget class 1 and 4; none for \[1\]"):
        made.row([1])
    with pytest.raises(ExpungeError, match="none for no class"):
        made.row([])


def test_hard_gates_are_open_or_shut():
    made, x, model = gated("lenet", hard=True)
    row = made.row([1])
    assert set(row.tolist()) == {0.0, 1.0}
    assert torch.equal(row > 0, made.free[1] >= 0)
    torch.testing.assert_close(made.forgetting([1])(x), by_hand(model, made, row)(x))


def test_closed_has_a_row_for_each_class_that_has_gates():
    made, _, _ = gated("convolutions")
    tables = made.closed(4)
    assert {name: tuple(t.shape) for name, t in tables.items()} == {
        "a.weight": (4, 8),
        "b.weight": (4, 12),
        "fc.weight": (4, 7),
    }
    torch.testing.assert_close(torch.cat(list(tables.values()), 1)[:3], 1 - made.gates().detach())
    assert all(t[3].isnan().all() for t in tables.values())
    for classes in (2, 0):
        with pytest.raises(ExpungeError, match=f"at least 3 for these gates; got {classes}"):
            made.closed(classes)
