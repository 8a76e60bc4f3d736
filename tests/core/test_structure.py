"""Two models of the same weights: the digest of their structure tells what computes something else."""

import copy
import functools
import subprocess
import sys

import pytest
import torch
from torch import nn

import expunge as ex
from expunge.structure import structure_digest


class Net(nn.Module):
    def __init__(self, scale=1.0, act=torch.relu):
        super().__init__()
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        self.scale, self.act = scale, act
        self.settings = {"kinds": {"a", "b", "c"}, "steps": [1, 2]}

    def forward(self, x):
        return self.head(self.act(self.body(x)) * self.scale)


def edited():
    """A class of the same name with another forward, as after an edit of the file."""

    class Base(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

    class Net(Base):
        def forward(self, x):
            return self.head(torch.relu(self.body(x)))

    class Other(Base):
        def forward(self, x):
            return self.head(torch.tanh(self.body(x)))

    Other.__name__, Other.__qualname__ = Net.__name__, Net.__qualname__
    return Net(), Other()


def test_copies_are_the_same_in_either_mode_and_after_use():
    net = Net()
    told = structure_digest(net)
    again = copy.deepcopy(net).train(not net.training)
    again(torch.rand(2, 4)).sum().backward()
    assert structure_digest(again) == told
    assert structure_digest(Net()) == told  # weights are no part of it
    again._expunge_gone, again._expunge_ledger = {"rows": [1, 2]}, "somewhere"
    assert structure_digest(again) == told  # nor is what expunge notes on a model


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net, "scale", 2.0),
        lambda net: setattr(net, "scale", torch.tensor(2.0, dtype=torch.bfloat16)),
        lambda net: setattr(net, "act", torch.tanh),
        lambda net: setattr(net, "act", functools.partial(nn.functional.leaky_relu, negative_slope=0.2)),
        lambda net: net.settings["steps"].append(3),
        lambda net: setattr(net.head, "forward", lambda x: x),
        lambda net: net.body.register_forward_pre_hook(lambda module, args: (args[0] + 1,)),
        lambda net: net.body.register_forward_hook(lambda module, args, out: 2 * out),
        lambda net: setattr(net, "body", nn.utils.parametrizations.weight_norm(net.body)),
    ],
)
def test_what_changes_the_answers_changes_the_digest(change):
    net, changed = Net(), Net()
    change(changed)
    assert structure_digest(net) != structure_digest(changed)


def test_hooks_that_differ_in_their_code_or_in_what_they_close_over():
    nets = [Net(), Net(), Net()]
    for net, factor in zip(nets, (2, 3, 2)):
        net.body.register_forward_hook(lambda module, args, out, factor=factor: factor * out)
    told = [structure_digest(net) for net in nets]
    assert told[0] == told[2] != told[1]


def doubled(forward):
    @functools.wraps(forward)
    def wrapped(self, x):
        return 2 * forward(self, x)

    return wrapped


def one_of(kind, **members):
    """A class of the same name with other members, as after an edit of the file."""
    return type("Net", (Net,), {"__module__": kind, "__qualname__": "Net", **members})()


def plus(n):
    def forward(self, x, *, more=n):
        return Net.forward(self, x) + more

    return forward


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ({"factor": 0.5}, {"factor": 0.6}),
        ({"factors": (1, {"a": torch.ones(2)})}, {"factors": (1, {"a": torch.zeros(2)})}),
        ({"forward": doubled(lambda self, x: x + 1)}, {"forward": doubled(lambda self, x: x - 1)}),
        ({"forward": plus(1)}, {"forward": plus(2)}),
        ({"act": staticmethod(torch.relu)}, {"act": staticmethod(torch.tanh)}),
    ],
)
def test_what_a_class_holds_is_told(here, there):
    assert structure_digest(one_of("a", **here)) != structure_digest(one_of("a", **there))
    assert structure_digest(one_of("a", **here)) == structure_digest(one_of("a", **here))


def test_a_class_that_holds_itself_ends():
    net = Net()
    Net.kind = Net
    try:
        assert structure_digest(net) == structure_digest(copy.deepcopy(net))
    finally:
        del Net.kind


def test_an_edited_forward_is_told():
    net, other = edited()
    assert (str(net), str(type(net))) == (str(other), str(type(other)))
    assert structure_digest(net) != structure_digest(other)


def test_it_is_the_same_in_another_process():
    code = (
        "import expunge as ex; from expunge.structure import structure_digest; "
        "print(*(structure_digest(ex.models.build(n, channels=1, size=28, classes=10)) for n in ('vit_tiny', 'unet')))"
    )
    here = [structure_digest(ex.models.build(n, channels=1, size=28, classes=10)) for n in ("vit_tiny", "unet")]
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert there == here


@pytest.mark.parametrize("method", ["svd_forget", "weight_filter"])
def test_what_is_kept_for_one_is_not_handed_out_for_another(method, tmp_path, monkeypatch):
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path))
    torch.manual_seed(0)
    x = torch.randn(90, 4)
    rows = ex.data.Rows(x, torch.arange(90) % 3, name="made up")
    request = ex.Request(rows, classes=[0])
    net = Net()
    ex.unlearn(net, request, method)
    other = copy.deepcopy(net)
    other.act = torch.tanh
    kept = ex.unlearn(other, request, method)
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "empty"))
    fresh = ex.unlearn(other, request, method)
    for a, b in zip(kept.model.parameters(), fresh.model.parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert kept.log.examples == fresh.log.examples


def test_scores_of_saliency_are_not_handed_out_for_another(tmp_path, monkeypatch):
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path))
    train, _ = ex.data.load("digits", limit=100)
    request = ex.Request(train, classes=[3])
    a, b = (ex.models.build("resnet9", channels=1, size=8, classes=10, width=4, scale=scale) for scale in (0.125, 1.0))
    b.load_state_dict(a.state_dict())
    ex.saliency(a, request)
    for kept, fresh in zip(ex.saliency(b, request).values(), ex.saliency(b, request, cache=False).values()):
        torch.testing.assert_close(kept, fresh, rtol=0, atol=0)
