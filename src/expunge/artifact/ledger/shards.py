"""Shards: append-only files of checksummed records, one record for each optimiser step.

A record is a header of 24 bytes (magic, step, length of the payload, CRC32 of all that and the payload; little
endian) and the payload. Where the records lie is said by the index; a shard alone is not searched.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NamedTuple

from expunge.artifact.ledger.faster import faster
from expunge.errors import ExpungeError

MAGIC = b"EXL1"
HEAD = struct.Struct("<4sQQ")
CRC = struct.Struct("<I")
HEADER = HEAD.size + CRC.size


class Place(NamedTuple):
    """Where the record of a step lies."""

    step: int
    shard: int
    offset: int  # of the header, in bytes
    length: int  # of the payload, in bytes
    crc: int

    @property
    def end(self) -> int:
        """The first byte after the record."""
        return self.offset + HEADER + self.length


class Shards:
    """The shard files of a folder. Writing raises OSError: the journal knows what is lost by it.

    Args:
        folder: where the files are.
        most: bytes at which the next record begins a new shard, 1 or more.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        self._file: BinaryIO | None = None
        self._shard = self._end = 0
        self._next = 0  # the number of the next new shard

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / f"shard-{shard:08d}.led"

    def sizes(self) -> dict[int, int]:
        """The shards that are on the disk, with their bytes."""
        found = {int(path.stem[6:]): path.stat().st_size for path in self.folder.glob("shard-*.led")}
        return dict(sorted(found.items()))

    def trim(self, ends: Mapping[int, int]) -> int:
        """Remove all bytes that no committed step has, and append after the last shard from now on.

        Args:
            ends: the shards that are in use and where the last record in each ends; the one to append to is last.

        Returns:
            How many bytes were removed.
        """
        self.close()
        sizes = self.sizes()
        self._next = max(ends, default=-1) + 1
        freed = 0
        for shard, size in sizes.items():
            if shard not in ends:
                self.path(shard).unlink()
                freed += size
            elif size > ends[shard]:
                with open(self.path(shard), "rb+") as file:
                    file.truncate(ends[shard])
                    os.fsync(file.fileno())
                freed += size - ends[shard]
        _sync_folder(self.folder)
        last = next(reversed(ends), None) if ends else None
        if last is not None and sizes.get(last, -1) >= ends[last]:  # after a shard that lost bytes a new one begins
            self._file = open(self.path(last), "rb+", buffering=0)  # noqa: SIM115 (open until close)
            self._shard, self._end = last, ends[last]
            self._file.seek(self._end)
        return freed

    def append(self, step: int, payload: bytes) -> Place:
        """Write a record; it is safe on the disk after `flush` only."""
        head = HEAD.pack(MAGIC, step, len(payload))
        crc = faster.crc32(payload, faster.crc32(head))
        if self._file is None or (self._end and self._end + HEADER + len(payload) > self.most):
            self._begin()
        place = Place(step, self._shard, self._end, len(payload), crc)
        try:
            self._write(head + CRC.pack(crc))
            self._write(payload)
        except OSError:
            if self._file is not None:
                with suppress(OSError):  # give the room back: the index needs some
                    self._file.truncate(self._end)
            raise
        self._end = place.end
        return place

    def flush(self) -> None:
        """Return when everything appended is on the disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file that is written to."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def copy(self, places: Iterable[Place]) -> list[Place]:
        """Write these records once more, to shards of their own, and return where they are now.

        Bytes are taken as they are: a damaged record stays one, and is still found by its checksum.
        """
        copied = []
        for shard, group in groupby(places, key=lambda place: place.shard):
            self._begin()
            with open(self.path(shard), "rb", buffering=0) as file:
                for place in group:
                    file.seek(place.offset)
                    size = HEADER + place.length
                    copied.append(place._replace(shard=self._shard, offset=self._end))
                    self._write(_read(file, size).ljust(size, b"\0"))
                    self._end += size
        self.flush()
        return copied

    def read(self, places: Sequence[Place]) -> Iterator[tuple[int, bytes]]:
        """The payloads of records, in the order given, each shard opened once for neighbours in it.

        Raises:
            ExpungeError: a record is damaged or missing, with its shard, offset and step.
        """
        for place, payload, problem in self._examined(places):
            if problem:
                raise ExpungeError(f"{problem} Nothing of it is used; bring the file back from a copy, or train again.")
            yield place.step, payload

    def problems(self, places: Sequence[Place]) -> list[str]:
        """A sentence for each record that is damaged, shard that is missing and file with bytes of no record.

        Args:
            places: of all records there should be, in order.
        """
        sizes, found = self.sizes(), []
        ends = {place.shard: place.end for place in places}
        for shard, group in groupby(places, key=lambda place: place.shard):
            if shard not in sizes:
                steps = [place.step for place in group]
                found.append(f"{self.path(shard)} is missing; it held the steps {steps[0]} to {steps[-1]}.")
        there = [place for place in places if place.shard in sizes]
        found += [problem for _, _, problem in self._examined(there) if problem]
        for shard, size in sizes.items():
            if size > (end := ends.get(shard, 0)) or shard not in ends:
                found.append(
                    f"{self.path(shard)} has {size - end} bytes that belong to no committed step: torn by a kill, "
                    "or still being written. Opening for writing removes them."
                )
        return found

    def _examined(self, places: Sequence[Place]) -> Iterator[tuple[Place, bytes, str]]:
        for shard, group in groupby(places, key=lambda place: place.shard):
            try:
                file = open(self.path(shard), "rb", buffering=0)  # noqa: SIM115 (closed below)
            except OSError as error:
                for place in group:
                    yield place, b"", f"{self._name(place)} cannot be read: {error}."
                continue
            with file:
                at = 0
                for place in group:
                    if place.offset != at:
                        file.seek(place.offset)
                    at = place.end
                    try:
                        header, payload = _read(file, HEADER), _read(file, place.length)
                    except OSError as error:
                        yield place, b"", f"{self._name(place)} cannot be read: {error}."
                        continue
                    fault = _fault(place, header, payload)
                    yield place, payload, f"{self._name(place)} is damaged: {fault}." if fault else ""

    def _name(self, place: Place) -> str:
        return f"The record of step {place.step} ({self.path(place.shard)}, byte {place.offset})"

    def _begin(self) -> None:
        self.flush()
        self.close()
        self._file = open(self.path(self._next), "xb", buffering=0)  # noqa: SIM115 (open until close)
        self._shard, self._end, self._next = self._next, 0, self._next + 1
        _sync_folder(self.folder)

    def _write(self, data: bytes) -> None:
        if self._file is None:
            raise OSError("no shard is open")
        view = memoryview(data)
        while view:  # a raw file may take less than it is given
            view = view[self._file.write(view) :]


def _read(file: BinaryIO, size: int) -> bytes:
    """So many bytes, or all that are left; one system call gives no more than 2 GiB."""
    data = file.read(size)
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data


def _fault(place: Place, header: bytes, payload: bytes) -> str:
    """What is wrong with a record as read, or nothing."""
    if len(header) < HEADER or len(payload) < place.length:
        got = len(header) + len(payload)
        return f"the file ends {HEADER + place.length - got} bytes before the record does"
    head = HEAD.pack(MAGIC, place.step, place.length)
    if header != head + CRC.pack(place.crc):
        return "its header is not the one that was written"
    if faster.crc32(payload, faster.crc32(head)) != place.crc:
        return "its checksum does not match"
    return ""


def _sync_folder(folder: Path) -> None:
    """Put the names of new and removed files on the disk, where the system can do that."""
    if os.name != "nt":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
