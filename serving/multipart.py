"""multipart/form-data -> its parts, with every size checked. File names are ignored."""

import re
from typing import List, NamedTuple
from urllib.parse import unquote

MAX_PARTS = 24
MAX_HEADERS = 2048  # bytes of a part's headers
_BOUNDARY = re.compile(
    r'^multipart/form-data\s*;.*?boundary=("?)([\w\'()+,./:=? -]{1,70})\1', re.IGNORECASE
)
_NAME = re.compile(
    rb'content-disposition:\s*form-data\s*;[^\r\n]*?\bname="([^"\r\n]{1,100})"', re.I
)


class Part(NamedTuple):
    """A field of a form."""

    name: str
    content: bytes


def parse_multipart(content_type: str, body: bytes) -> List[Part]:
    """The parts of a body, in order; a ValueError names what is wrong."""
    found = _BOUNDARY.match(content_type)
    if not found:
        raise ValueError("the Content-Type has no boundary of multipart/form-data")
    mark = b"--" + found.group(2).strip().encode("ascii")
    pieces = (b"\r\n" + body).split(b"\r\n" + mark)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise ValueError("the form ends before its last boundary")
    if len(pieces) - 2 > MAX_PARTS:
        raise ValueError(f"the form has more than {MAX_PARTS} fields")
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece):
    headers, blank, content = piece.partition(b"\r\n\r\n")
    name = _NAME.search(headers) if len(headers) <= MAX_HEADERS else None
    if not blank or not name:
        raise ValueError("a field of the form has no name")
    return Part(unquote(name.group(1).decode("utf-8", "replace")), content)
