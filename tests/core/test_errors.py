"""Several problems are told at once."""

import pytest

from expunge.errors import Diverged, ExpungeError, Problems, collected, raise_if


def test_what_is_raised_inside_is_collected_and_the_block_left():
    problems = ["one."]
    with collected(problems):
        raise ExpungeError("two.")
    with collected(problems, "recipe: "):
        raise Problems(["three.", "four."])
    with collected(problems):
        pass
    assert problems == ["one.", "two.", "recipe: three.", "recipe: four."]
    with pytest.raises(Problems, match="one") as told:
        raise_if(problems)
    assert told.value.problems == problems
    raise_if([])


def test_errors_of_another_kind_pass():
    with pytest.raises(KeyError), collected([]):
        raise KeyError("x")
    problems: list[str] = []
    with collected(problems):
        raise Diverged("The loss is no number.")
    assert problems == ["The loss is no number."]
