"""Reading single fields of a FlatBuffer that nobody has vouched for.

The format: https://flatbuffers.dev/internals. The generated readers of the flatbuffers package trust every
offset; here each one is checked against the buffer before it is followed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tfbert_npu.errors import ArtifactError


@dataclass(frozen=True)
class Table:
    """A table: fields by number, each absent or at an offset.

    Attributes:
        data: The whole buffer.
        position: Where the table starts.
    """

    data: memoryview
    position: int

    @classmethod
    def root(cls, data: memoryview) -> Table:
        """The root table of a buffer."""
        return cls(data, _u32(data, 0))

    def string(self, field: int) -> str | None:
        """A string field, or None where it is absent."""
        start = self._target(field)
        if start is None:
            return None
        raw = _slice(self.data, start + 4, _u32(self.data, start))
        try:
            return bytes(raw).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ArtifactError("a string in it is not UTF-8") from error

    def numbers(self, field: int, most: int) -> tuple[int, ...]:
        """A vector of int32, empty where it is absent; `most` is the largest length that makes sense."""
        start, count = self._vector(field, most)
        return struct.unpack(f"<{count}i", _slice(self.data, start, 4 * count))

    def tables(self, field: int, most: int) -> tuple[Table, ...]:
        """A vector of tables, empty where it is absent."""
        start, count = self._vector(field, most)
        places = range(start, start + 4 * count, 4)
        return tuple(Table(self.data, place + _u32(self.data, place)) for place in places)

    def _vector(self, field: int, most: int) -> tuple[int, int]:
        start = self._target(field)
        if start is None:
            return 0, 0
        count = _u32(self.data, start)
        if count > most:
            raise ArtifactError(f"a vector in it has {count} elements")
        return start + 4, count

    def _target(self, field: int) -> int | None:
        table = self.position - _i32(self.data, self.position)
        if table < 0:
            raise ArtifactError("an offset in it points outside")
        entry = 4 + 2 * field
        if entry + 2 > _u16(self.data, table):
            return None
        offset = _u16(self.data, table + entry)
        if offset == 0:
            return None
        place = self.position + offset
        return place + _u32(self.data, place)


def _slice(data: memoryview, start: int, length: int) -> memoryview:
    if start < 0 or start + length > len(data):
        raise ArtifactError("an offset in it points outside")
    return data[start : start + length]


def _u16(data: memoryview, place: int) -> int:
    return int.from_bytes(_slice(data, place, 2), "little")


def _u32(data: memoryview, place: int) -> int:
    return int.from_bytes(_slice(data, place, 4), "little")


def _i32(data: memoryview, place: int) -> int:
    return int.from_bytes(_slice(data, place, 4), "little", signed=True)
