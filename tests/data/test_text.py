"""Texts against vocabularies and tokens by hand."""

from __future__ import annotations

import gzip
import json

import pytest
import torch

from expunge.data import load
from expunge.data.text import encode, read, vocabulary_of, words_of
from expunge.errors import ExpungeError

RECORDS = [
    {"split": "train", "label": 1, "text": "The cat, the CAT!"},
    {"split": "dev", "label": 0, "text": "only here"},
    {"split": "train", "label": 0, "text": "a dog don't bark"},
    {"split": "test", "label": 1, "text": "The bird barks at a dog and cat"},
    {"split": "train", "label": 1, "text": "?!"},
    {"split": "test", "label": 0, "text": "..."},
]
# Frequencies: cat 2, the 2, then once each: a, bark, dog, don't
VOCABULARY = ("<padding>", "<unknown>", "cat", "the", "a", "bark", "dog", "don't")


def write(path, records=RECORDS):
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(r) + "\n" for r in records)
    return path


def test_vocabulary_and_tokens_by_hand(data_folder):
    write(data_folder / "pets.jsonl.gz")
    (data_folder / "pets.json").write_text('{"classes": ["no", "yes"], "source": "me"}')
    train, test = load("pets")
    assert train.vocabulary == test.vocabulary == VOCABULARY
    assert train.source.tolist() == [[3, 2, 3, 2], [4, 6, 7, 5], [1, 0, 0, 0]]
    assert test.source.tolist() == [[3, 1, 1, 1], [1, 0, 0, 0]]  # four tokens, as the longest training text
    assert train.source.dtype == torch.int64
    assert train.texts == ("The cat, the CAT!", "a dog don't bark", "?!")
    assert (train.y.tolist(), test.y.tolist(), train.classes) == ([1, 0, 1], [1, 0], ("no", "yes"))


def test_limit_keeps_texts_and_vocabulary(data_folder):
    write(data_folder / "pets.jsonl.gz")
    part, _ = load("pets", limit=2)
    assert part.vocabulary == VOCABULARY
    assert list(part.texts) == [load("pets")[0].texts[i] for i in part.ids]


def test_length_and_vocabulary_can_be_smaller(tmp_path):
    train, _ = read(write(tmp_path / "pets.jsonl.gz"), length=2, words=3)
    assert train.vocabulary == VOCABULARY[:5]
    assert train.source.tolist() == [[3, 2], [4, 1], [1, 0]]


def test_long_texts_are_cut_at_64(tmp_path):
    long = " ".join(f"w{i}" for i in range(100))
    train, _ = load(write(tmp_path / "l.jsonl.gz", [{"split": s, "label": 0, "text": long} for s in ("train", "test")]))
    assert train.shape == (64,)
    assert [train.vocabulary[t] for t in train.source[0]] == [f"w{i}" for i in range(64)]


def test_words_of_other_languages():
    assert words_of("Ein Weiß-Bär, naïve ДОМ 12") == ["ein", "weiß", "bär", "naïve", "дом", "12"]
    words = [words_of("b b a a c")]
    assert encode(words, vocabulary_of(words), 6).tolist() == [[3, 3, 2, 2, 4, 0]]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (RECORDS[:1], "no records with \"split\": 'test'"),
        ([*RECORDS, {"split": "train", "label": "cat", "text": "x"}], r"line 7: expected .*found .*cat"),
        ([*RECORDS, {"split": "train", "label": 0}], "line 7"),
        ([*RECORDS, [1]], "line 7"),
        ([*RECORDS, {"split": "train", "label": True, "text": "x"}], "line 7"),
        ([*RECORDS, {"split": "train", "label": -2, "text": "x"}], "smallest is -2"),
    ],
)
def test_broken_records(tmp_path, records, message):
    with pytest.raises(ExpungeError, match=message):
        load(write(tmp_path / "pets.jsonl.gz", records))


def test_broken_files(tmp_path):
    path = write(tmp_path / "pets.jsonl.gz")
    whole = path.read_bytes()
    for content in (
        b'{"split": "train"}',
        whole[:-12],
        gzip.compress(b"{nonsense"),
        gzip.compress(b"\xff\xfe\xfd"),
    ):
        path.write_bytes(content)
        with pytest.raises(ExpungeError, match=r"pets\.jsonl\.gz, line"):
            load(path)
