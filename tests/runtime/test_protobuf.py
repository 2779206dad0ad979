import pytest

from runtime.protobuf import ProtobufError, fields, number


def test_fields_are_numbers_and_views_in_order():
    message = memoryview(b"\x08\xac\x02\x12\x02hi\x1d\x01\x02\x03\x04")
    found = [
        (key, value if isinstance(value, int) else bytes(value)) for key, value in fields(message)
    ]
    assert found == [(1, 300), (2, b"hi"), (3, b"\x01\x02\x03\x04")]


def test_number_is_unsigned_64_bits():
    assert number(memoryview(b"\xff" * 9 + b"\x01"), 0) == ((1 << 64) - 1, 10)


@pytest.mark.parametrize(
    "content, reason, missing, at_end",
    [
        (b"\x12\x05hi", "a field is longer than its message", 3, False),
        (b"\x0b", "wire type 3", None, False),
        (b"\x08\x80", "a number does not end", None, True),
        (b"\x08" + b"\x80" * 11, "a number does not end", None, False),
    ],
)
def test_damage_is_described(content, reason, missing, at_end):
    with pytest.raises(ProtobufError, match=reason) as raised:
        list(fields(memoryview(content)))
    assert (raised.value.missing, raised.value.at_end) == (missing, at_end)
