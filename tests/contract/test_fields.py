"""Fields: every method refuses a value of another kind by the name of its field, before anything reads it."""

from __future__ import annotations

import dataclasses
from typing import get_type_hints

import pytest
from pydantic import ConfigDict, TypeAdapter, ValidationError
from settings import FIELDS

from expunge import ExpungeError, registry
from expunge.methods.finetune import FineTune

POOL = [
    None,
    True,
    2,
    2.5,
    "5",
    "no such word",
    b"5",
    (),
    (2.0,),
    (None,),
    ("a", 3),
    {"a": 1},
    FineTune(),
    object(),
    1j,
]
EVERY = [(name, field.name) for name in registry.names() for field in dataclasses.fields(registry.get(name))]


@pytest.mark.parametrize(("name", "field"), EVERY)
def test_a_value_of_another_kind_is_refused_by_the_name_of_its_field(name, field):
    """What is of another kind is said by pydantic, in its strict mode."""
    method = registry.make(name, FIELDS.get(name, {}))
    kind = get_type_hints(type(method))[field]
    strict = TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True, strict=True))
    refused = 0
    for value in POOL:
        try:
            strict.validate_python(value)
        except ValidationError:
            refused += 1
            if field == "region" and isinstance(value, (str, dict)):
                continue  # plain data, which the method reads
            with pytest.raises(ExpungeError, match=rf"\b{field}\b"):
                dataclasses.replace(method, **{field: value})
        else:
            try:
                made = dataclasses.replace(method, **{field: value})
            except ExpungeError:  # out of range
                continue
            assert registry.from_config(made.to_config()) == made
    assert refused >= 8


@pytest.mark.parametrize("name", registry.names())
def test_every_default_is_of_its_kind(name):
    cls = registry.get(name)
    kinds = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            strict = TypeAdapter(kinds[field.name], config=ConfigDict(arbitrary_types_allowed=True, strict=True))
            strict.validate_python(field.default)


@pytest.mark.parametrize("name", [n for n in registry.names() if "share" in registry.get(n).__init__.__annotations__])
def test_what_becomes_part_of_a_field_is_checked_as_well(name):
    with pytest.raises(ExpungeError, match="share"):
        registry.get(name)(region="saliency", share="half")
