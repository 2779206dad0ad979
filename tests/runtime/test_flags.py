import dataclasses
from typing import Optional, Tuple

import pytest

from runtime.flags import flag, parse_flags


@dataclasses.dataclass(frozen=True)
class Example:
    config: Optional[str] = flag(None, "a YAML file")
    path: str = flag(dataclasses.MISSING, "where it lies")
    count: int = flag(3, "how many", low=1, high=9)
    share: float = flag(0.5, "how much", above=0.0, below=1.0)
    steps: Tuple[int, ...] = flag((1, 2), "when")
    kind: str = flag("red", "which:", choices=("red", "green"))
    loud: bool = flag(False, "whether")
    size: Optional[int] = flag(None, "how large", alias=("extent",))


def parse(*argv):
    return parse_flags(Example, list(argv))


def test_defaults_stand_when_nothing_is_said():
    assert parse("--path", "x") == Example(path="x")


def test_text_becomes_the_type_of_the_field():
    said = parse("--path", "x", "--count", "4", "--share", "1e-3", "--size", "7", "--loud")
    assert said == Example(path="x", count=4, share=1e-3, size=7, loud=True)


@pytest.mark.parametrize("words", [["4", "5", "6"], ["4,5,6"], ["4,5", "6"]])
def test_a_list_is_said_with_blanks_or_commas(words):
    assert parse("--path", "x", "--steps", *words).steps == (4, 5, 6)


@pytest.mark.parametrize(
    "words, value",
    [
        (["--loud"], True),
        (["--loud", "false"], False),
        (["--no_loud"], False),
        (["--loud", "True"], True),
    ],
)
def test_a_switch_is_said_bare_or_with_a_value(words, value):
    assert parse("--path", "x", *words).loud is value


def test_an_alias_sets_the_field_and_stays_out_of_the_help(capsys):
    assert parse("--path", "x", "--extent", "8").size == 8
    with pytest.raises(SystemExit) as end:
        parse("--help")
    shown = capsys.readouterr().out
    assert end.value.code == 0 and "--size" in shown and "--extent" not in shown


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("path: from-file\ncount: 5\nsteps: [7, 8]\nlr: 1\n".replace("lr: 1\n", ""))
    said = parse("--config", str(path), "--count", "6")
    assert (said.path, said.count, said.steps) == ("from-file", 6, (7, 8))


@pytest.mark.parametrize(
    "content, sentence",
    [
        ("cuont: 5", "cuont is not a known flag; did you mean count?"),
        ("count: many", "count is 'many', which is not a whole number"),
        ("count: 50", "--count 50 is out of range: it must be 1 or more and 9 or less"),
        ("- a\n- b", "holds no `name: value` lines"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path, content, sentence):
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=".*") as error:
        parse("--path", "x", "--config", str(path))
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--cuont", "4"], "--cuont is not a known flag; did you mean --count?"),
        (["--count", "0"], "--count 0 is out of range: it must be 1 or more and 9 or less."),
        (["--share", "nan"], "--share nan is out of range"),
        (["--share", "1.0"], "--share 1.0 is out of range: it must be above 0.0 and below 1.0."),
        (
            ["--kind", "grean"],
            "--kind grean is not known; choose one of red, green. Did you mean green?",
        ),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(words, sentence):
    with pytest.raises(ValueError) as error:
        parse("--path", "x", *words)
    assert sentence in str(error.value)


def test_a_missing_flag_is_named_with_its_meaning():
    with pytest.raises(ValueError, match="--path is missing: where it lies"):
        parse("--count", "4")


def test_a_value_of_the_wrong_type_ends_with_code_2(capsys):
    with pytest.raises(SystemExit) as end:
        parse("--path", "x", "--count", "four")
    shown = capsys.readouterr().err
    assert end.value.code == 2
    assert shown == "error: argument --count: 'four' is not a whole number.\n"
