"""Row: what the index says of a step, with a checksum of its own."""

from __future__ import annotations

import json
import struct
import zlib
from typing import NamedTuple

from expunge.artifact.ledger.shards import Place

_NUMBERS = struct.Struct("<5q")


class Row(NamedTuple):
    """What the index says of a step."""

    step: int
    shard: int  # -1: purged
    offset: int
    length: int
    crc: int
    ids: bytes  # see `ids.pack`
    about: str  # JSON

    @property
    def place(self) -> Place:
        """Where the record lies."""
        return Place(*self[:5])

    @property
    def purged(self) -> bool:
        """Whether the record has been removed."""
        return self.shard < 0

    @property
    def own(self) -> int:
        """The checksum of the row."""
        try:
            return zlib.crc32(self.about.encode(), zlib.crc32(self.ids, zlib.crc32(_NUMBERS.pack(*self[:5]))))
        except (
            struct.error,
            TypeError,
            AttributeError,
        ):  # a flipped byte may turn bytes into text, or numbers into none
            return -1

    def without_record(self) -> Row:
        """The row once the record is removed: of what was said about the step only single values stay."""
        about = {k: v for k, v in json.loads(self.about).items() if not isinstance(v, (list, dict))}
        return self._replace(shard=-1, offset=0, length=0, crc=0, about=json.dumps({**about, "purged": True}))
