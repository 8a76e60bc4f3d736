"""Records: what goes in comes out, in as few bytes as promised, and a damaged one is an error of ours."""

from __future__ import annotations

import math
import zlib
from fractions import Fraction

import numpy as np
import pytest
import torch

from expunge.artifact.ledger import indices, planes, shards
from expunge.artifact.ledger.codec import CODECS, Part, decode, encode, rounded
from expunge.errors import ExpungeError, UnknownName
from expunge.largest import largest

LENET = [150, 6, 2400, 16, 48000, 120, 10080, 84, 840, 10]
WIDTH = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}


def part(rng: np.random.Generator, n: int, k: int | None, codec: str = "float32") -> Part:
    """k of n entries at random; none: all."""
    values = rng.standard_normal(n if k is None else k) * np.exp(rng.standard_normal(n if k is None else k))
    positions = None if k is None else np.sort(rng.choice(n, k, replace=False))
    return Part(n, positions, values.astype(np.float64 if codec == "float64" else np.float32))


def same(found: list[Part], given: list[Part], codec: str) -> None:
    assert len(found) == len(given)
    for a, b in zip(found, given):
        assert a.size == b.size
        assert a.values.dtype == (np.float64 if codec == "float64" else np.float32)
        assert a.values.tobytes() == rounded(b.values, codec).tobytes()
        everything = b.positions is None or len(b.positions) == b.size
        if everything:
            assert a.positions is None
        else:
            assert a.positions.dtype == np.int64
            np.testing.assert_array_equal(a.positions, b.positions)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("seed", range(8))
