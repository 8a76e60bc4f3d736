"""Files of ids: no line of them is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from expunge.data.ids import misread, read_ids
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
