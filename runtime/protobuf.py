"""Reads protobuf's wire format without its package: fields of a message, and numbers."""

from typing import Any, Iterator, Optional, Tuple

NUMBER, EIGHT_BYTES, LENGTH_DELIMITED, FOUR_BYTES = 0, 1, 2, 5  # wire types
BITS = 70  # a 64-bit number takes at most ten bytes of seven bits


class ProtobufError(ValueError):
    """The bytes are no message. missing: bytes of a field that the message lacks; at_end: whether
    the bytes end inside a number."""

    def __init__(self, reason: str, missing: Optional[int] = None, at_end: bool = False) -> None:
        super().__init__(reason)
        self.missing, self.at_end = missing, at_end


def fields(view: memoryview) -> Iterator[Tuple[int, Any]]:
    """(field number, value) of a message, in order: an int, or a view of the field's bytes."""
    at = 0
    value: Any
    while at < len(view):
        key, at = number(view, at)
        wire_type = key & 7
        if wire_type == NUMBER:
            value, at = number(view, at)
        elif wire_type in (EIGHT_BYTES, LENGTH_DELIMITED, FOUR_BYTES):
            size = 8 if wire_type == EIGHT_BYTES else 4
            if wire_type == LENGTH_DELIMITED:
                size, at = number(view, at)
            if size > len(view) - at:
                missing = size - (len(view) - at)
                raise ProtobufError("a field is longer than its message", missing)
            value, at = view[at : at + size], at + size
        else:
            raise ProtobufError(f"wire type {wire_type}")
        yield key >> 3, value


def number(view: memoryview, at: int) -> Tuple[int, int]:
    """The unsigned 64-bit number at a place -> (number, the place after it)."""
    value = shift = 0
    while at < len(view) and shift < BITS:
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise ProtobufError("a number does not end", at_end=at >= len(view))
