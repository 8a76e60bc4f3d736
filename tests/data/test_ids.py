"""Files of ids: no line of them is passed over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from expunge import Request, Rows
from expunge.artifact.ledger.ids import spelled
from expunge.batching import groups_of
from expunge.data.ids import as_in, misread, number, read_ids
from expunge.errors import ExpungeError


def written(folder: Path, text: str, name: str = "ids.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "lines", "column"),
    [
        ("name,id\nann,1\nbob,\ncid,3\n", "line 3", "'id'"),
        ("name,id\nann,1\nbob\ncid,3\n", "line 3", "'id'"),
        ("name,ID\nann,1\n\nbob, \ncid\n", "lines 4, 5", "'id'"),
        ("1,ann\n,bob\n", "line 2", "1"),
        ('name,id\n"ann\nlee",1\nbob,\n', "line 4", "'id'"),  # a cell of two lines
    ],
)
def test_a_line_without_an_id_is_refused_by_its_number(tmp_path, text, lines, column):
    with pytest.raises(ExpungeError, match=rf"ids\.csv has no id in {lines}, so .* column {column}\."):
        read_ids(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name,id\n\nann,1\n,\n , \nbob,2\n\n", ["1", "2"]),
        ("id\n1\n\n2", ["1", "2"]),
        ('id,note\n1,"two\nlines"\n2,\n', ["1", "2"]),
        ("id\r\n1\r\n2\r\n", ["1", "2"]),
        ('"a,1",x\n" b",y\n', ["a,1", "b"]),
    ],
)
def test_lines_with_nothing_in_them_are_no_ids(tmp_path, text, expected):
    assert read_ids(written(tmp_path, text)) == expected


def test_a_header_that_was_read_as_an_id_is_guessed():
    told = misread(["patient", "1", "2"], [True, False, False], "a.csv")
    assert told == "'patient' looks like the header of a.csv; in a table with one, call the column of ids 'id'."
    assert misread(["1", "x", "2"], [False, True, False], "a.csv") == ""
    assert misread(["patient", "1"], [True, True], "a.csv") == ""
    assert misread(["patient", "1"], [True, False], "a.txt") == ""
    assert "looks semicolon-separated" in misread(["id;b", "1;2"], [True, True], "a.csv")


@pytest.mark.parametrize("text", ["0,1,2\n", "0,1,2\n3,4\n"])
def test_a_table_of_numbers_without_a_header_is_not_read_by_its_first_column_alone(tmp_path, text):
    path = tmp_path / "ids.csv"
    path.write_text(text)
    with pytest.raises(ExpungeError, match=r"no header and only whole numbers, 3 in its first line.*one id a line"):
        read_ids(path)
    path.write_text("id,age,visits\n" + text)
    assert read_ids(path) == [line.partition(",")[0] for line in text.split()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7),
        (" -7 ", -7),
        ("007", 7),
        ("1234567890123456789", 1234567890123456789),  # longer than 18 digits, and still an id of 64 bits
        (str(2**64 - 1), 2**64 - 1),
        (str(2**64), str(2**64)),
        (str(-(2**63) - 1), str(-(2**63) - 1)),
        ("--5", "--5"),
        ("-", "-"),
        ("", ""),
        ("5.0", "5.0"),
        ("1_000", "1_000"),
        ("²", "²"),
        (5, 5),
    ],
)
def test_a_text_that_spells_a_whole_number_of_64_bits_is_that_number(text, expected):
    assert number(text) == expected
    assert type(number(text)) is type(expected)


def test_texts_are_numbers_where_the_ids_of_rows_are():
    assert as_in(np.arange(3), ["1", 2, "x"]) == [1, 2, "x"]
    assert as_in(np.array(["1", "2"]), ["1", "2"]) == ["1", "2"]


def test_requests_groups_and_ledgers_read_the_same_texts_as_numbers(tmp_path):
    long = 1234567890123456789
    rows = Rows(np.zeros((6, 2), np.float32), [0, 1, 0, 1, 0, 1], ids=[-5, 5, 7, long, 8, 9])
    for text, there in ((f"{long}", True), (" -5 ", True), ("--5", False), ("9" * 30, False), ("-", False)):
        path = tmp_path / "ids.txt"
        path.write_text(f"7\n{text}\n")
        if there:
            assert Request(rows, ids=path).forget.tolist() == sorted((2, rows.ids.tolist().index(int(text))))
            assert (groups_of([text], rows) == 0).sum() == 1
            assert int(text) in spelled([text])
            continue
        with pytest.raises(ExpungeError, match=f"1 of 2 ids are not in data, e.g. '{text}'"):
            Request(rows, ids=path)
        with pytest.raises(ExpungeError, match=f"together: 1 of 1 ids are not in data, e.g. '{text}'"):
            groups_of([text], rows)
        assert spelled([text]) == {text}
