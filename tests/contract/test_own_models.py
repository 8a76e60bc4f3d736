"""Networks as people write them, through every method: views, modules of two names, buffers that count, and more."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from settings import FIELDS
from torch import Tensor, nn

import expunge as ex
from expunge import ExpungeError, Rows, registry
from expunge.outputs import outputs
from kit import bits

ASK_FOR_MORE = {"amnesiac", "partial_amnesiac", "chain", "search"}  # a ledger, other methods
NAMES = sorted(set(registry.names()) - ASK_FOR_MORE)
TASK = ex.Classification(classes=10)


class Plain(nn.Module):
    """Two convolutions and a head; others differ from it in one thing each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.pool = nn.Conv2d(8, 16, 3), nn.MaxPool2d(2)
        self.head = nn.Linear(16 * 9, 10)

    def maps(self, x: Tensor) -> Tensor:
        return self.pool(self.conv2(self.norm(self.conv1(x)).relu()))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maps(x).flatten(1))


class Views(Plain):
    """A view of maps that lie channels last is refused by PyTorch."""

    def forward(self, x: Tensor) -> Tensor:
        maps = self.maps(x)
        return self.head(maps.view(maps.size(0), -1))


class Strides(Plain):
    """Counts on the usual order without being refused in another."""

    def forward(self, x: Tensor) -> Tensor:
        maps = self.maps(x)
        return self.head(maps.as_strided((len(maps), 16 * 9), (16 * 9, 1)))


class TwoNames(Plain):
    """Modules by name, and in a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(self.conv1, self.norm, nn.ReLU(), self.conv2, self.pool, nn.Flatten(), self.head)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Counts(Plain):
    """Observes in evaluation too, as what prepares quantisation does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("mean", torch.zeros(10))

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        self.calls += 1
        self.mean.mul_(0.9).add_(0.1 * out.detach().mean(0))
        return out


class Silent(Plain):
    """`train` returns nothing."""

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)
        self.norm.eval()


class Shapes(Plain):
    """Weights of no, four and five dimensions that are no convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.filter = nn.Parameter(torch.randn(3, 3, 8, 2) * 0.1)
        self.mix = nn.Parameter(torch.randn(1, 2, 3, 10, 10) * 0.1)

    def reset_parameters(self) -> None:
        for p in (self.filter, self.mix):
            nn.init.normal_(p, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x) * self.scale
        return out @ self.mix.sum((0, 1, 2)) + torch.view_as_complex(self.filter).real.sum()


KINDS = {kind.__name__: kind for kind in (Views, Strides, TwoNames, Counts, Silent, Shapes)}


def make(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(2)
    return kind()


@pytest.fixture(scope="module")
def colour(train: Rows) -> Rows:
    x = train.x(torch.arange(200)).expand(-1, 3, -1, -1)
    return Rows(x * torch.tensor([1.0, 0.8, 0.5])[:, None, None], train.y[:200], classes=train.classes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_method_takes_it_and_leaves_it_alone(kind: str, name: str, colour: Rows) -> None:
    if name == "boundary_expand" and kind in ("Counts", "Shapes"):
        pytest.skip("what follows the last layer knows the number of its outputs")
    model, of_class = make(KINDS[kind]), "class" in registry.get(name).card.scope
    request = ex.Request(colour, classes=[3]) if of_class else ex.Request(colour, random=20)
    before = bits(model)
    fields = {**FIELDS.get(name, {}), **({"epochs": 1} if "epochs" in registry.get(name).__dataclass_fields__ else {})}
    recipe = ex.Recipe(model=lambda rows: make(KINDS[kind]), epochs=1)
    done = ex.unlearn(model, request, name, seed=1, recipe=recipe, **fields)
    assert bits(model) == before
    assert {type(p) for p in done.model.parameters()} == {nn.Parameter}
    again = copy.deepcopy(done.model)
    assert bits(again) == bits(done.model)
    torch.testing.assert_close(outputs(again, TASK, colour), outputs(done.model, TASK, colour), equal_nan=True)


def test_an_audit_leaves_buffers_that_observe_as_they_are(colour: Rows, train: Rows) -> None:
    model, request = make(Counts), ex.Request(colour, classes=[3])
    before, unseen = bits(model), Rows(train.x(torch.arange(300, 400)).expand(-1, 3, -1, -1), train.y[300:400])
    recipe = ex.Recipe(model=lambda rows: make(Counts), epochs=1)
    ex.audit({"original": model}, request, unseen=unseen, recipe=recipe, seeds=2, relearn=False, cache=False)
    assert bits(model) == before


@pytest.mark.parametrize("name", ["finetune", "svd_forget", "scrub", "ssd"])
def test_a_model_that_cannot_be_copied_is_refused_in_words(name: str, colour: Rows) -> None:
    model = make(Plain)
    model.lock = threading.Lock()
    with pytest.raises(ExpungeError, match=r"Plain cannot be copied \(TypeError: .*lock.*__deepcopy__"):
        ex.unlearn(model, ex.Request(colour, classes=[3]), name)


class Text(nn.Module):
    """PyTorch's own transformer, with a mask for what is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 16)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.table(x), src_key_padding_mask=x == 0)[:, 0])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", ["finetune", "svd_forget", "weight_filter", "salun", "scrub", "bad_teacher", "ssd"])
def test_a_transformer_with_a_mask(name: str) -> None:
    torch.manual_seed(0)
    x, y = torch.randint(1, 30, (90, 12)), torch.arange(90) % 3
    x[:, 9:] *= torch.randint(0, 2, (90, 3))
    model, fast = make(Text), torch.backends.mha.get_fastpath_enabled()
    done = ex.unlearn(model, ex.Request((x, y), classes=[1]), name, **({"epochs": 1} if name == "finetune" else {}))
    assert torch.backends.mha.get_fastpath_enabled() is fast
    assert type(done.model.eval()(x)) is Tensor
