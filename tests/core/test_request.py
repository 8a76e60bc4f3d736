"""Request: how rows are chosen, the three states, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import expunge as ex
from expunge import ExpungeError, Request, Rows
from expunge.data.ids import read_ids
from kit import Recording


def rows(n: int = 60, ids=None, classes=("cat", "dog", "frog")) -> Rows:
    random = np.random.default_rng(0)
    return Rows(random.standard_normal((n, 4)).astype(np.float32), np.arange(n) % 3, ids=ids, classes=classes)


def chosen(request: Request) -> list:
    return request.rows.ids[request.forget.numpy()].tolist()


# -- how rows are chosen ---------------------------------------------------------------------------------------------


def test_classes_by_label_and_by_name_are_the_rows_with_that_label(train):
    expected = np.flatnonzero(np.isin(train.y.numpy(), [3, 7]))
    np.testing.assert_array_equal(Request(train, classes=[3, 7]).forget, expected)
    np.testing.assert_array_equal(Request(train, classes=["7", "3"]).forget, expected)
    by_name = Request(rows(), classes=["dog"])
    np.testing.assert_array_equal(by_name.forget, np.arange(1, 60, 3))
    assert by_name.scope == "class"
    assert by_name.classes == (1,)


@pytest.mark.parametrize("one", [1, "dog", np.int64(1)])
def test_a_single_class_needs_no_list(one):
    assert Request(rows(), classes=one).classes == (1,)


def test_a_number_that_means_two_classes_is_refused():
    data = rows(classes=("2", "1", "0"))
    for two in ("2", 2):
        with pytest.raises(ExpungeError, match="'label:2' or 'name:2'"):
            Request(data, classes=[two])
    assert Request(data, classes=["name:2"]).classes == (0,)
    assert Request(data, classes=["label:2"]).classes == (2,)
    assert Request(data, classes=[1]).classes == Request(data, classes=["1"]).classes == (1,)


def test_ids_are_ids_and_not_positions(train):
    wanted = train.ids[[5, 900, 17]]
    request = Request(train, ids=wanted.tolist())
    assert sorted(chosen(request)) == sorted(wanted.tolist())
    np.testing.assert_array_equal(request.forget, [5, 17, 900])
    assert request.scope == "samples"


@pytest.mark.parametrize("make", [list, tuple, np.asarray, torch.as_tensor, iter, lambda v: [*v, v[0]]])
def test_ids_come_in_any_sequence_and_count_once(make):
    assert chosen(Request(rows(), ids=make([41, 3, 8]))) == [3, 8, 41]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ids.txt", "r3\nr8\n\n  r41  \n"),
        ("bom.txt", "\ufeffr3\nr8\nr41"),
        ("ids.csv", "r3\nr8\nr41\n"),
        ("named.csv", 'reason,ID\nspam,r3\n"a, b",r8\nspam,r41\n'),
        ("first.csv", "r3,spam\nr8,spam\nr41,spam\n"),
    ],
)
def test_ids_come_from_text_and_csv_files(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    data = rows(ids=[f"r{i}" for i in range(60)])
    assert chosen(Request(data, ids=path)) == ["r3", "r8", "r41"]
    assert chosen(Request(data, ids=str(path))) == ["r3", "r8", "r41"]


def test_a_file_with_a_row_without_an_id_is_no_request(tmp_path):
    path = tmp_path / "withdrawn.csv"
    path.write_text("name,id\nann,1\nbob,\ncid\n")
    with pytest.raises(ExpungeError, match=r"withdrawn\.csv has no id in lines 3, 4"):
        Request(rows(), ids=path)


def test_a_header_of_another_name_is_pointed_at(tmp_path):
    path = tmp_path / "ids.csv"
    path.write_text("patient,reason\n1,x\n2,y\n")
    with pytest.raises(ExpungeError, match=r"e\.g\. 'patient'.*call the column of ids 'id'"):
        Request(rows(), ids=path)


def test_numbers_in_a_file_are_integer_ids_where_the_data_has_such(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("100\n-5\n")
    ids = [-5, 100, *range(1000, 1058)]
    assert chosen(Request(rows(ids=ids), ids=path)) == [-5, 100]
    assert chosen(Request(rows(ids=[str(i) for i in ids]), ids=path)) == ["-5", "100"]


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe\xfa"])
def test_files_without_ids_are_refused_by_name(tmp_path, content):
    path = tmp_path / "ids.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExpungeError, match=r"ids\.txt"):
        read_ids(path)


def test_a_predicate_sees_id_label_name_and_the_models_input():
    data = rows(ids=[f"r{i}" for i in range(60)])
    request = Request(data, where=lambda row: row.name == "frog" and row.x[0] > 0 and row.id != "r2" and row.label == 2)
    x = data.x(torch.arange(60)).numpy()
    expected = [i for i in range(60) if i % 3 == 2 and x[i, 0] > 0 and i != 2]
    assert request.forget.tolist() == expected


@pytest.mark.parametrize("fraction", [0.1, 0.333, 0.5])
def test_a_fraction_is_that_share_and_random(train, fraction):
    request = Request(train, fraction=fraction, seed=1)
    assert len(request.forget) == round(fraction * len(train))
    assert request.hash == Request(train, fraction=fraction, seed=1).hash
    assert request.hash != Request(train, fraction=fraction, seed=2).hash


def test_a_stratified_fraction_takes_each_class_in_proportion(train):
    request = Request(train, fraction=0.1, stratify=True)
    whole = np.bincount(train.y.numpy())
    part = np.bincount(train.y[request.forget].numpy())
    assert len(request.forget) == round(0.1 * len(train))
    assert np.abs(part - 0.1 * whole).max() < 1
    plain = np.bincount(train.y[Request(train, fraction=0.1).forget].numpy(), minlength=10)
    assert np.abs(plain - 0.1 * whole).max() >= 1  # the control: a plain draw is uneven


# -- three states ----------------------------------------------------------------------------------------------------


def test_every_row_is_kept_forgotten_or_gone_and_never_two_of_them():
    request = Request(rows(), ids=[3, 8], gone=[1, 2])
    states = [set(part.tolist()) for part in (request.keep, request.forget, request.gone)]
    assert states[1] == {3, 8}
    assert states[2] == {1, 2}
    assert states[0] == set(range(60)) - {1, 2, 3, 8}


@pytest.mark.parametrize("how", [{"classes": [1]}, {"fraction": 0.9}, {"where": lambda row: row.label == 1}])
def test_rows_that_are_gone_are_not_drawn_again(how):
    gone = [1, 4, 7, 10]
    request = Request(rows(), gone=gone, **how)
    assert not set(chosen(request)) & set(gone)
    assert request.gone.tolist() == gone


def test_a_fraction_is_of_the_rows_that_are_left():
    assert len(Request(rows(), fraction=0.5, gone=range(20)).forget) == 20


def test_after_moves_rows_to_gone_and_leaves_the_request_alone():
    first, second = Request(rows(), ids=[1, 2]), Request(rows(), ids=[3])
    later = second.after(first)
    assert later.gone.tolist() == [1, 2]
    assert later.forget.tolist() == [3]
    assert not set(later.keep.tolist()) & {1, 2, 3}
    assert not len(second.gone)
    assert second.after([]) is second
    third = Request(rows(), ids=[5]).after(later)  # what had gone before `later` is gone as well
    assert third.gone.tolist() == [1, 2, 3]


def test_a_class_of_which_rows_have_gone_already_can_go():
    later = Request(rows(), classes=["dog"]).after([1, 4])
    assert later.gone.tolist() == [1, 4]
    assert later.forget.tolist() == list(range(7, 60, 3))


def test_classes_that_are_gone_as_a_whole_are_known(train):
    four = Request(train, classes=[4]).after(Request(train, classes=[3]))
    assert four.gone_classes == (3,)
    assert Request(train, ids=train.ids[:5].tolist()).gone_classes == ()


def test_a_second_unlearning_never_hands_back_what_the_first_removed(train, mlp):
    spied = Recording.of(train)
    first = Request(spied, classes=[3])
    once = ex.unlearn(mlp, first, "finetune", epochs=1)
    assert set(spied.seen) == set(first.keep.tolist())  # the spy sees what the loop reads
    spied.seen.clear()
    second = Request(spied, classes=[4])
    twice = ex.unlearn(once.model, second, "random_label", epochs=2)
    assert not set(spied.seen) & set(first.forget.tolist())
    assert set(spied.seen) == set(twice.request.keep.tolist()) | set(twice.request.forget.tolist())
    assert twice.request.gone.tolist() == first.forget.tolist()
    # and a third one knows of both
    third = ex.unlearn(twice.model, Request(spied, classes=[5]), "finetune", epochs=1).request
    assert set(third.gone.tolist()) == set(first.forget.tolist()) | set(second.forget.tolist())


def test_history_survives_saving_and_loading(train, mlp, tmp_path):
    once = ex.unlearn(mlp, Request(train, classes=[3]), "gradient_ascent", epochs=1).model
    ex.io.save_weights(tmp_path / "m.safetensors", once)
    ex.io.load_weights(tmp_path / "m.safetensors", mlp)
    twice = ex.unlearn(mlp, Request(train, classes=[4]), "original").request
    assert set(train.y[twice.gone].tolist()) == {3}


def test_history_of_other_data_is_not_taken_for_none(train, mlp):
    """Rows that cannot be found would be trained back in; the user has to say which they are."""
    once = ex.unlearn(mlp, Request(train, ids=train.ids[:5].tolist()), "gradient_ascent", epochs=1).model
    part = train.take(torch.arange(700))
    with pytest.raises(ExpungeError, match="forgotten rows of other data"):
        ex.unlearn(once, Request(part, classes=[4]), "finetune")
    told = Request(part, classes=[4], gone=train.ids[:5].tolist())
    assert len(ex.unlearn(once, told, "finetune", epochs=1).request.gone) == 5


def test_doing_nothing_leaves_nothing_gone(train, mlp):
    same = ex.unlearn(mlp, Request(train, classes=[3]), "original").model
    assert not len(ex.unlearn(same, Request(train, classes=[3]), "finetune", epochs=1).request.gone)


def test_a_mask_is_not_taken_for_ids(train):
    mask = train.y.numpy() == 3
    with pytest.raises(ExpungeError, match=r"rows\.ids\[mask\]"):
        Request(train, ids=mask)
    assert Request(train, ids=train.ids[mask]).forget.tolist() == mask.nonzero()[0].tolist()


def test_what_is_gone_cannot_be_asked_for_again(train, mlp):
    once = ex.unlearn(mlp, Request(train, ids=train.ids[:20].tolist()), "gradient_ascent", epochs=1).model
    with pytest.raises(ExpungeError, match="already gone"):
        ex.unlearn(once, Request(train, ids=train.ids[10:30].tolist()), "original")
    threes = ex.unlearn(mlp, Request(train, classes=[3]), "gradient_ascent", epochs=1).model
    with pytest.raises(ExpungeError, match="selects 0"):
        ex.unlearn(threes, Request(train, classes=[3]), "original")


def test_the_hash_follows_state_and_data():
    base = Request(rows(), ids=[3])
    assert base.hash == Request(rows(), ids=[3]).hash == Request(rows(), where=lambda row: row.id == 3).hash
    others = [
        Request(rows(), ids=[4]),
        Request(rows(), ids=[3], gone=[4]),
        Request(rows(59), ids=[3]),
        Request(rows(ids=np.arange(60) + 1), ids=[4]),  # the same position under another id
    ]
    assert len({base.hash, *(r.hash for r in others)}) == 5


def test_the_request_says_itself_as_a_sentence():
    assert (
        Request(rows(), classes=["dog"], gone=[0]).text
        == "Forget class dog: 20 of 60 rows of data (1 more are already gone)."
    )


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({}, "exactly one way"),
        ({"classes": [1], "fraction": 0.1}, "classes and fraction"),
        ({"ids": []}, "selects 0 of 60"),
        ({"classes": []}, "selects 0 of 60"),
        ({"where": lambda row: False}, "selects 0 of 60"),
        ({"fraction": 0.001}, "selects 0 of 60"),
        ({"where": lambda row: True}, "every one of the 60"),
        ({"classes": [0, 1, 2]}, "every one of the 60"),
        ({"classes": [0, 1]}, "leaves 1 class"),
        ({"where": lambda row: row.label != 2}, "leaves 1 class"),
        ({"classes": [3]}, r"labels run 0\.\.2 \(cat, dog, frog\)"),
        ({"classes": [-1]}, r"labels run 0\.\.2"),
        ({"classes": ["forg"]}, "Did you mean 'frog'"),
        ({"classes": [1.5]}, r"1\.5"),
        ({"classes": [None]}, "None"),
        ({"ids": [3, 60]}, r"1 of 2 ids are not in data, e\.g\. 60"),
        ({"ids": ["x"]}, "not in data"),
        ({"fraction": 0}, "between 0 and 1"),
        ({"fraction": 1}, "between 0 and 1"),
        ({"fraction": -0.5}, "between 0 and 1"),
        ({"fraction": float("nan")}, "between 0 and 1"),
        ({"fraction": "many"}, "between 0 and 1"),
        ({"ids": [3], "gone": [3]}, r"already gone .*ids 3"),
        ({"ids": [3], "gone": [99]}, "not in data"),
    ],
)
def test_what_cannot_be_forgotten_is_refused(how, words):
    with pytest.raises(ExpungeError, match=words):
        Request(rows(), **how)


def test_data_that_no_classifier_could_be_trained_on_is_refused():
    x = np.zeros((4, 2), np.float32)
    with pytest.raises(ExpungeError, match="integers"):
        Request((x, [0.5, 1, 2, 3]), ids=[0])
    with pytest.raises(ExpungeError, match="leaves 1 class"):
        Request((x, [0, 0, 0, 0]), ids=[0])
    bad = x.copy()
    bad[2, 1] = np.nan
    with pytest.raises(ExpungeError, match=r"NaN or infinity, the first at position 2"):
        Request((bad, [0, 1, 0, 1]), ids=[0])


# -- what is no way to name rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", ["x", 1.5, -1, 2**32, True, None])
def test_a_seed_that_is_none_is_refused_as_for_data(seed):
    with pytest.raises(ExpungeError, match=r"A seed must be an integer in 0\.\.2\*\*32 - 1; got ") as refusal:
        Request(rows(), fraction=0.1, seed=seed)
    assert repr(seed) in str(refusal.value)


@pytest.mark.parametrize("name", ["ids", "gone"])
@pytest.mark.parametrize(
    ("given", "found"),
    [
        (5, "got 5."),
        (torch.tensor(5), "got tensor(5)."),
        (b"ab", "got b'ab'."),
        ([[1]], "got [1] among them."),
        (np.zeros((2, 2), int), "got [0, 0] among them."),
        ([torch.zeros(2)], "among them."),
        ([3, {4}], "got {4} among them."),
    ],
)
def test_what_is_no_list_of_ids_is_refused(name, given, found):
    more = {} if name == "ids" else {"classes": [1]}
    with pytest.raises(ExpungeError) as refusal:
        Request(rows(), **{name: given}, **more)
    assert "ids are a list of whole numbers or strings, or a file; " in str(refusal.value)
    assert str(refusal.value).endswith(found)
    if name == "gone":
        with pytest.raises(ExpungeError, match="ids are a list of whole numbers or strings"):
            Request(rows(), classes=[1]).after(given)


def test_an_earlier_request_says_what_is_gone(tmp_path):
    data = rows()
    first = Request(data, ids=[0, 3], gone=[9])
    later = Request(data, classes=["dog"], gone=first)
    assert later.gone.tolist() == [0, 3, 9]
    assert later.hash == Request(data, classes=["dog"]).after(first).hash
    (tmp_path / "gone.txt").write_text("0\n3\n9\n")
    assert Request(data, classes=["dog"], gone=tmp_path / "gone.txt").hash == later.hash
    assert Request(data, ids=[torch.tensor(4)]).forget.tolist() == [4]


@pytest.mark.parametrize("given", [5.5, {"a": 1}, [[1]], torch.tensor([7])])
def test_what_is_no_class_is_refused(given):
    with pytest.raises(ExpungeError, match="class"):
        Request(rows(), classes=given)
    assert Request(rows(), classes=torch.tensor([1])).classes == (1,)
    assert Request(rows(), classes=np.array(["dog"])).classes == (1,)


@pytest.mark.parametrize("where", [3, "x", [True], torch.ones(60, dtype=torch.bool)])
def test_where_must_be_a_function(where):
    with pytest.raises(ExpungeError, match="where is a function of a Row"):
        Request(rows(), where=where)


def test_a_function_that_fails_is_told_with_the_row():
    data = rows(ids=[f"r{i}" for i in range(60)])
    with pytest.raises(ExpungeError, match=r"where failed on the row with id 'r0', AttributeError: .*'nope'.*label"):
        Request(data, where=lambda row: row.nope)
    with pytest.raises(ExpungeError, match="with id 'r4', ZeroDivisionError"):
        Request(data, where=lambda row: 1 / (row.id != "r4"))


@pytest.mark.parametrize("how", [{"classes": [1]}, {"ids": [1]}, {"where": lambda row: row.id == 1}])
def test_stratify_goes_with_a_fraction(how):
    with pytest.raises(ExpungeError, match=f"so it goes with fraction; got {next(iter(how))}"):
        Request(rows(), **how, stratify=True)
    assert len(Request(rows(), **how, stratify=False).forget)
    with pytest.raises(ExpungeError, match="stratify is true or false; got 'no'"):
        Request(rows(), fraction=0.1, stratify="no")


@pytest.mark.parametrize("answer", [torch.tensor([True, False]), np.array([True, False, True])])
def test_where_answers_for_one_row(answer):
    with pytest.raises(ExpungeError, match="where is asked of one row after another"):
        Request(rows(), where=lambda row: answer)
    data = rows()
    expected = (data.x(torch.arange(60))[:, 0] > 0).nonzero().flatten()
    for wrap in (lambda v: v, np.asarray, lambda v: torch.as_tensor(v).reshape(1)):
        assert torch.equal(Request(data, where=lambda row, wrap=wrap: wrap(row.x[0] > 0)).forget, expected)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("ids.csv", "id\tx\n3\ta\n8\tb\n", "looks tab-separated"),
        ("ids.csv", "id;x\n3;a\n8;b\n", "looks semicolon-separated"),
        ("ids.txt", "3\ta\n8\tb\n", "looks tab-separated"),
        ("ids.txt", "3,a\n8,b\n", "looks comma-separated"),
    ],
)
def test_a_file_with_another_separator_is_recognised(tmp_path, name, text, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(ExpungeError, match="ids are not in data") as refusal:
        Request(rows(), ids=tmp_path / name)
    assert f"{name} {told}; what is read is one id a line, or a file.csv separated by commas" in str(refusal.value)


def test_a_separator_may_be_part_of_an_id(tmp_path):
    data = rows(ids=[f"r;{i}" for i in range(60)])
    (tmp_path / "ids.txt").write_text("r;3\nr;8\n")
    assert chosen(Request(data, ids=tmp_path / "ids.txt")) == ["r;3", "r;8"]
    (tmp_path / "ids.txt").write_text("r3\nr8\n")
    with pytest.raises(ExpungeError) as refusal:
        Request(data, ids=tmp_path / "ids.txt")
    assert "separated" not in str(refusal.value)
