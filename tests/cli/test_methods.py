"""`expunge methods`."""

from __future__ import annotations

import dataclasses

import pytest

from expunge import registry
from shell import Shell


def test_the_list_has_every_method(expunge: Shell) -> None:
    outcome = expunge("methods")
    assert outcome.code == 0
    first = {line.split()[0] for line in outcome.out.splitlines() if line.strip()}
    assert set(registry.names()) <= first


@pytest.mark.parametrize("name", ["finetune", "random_label", "chain"])
def test_one_method_with_every_field_and_its_default(expunge: Shell, name: str) -> None:
    outcome = expunge("methods", name)
    assert outcome.code == 0
    cls = registry.get(name)
    assert cls.card.title in " ".join(outcome.out.split())
    table = {line.split()[0]: line.split()[1:] for line in outcome.out.splitlines() if len(line.split()) > 1}
    for field in dataclasses.fields(cls):
        assert field.name in table
        if isinstance(field.default, (int, float, str)):
            assert table[field.name] == [str(field.default)]
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            assert table[field.name] == ["needed"]


def test_a_misspelt_name_gets_near_ones(expunge: Shell) -> None:
    said = expunge.refuses("methods", "fintune")
    assert "'finetune'" in said
    assert "expunge methods" in said
