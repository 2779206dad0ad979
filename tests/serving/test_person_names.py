"""Names: any script, one spelling, nothing that looks like a path or like another name."""

import pytest

from serving.person_names import LONGEST_NAME, checked_name


@pytest.mark.parametrize(
    "name", ["李明", "محمد علی", "<script>alert(1)", "O'Brien", "X" * LONGEST_NAME]
)
def test_name_is_accepted(name):
    assert checked_name(name) == name


@pytest.mark.parametrize(
    "name, words",
    [
        ("", "is not a name"),
        ("..", "is not a name"),
        ("a/b", "slashes"),
        ("a\\b", "slashes"),
        ("a\nb", "line breaks"),
        ("a\0b", "control"),
        ("abc\u202edcb", "control"),
        ("x" * 300, "300 characters"),
        ("a\ud800b", "control"),
    ],
)
def test_name_is_refused(name, words):
    with pytest.raises(ValueError, match=words):
        checked_name(name)


def test_blanks_around_a_name_are_removed():
    assert checked_name("  Jane Doe \t") == "Jane Doe"


def test_decomposed_spelling_becomes_the_composed_one():
    assert checked_name("Zoe\u0308") == "Zo\u00eb"
