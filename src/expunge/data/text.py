"""NAME.jsonl.gz, a record {split, label, text} a line; words are numbered by those of the training rows.

Shapes: N rows, L tokens.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.data.classes import described, stem
from expunge.data.pair import pair
from expunge.data.rows import Rows
from expunge.errors import ExpungeError

PADDING, UNKNOWN = 0, 1
LENGTH = 64  # tokens; holds every TREC question and SST-2 sentence
WORDS = 20_000

_WORD = re.compile(r"\w+(?:'\w+)*")


def read(path: Path, length: int = LENGTH, words: int = WORDS) -> tuple[Rows, Rows]:
    """Training and test rows of tokens; ids are the positions among the records of the same split.

    Args:
        path: the file; records of splits other than "train" and "test" are left alone.
        length: tokens kept of each text at most.
        words: words in the vocabulary at most.

    Raises:
        ExpungeError: not gzipped JSON lines, a record without its three fields, or no records of a split.
    """
    texts: dict[str, list[str]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    for record in _records(path):
        if record["split"] in texts:
            texts[record["split"]].append(record["text"])
            labels[record["split"]].append(record["label"])
    empty = [split for split in texts if not texts[split]]
    if empty:
        raise ExpungeError(f'{path} has no records with "split": {" or ".join(map(repr, empty))}.')
    return tokenised(
        stem(path),
        (texts["train"], labels["train"]),
        (texts["test"], labels["test"]),
        classes=described(path)[0],
        length=length,
        words=words,
    )


def tokenised(
    name: str,
    train: tuple[Sequence[str], Any],
    test: tuple[Sequence[str], Any],
    *,
    classes: Sequence[str] | None = None,
    ids: tuple[Any, Any] = (None, None),
    length: int = LENGTH,
    words: int = WORDS,
) -> tuple[Rows, Rows]:
    """Training and test rows of tokens from texts and labels; the vocabulary is of the training texts."""
    words_train, words_test = ([words_of(text) for text in texts] for texts in (train[0], test[0]))
    vocabulary = vocabulary_of(words_train, words)
    length = length_of(words_train, length)
    x_train, x_test = (encode(split, vocabulary, length) for split in (words_train, words_test))
    return pair(
        name,
        (x_train, train[1]),
        (x_test, test[1]),
        classes=classes,
        ids=ids,
        texts=(train[0], test[0]),
        vocabulary=vocabulary,
    )


def words_of(text: str) -> list[str]:
    """The lower-cased words of a text, without punctuation; `don't` is one word."""
    return _WORD.findall(text.lower())


def vocabulary_of(texts: Iterable[list[str]], most: int = WORDS) -> tuple[str, ...]:
    """Padding, the unknown word, then `most` words at most: the most frequent first, ties alphabetically.

    Args:
        texts: the words of each text.
        most: how many words to keep.
    """
    counts = Counter(word for text in texts for word in text)
    known = sorted(counts, key=lambda word: (-counts[word], word))[:most]
    return ("<padding>", "<unknown>", *known)


def length_of(texts: Iterable[list[str]], most: int = LENGTH) -> int:
    """How many tokens hold the longest of these texts, given as words: `most` at most, 1 at least."""
    return max(1, min(most, max(map(len, texts), default=1)))


def encode(texts: Sequence[list[str]], vocabulary: Sequence[str], length: int) -> Tensor:
    """Tokens (N, length), int64: the first words of each text (given as words), then padding.

    A text without any word becomes one unknown word: attention over nothing but padding is undefined.
    """
    number = {word: i for i, word in enumerate(vocabulary)}
    x_NL = torch.full((len(texts), length), PADDING)
    for row_L, text in zip(x_NL, texts):
        tokens = [number.get(word, UNKNOWN) for word in text[:length]] or [UNKNOWN]
        row_L[: len(tokens)] = torch.tensor(tokens)
    return x_NL


def _records(path: Path) -> Iterable[dict[str, Any]]:
    k = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for k, line in enumerate(file, start=1):  # noqa: B007 the error below names the line
                record = json.loads(line)
                if not _complete(record):
                    raise ValueError(f'expected {{"split": "train", "label": 0, "text": "..."}}, found {line[:80]!r}')
                yield record
    except (OSError, EOFError, zlib.error, ValueError) as problem:
        raise ExpungeError(f"{path}, line {k}: {problem}") from problem


def _complete(record: Any) -> bool:
    wanted = {"split": str, "label": int, "text": str}
    return isinstance(record, dict) and all(type(record.get(key)) is kind for key, kind in wanted.items())
