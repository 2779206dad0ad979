"""Forms: parts come back byte for byte, and a damaged form is refused."""

import pytest

from serving.multipart import MAX_PARTS, parse_multipart

TYPE = "multipart/form-data; boundary=xYz"


def body(*parts):
    lines = [
        b'--xYz\r\nContent-Disposition: form-data; name="%s"\r\n' % name
        + b"Content-Type: image/png\r\n\r\n%s\r\n" % content
        for name, content in parts
    ]
    return b"".join(lines) + b"--xYz--\r\n"


def test_parts_come_back_byte_for_byte():
    content = bytes(range(256)) + b"\r\n--xY\r\n--\r\n\r\n"
    parts = parse_multipart(TYPE, body((b"a", content), (b"b", b"")))
    assert [tuple(part) for part in parts] == [("a", content), ("b", b"")]


def test_quoted_boundary_and_escaped_name_are_read():
    parts = parse_multipart('multipart/form-data; boundary="xYz"', body((b"a%22b", b"1")))
    assert parts[0].name == 'a"b'


@pytest.mark.parametrize(
    "kind, content, words",
    [
        ("multipart/form-data", body((b"a", b"1")), "no boundary"),
        ("text/plain; boundary=xYz", body((b"a", b"1")), "no boundary"),
        (TYPE, body((b"a", b"1"))[:-9], "last boundary"),
        (TYPE, b"", "last boundary"),
        (TYPE, b"--xYz\r\n\r\n1\r\n--xYz--", "no name"),
        (TYPE, body(*[(b"a", b"1")] * (MAX_PARTS + 1)), "more than"),
    ],
)
def test_damaged_form_is_refused(kind, content, words):
    with pytest.raises(ValueError, match=words):
        parse_multipart(kind, content)