def test_what_goes_in_comes_out(codec, seed):
    """Tensors of all sizes and densities in one record: single entries, all, none, and everything between."""
    rng = np.random.default_rng(seed)
    given = []
    for _ in range(rng.integers(1, 30)):
        n = int(2 ** rng.uniform(0, 14))
        k = [None, 0, 1, n, max(1, n - 1), int(rng.integers(0, n + 1)), max(1, n // 100)][rng.integers(7)]
        given.append(part(rng, n, k, codec))
    same(decode(encode(given, codec)), given, codec)
    sizes = [p.size for p in given]
    same(decode(encode(given, codec, with_sizes=False), sizes), given, codec)


@pytest.mark.parametrize("codec", CODECS)
def test_records_of_one_share_and_of_several(codec):
    rng = np.random.default_rng(0)
    for keep in (0.001, 0.01, 0.1, 0.5, 1):
        even = [part(rng, n, max(1, round(keep * n)), codec) for n in LENET]
        same(decode(encode(even, codec)), even, codec)
    uneven = [part(rng, n, k, codec) for n, k in zip(LENET, [150, 1, 7, None, 40, 60, 9000, 0, 2, 9])]
    same(decode(encode(uneven, codec)), uneven, codec)


@pytest.mark.parametrize(
    ("n", "positions"),
    [
        (1, [0]),
        (2, [1]),
        (indices.LARGEST, [0]),
        (indices.LARGEST, [indices.LARGEST - 1]),
        (indices.LARGEST, [0, 1, 2, 3, indices.LARGEST // 2, indices.LARGEST - 1]),
        (1000, [*range(500)]),
        (1000, [*range(500, 1000)]),
        (1000, [*range(1, 1000)]),
        (1000, [*range(0, 1000, 3)]),
    ],
)
def test_positions_far_apart_and_side_by_side(n, positions):
    given = [Part(n, np.array(positions), np.arange(len(positions), dtype=np.float32))]
    same(decode(encode(given, "float32")), given, "float32")


def test_zlib_and_its_faster_stand_in_read_alike(monkeypatch):
    """Also what is damaged: the same bytes are read or refused by both."""
    isal_zlib = pytest.importorskip("isal.isal_zlib")
    assert planes.faster is shards.faster is isal_zlib
    rng = np.random.default_rng(5)
    update = rng.standard_normal(5_000).astype(np.float32) / 64
    payload = encode([Part(5_000, None, update)], "float32")
    records = [payload]
    for at in rng.integers(0, len(payload), 60):
        records.append(payload[:at] + bytes([payload[at] ^ 1 << int(rng.integers(8))]) + payload[at + 1 :])
    records += [payload[:-1], payload[: len(payload) // 2], payload + b"\0"]
    found = []
    for library in (zlib, isal_zlib):
        monkeypatch.setattr(planes, "faster", library)
        for record in records:
            try:
                found.append(decode(record)[0].values.tobytes())
            except ExpungeError:
                found.append(b"refused")
    half = len(records)
    assert found[:half] == found[half:]
    assert found[0] == update.tobytes()
    assert b"refused" in found


def test_empty_records_and_tensors():
    assert decode(encode([], "float32")) == []
    nothing = np.zeros(0, np.float32)
    found = decode(encode([Part(0, None, nothing), Part(5, np.zeros(0, np.int64), nothing)], "bfloat16"))
    assert [p.size for p in found] == [0, 5]
    assert len(found[1].positions) == len(found[1].values) == 0


def test_strange_values_survive():
    values = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 3.4e38], np.float32)
    (found,) = decode(encode([Part(7, None, values)], "float32"))
    assert found.values.tobytes() == values.tobytes()
    for codec in ("float16", "bfloat16"):
        read = rounded(values[:6], codec)
        np.testing.assert_array_equal(read, [0, -0.0, np.inf, -np.inf, np.nan, 0])
        assert np.signbit(read[1])


@pytest.mark.parametrize("codec", ["float16", "bfloat16"])
def test_rounded_to_the_nearest_and_ties_to_even(codec):
    """Against exact fractions: among the codec's neighbours of a value, the nearest, and of two the even one."""
    rng = np.random.default_rng(1)
    x = (rng.standard_normal(300) * np.exp2(rng.uniform(-24, 10, 300))).astype(np.float32)
    bits, low, smallest = (10, -14, -24) if codec == "float16" else (7, -126, -133)
    ties = np.array([(2 * i + 1) * 2.0 ** (-bits - 1) + 1 for i in range(20)] + [0.5 * 2.0**smallest], np.float32)
    for value, found in zip([*x, *ties], [*rounded(x, codec), *rounded(ties, codec)]):
        step = Fraction(2) ** (max(math.frexp(abs(float(value)))[1] - 1, low) - bits)
        scaled = Fraction(float(value)) / step
        assert Fraction(float(found)) == round(scaled) * step, (value, found)  # round() of a fraction: half to even


@pytest.mark.parametrize("codec", CODECS)
def test_rounding_twice_is_rounding_once_and_is_torch_s(codec):
    x = part(np.random.default_rng(2), 5000, None, codec).values
    once = rounded(x, codec)
    assert rounded(once, codec).tobytes() == once.tobytes()
    assert once.tobytes() == torch.from_numpy(x).to(CODECS[codec]).to(torch.from_numpy(x).dtype).numpy().tobytes()


@pytest.mark.parametrize(
    ("codec", "value"), [("float16", 65520.0), ("float16", -1e30), ("bfloat16", 3.4e38), ("float32", 1e39)]
)
def test_a_value_out_of_range_is_refused_and_never_becomes_infinite(codec, value):
    x = np.array([1.0, value])
    x = x if codec == "float32" else x.astype(np.float32)
    for call in (lambda: rounded(x, codec), lambda: encode([Part(2, None, x)], codec)):
        with pytest.raises(ExpungeError, match=rf"beyond the range of {codec}.*Store float32"):
            call()
    assert np.isfinite(rounded(np.array([65519.0], np.float32), "float16")).all()


def test_bad_input_is_refused():
    one = np.ones(1, np.float32)
    two = np.ones(2, np.float32)
    with pytest.raises(UnknownName, match="float8"):
        encode([Part(1, None, one)], "float8")
    for positions in ([1, 0], [1, 1], [0, 9], [-1, 2]):
        with pytest.raises(ExpungeError, match="rise strictly"):
            encode([Part(8, np.array([0]), one), Part(9, np.array(positions), two)], "float32")
    for size, positions, values in ((3, None, two), (3, np.array([0]), two), (1, np.array([0, 1]), two)):
        with pytest.raises(ExpungeError, match="expected"):
            encode([Part(size, positions, values)], "float32")
    with pytest.raises(ExpungeError, match="in order"):
        encode([Part(2, np.array([1, 0]), two)], "float32")


def test_the_sizes_come_from_the_record_or_from_the_reader():
    given = [part(np.random.default_rng(0), n, max(1, n // 50)) for n in LENET]
    known, told = encode(given, "float32", with_sizes=False), encode(given, "float32")
    assert len(told) - len(known) == 16  # 1 byte below 128, 2 below 16,384, else 3
    same(decode(told, LENET), given, "float32")
    for payload, sizes in ((known, None), (known, LENET[:-1]), (told, [*LENET[:-1], 11])):
        with pytest.raises(ExpungeError, match="sizes"):
            decode(payload, sizes)


def formula(n: int, k: int, width: int) -> float:
    """The shortest of a dense tensor, a bitmap, and 16 bit gaps (spec_amnesiac, check 10)."""
    return min(n * width, n / 8 + k * width, 2 * k + k * width)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("keep", [0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1])
def test_not_longer_than_the_formulas_even_where_values_are_noise(codec, keep):
    rng = np.random.default_rng(3)
    given = [part(rng, n, max(1, round(keep * n)), codec) for n in LENET]
    noise = [Part(p.size, p.positions, rng.integers(0, 256, (len(p.values), WIDTH[codec]), np.uint8)) for p in given]
    for p in noise:
        p.values = torch.from_numpy(p.values).view(CODECS[codec]).reshape(-1).nan_to_num(1, 1, 1)
        p.values = p.values.to(torch.float64 if codec == "float64" else torch.float32).numpy()
    allowed = sum(formula(p.size, len(p.values), WIDTH[codec]) for p in given)
    head = 5 + 4 * len(given)
    for parts in (given, noise):
        assert len(encode(parts, codec)) <= 1.02 * allowed + head


@pytest.mark.parametrize("share", [0.0005, 0.003, 0.01, 0.05, 0.1, 0.2, 0.3, 0.45])
def test_random_positions_take_little_more_than_their_entropy(share):
    n = 200_000
    k = round(share * n)
    positions = np.sort(np.random.default_rng(4).choice(n, k, replace=False))
    entropy = (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)
    found = 8 * len(indices.pack([n], [positions]))
    assert entropy < found + 20
    assert found <= 1.04 * entropy + 64
    assert found <= entropy + 0.6 * k


def test_no_positions_take_more_than_promised():
    rng = np.random.default_rng(5)
    for _ in range(200):
        n = int(2 ** rng.uniform(1, 16))
        k = int(rng.integers(1, n)) if n > 1 else 1
        clustered = np.sort(rng.choice(min(n, 2 * k), k, replace=False)) + int(rng.integers(0, n - min(n, 2 * k) + 1))
        width = max(0, int(math.log2(max(1, (n - k) // k))))
        assert 8 * len(indices.pack([n], [clustered])) <= k * (width + 3) + 15


@pytest.fixture(scope="module")
def tensors() -> list[torch.Tensor]:
    """What a late step of SGD with momentum did to a small network on the digits that scikit-learn ships."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x_BF, y_B = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(64, 300), torch.nn.ReLU(), torch.nn.Linear(300, 100))
        model.extend([torch.nn.ReLU(), torch.nn.Linear(100, 10)])
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(60):
        rows = torch.randint(len(x_BF), (64,), generator=generator)
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x_BF[rows]), y_B[rows]).backward()
        optimizer.step()
    return [(p.detach() - b).reshape(-1) for p, b in zip(model.parameters(), before)]


@pytest.mark.parametrize("codec", ["float32", "float16", "bfloat16"])
def test_real_updates_stay_near_their_entropy(codec, tensors):
    for keep in (0.01, 0.05, 0.1, 0.2):
        kept = [largest(x, keep) for x in tensors]
        parts = [Part(len(x), i.numpy(), x[i].numpy()) for x, i in zip(tensors, kept)]
        pairs = [(p.size, len(p.values)) for p in parts]
        bits = sum(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for n, k in pairs) / math.log(2)
        stored = torch.from_numpy(np.concatenate([p.values for p in parts])).to(CODECS[codec])
        for plane in stored.view(torch.uint8).reshape(len(stored), -1).T:
            share = torch.bincount(plane.int()).double() / len(plane)
            bits += len(plane) * float(torch.special.entr(share).sum()) / math.log(2)
        assert len(encode(parts, codec)) <= 1.25 * bits / 8


def is_read(payload: bytes) -> bool:
    """Whether a record is read at all; it may say something else than what was written, but nothing impossible."""
    try:
        parts = decode(payload)
    except ExpungeError:
        return False
    for p in parts:
        assert p.values.shape == ((p.size,) if p.positions is None else p.positions.shape)
        if p.positions is not None:
            bounds = np.concatenate([[-1], p.positions, [p.size]])
            assert (np.diff(bounds) > 0).all()
    return True


@pytest.fixture(params=["float32", "bfloat16", "float64"])
def record(request) -> bytes:
    rng = np.random.default_rng(6)
    shape = [(300, 20), (20, None), (7, 3), (5, 0), (2000, 9), (8, 8), (50, 22)]
    return encode([part(rng, n, k, request.param) for n, k in shape], request.param)


def test_a_record_that_is_cut_off_is_named_wherever_it_is_cut(record):
    for length in range(len(record)):
        with pytest.raises(ExpungeError, match=f"{length} bytes long, is damaged"):
            decode(record[:length])
    with pytest.raises(ExpungeError, match="damaged"):
        decode(record + b"\0")


def test_any_altered_byte_is_named_or_reads_as_something_possible(record):
    rng = np.random.default_rng(8)
    altered = [(at, record[at] ^ flip) for at in range(len(record)) for flip in (0x80, int(rng.integers(1, 256)))]
    named = sum(not is_read(record[:at] + bytes([byte]) + record[at + 1 :]) for at, byte in altered)
    assert 20 < named < len(altered)


def test_noise_is_no_record():
    rng = np.random.default_rng(7)
    for length in [*range(40), *[200] * 200]:
        noise = bytearray(rng.integers(0, 256, length, np.uint8))
        noise[:3] = bytes([1, int(rng.integers(0, 4)) + 0xC0, int(rng.integers(0, 9))])[:length]
        is_read(bytes(noise))
    with pytest.raises(ExpungeError, match="version 2"):
        decode(b"\x02" + bytes(20))


@pytest.mark.parametrize(
    "payload",
    [
        b"\x01\xc0\x01" + b"\xff" * 5 + b"\x0f" + b"\xff" * 5 + b"\x07\x00" + bytes(50),  # 2^37 values
        b"\x01\xc0" + b"\xff" * 8 + b"\x0f" + bytes(50),  # 2^60 parts
        b"\x01\x40\x01\x80\x80\x80\x80\x10\x80\x80\x80\x80\x10\x0f\x01\x01\x01\x01" + bytes(4),  # all, compressed
        b"\x01\xc0\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x01\x00" + bytes(50),  # a tensor of 2^63
    ],
)
def test_a_record_that_claims_to_be_huge_takes_no_memory(payload):
    import tracemalloc

    tracemalloc.start()
    try:
        with pytest.raises(ExpungeError, match="damaged"):
            decode(payload)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
