import dataclasses
from typing import Optional, Tuple

import pytest

from runtime.flags import (
    build,
    flag,
    free_on_resume,
    nested,
    parse_command,
    parse_flags,
    replace,
    values_of,
)


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
        ("- a\n- b", "has no `name: value` lines"),
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
    assert shown == "error: --count: 'four' is not a whole number.\n"


@dataclasses.dataclass(frozen=True)
class Places:
    """Where things are."""

    path: str = flag(dataclasses.MISSING, "what to read", positional=True)
    decode: bool = flag(False, "whether to decode")
    config: Optional[str] = flag(None, "YAML file")
    epoch: int = flag(1, "how long")


@dataclasses.dataclass(frozen=True)
class Runs:
    """Compares runs."""

    runs: Tuple[str, ...] = flag((), "directories", positional=True)
    device: str = flag("cpu", "where to run:", choices=("cpu", "gpu", "npu"), common=True)
    note: str = flag("", "text", group="rare")
    extra: Tuple[str, ...] = flag((), "more", group="rare", resume="free")


@dataclasses.dataclass(frozen=True)
class Cluster:
    hosts: Tuple[str, ...] = flag((), "hosts", resume="free")
    index: int = flag(0, "this host", low=0)


@dataclasses.dataclass(frozen=True)
class WithCluster:
    lr: float = flag(0.1, "rate")
    cluster: Cluster = nested(Cluster)


def refusal(config_class, *argv):
    with pytest.raises(ValueError) as error:
        parse_flags(config_class, list(argv))
    return str(error.value)


def help_of(config_class, capsys, *argv):
    with pytest.raises(SystemExit) as end:
        parse_flags(config_class, list(argv or ["--help"]), "Does it.\n\n    python x.py PATH\n")
    assert end.value.code == 0
    return capsys.readouterr().out


def test_a_positional_flag_needs_no_name():
    assert parse_flags(Places, ["x.rec"]).path == "x.rec"
    assert parse_flags(Places, ["--path", "x.rec"]).path == "x.rec"


def test_a_positional_flag_comes_after_a_switch():
    assert parse_flags(Places, ["--decode", "x.rec"]) == Places(path="x.rec", decode=True)
    assert parse_flags(Places, ["--decode", "no", "x.rec"]).decode is False


def test_a_positional_tuple_takes_all_arguments():
    assert parse_flags(Runs, ["a", "b", "--device", "gpu", "c"]).runs == ("a", "b", "c")


def test_a_second_positional_argument_is_unexpected():
    assert "b is an unexpected argument" in refusal(Places, "a", "b")
    assert "b is an unexpected argument" in refusal(Places, "--path", "a", "b")


def test_a_bare_yaml_file_names_the_flag_for_it():
    assert refusal(Places, "a", "x.yaml") == "x.yaml has no flag; pass --config x.yaml."


def test_a_missing_positional_is_named_with_its_meaning():
    assert refusal(Places).startswith("path is missing: what to read")


@pytest.mark.parametrize("word", ["--epochs", "--num_epochs=3", "--epoch-s"])
def test_a_synonym_of_other_trainers_names_our_flag(word):
    assert "did you mean --epoch?" in refusal(Places, "a", word, "3")


def test_a_synonym_names_only_flags_that_exist():
    assert "did you mean --lr?" in refusal(WithCluster, "--learning_rate", "1")
    assert "--lr" not in refusal(Places, "--learning_rate", "1")


def test_the_help_shows_choices_in_place_of_a_value(capsys):
    assert "--device {cpu,gpu,npu}" in help_of(Runs, capsys)


def test_an_empty_default_is_not_shown(capsys):
    shown = help_of(Runs, capsys, "--help_all")
    assert "(default: )" not in shown and "(default: cpu)" in shown


def test_a_switch_shows_its_default_as_it_is_typed(capsys):
    assert "(default: no)" in help_of(Places, capsys)


def test_the_help_shows_the_common_flags_and_help_all_the_others(capsys):
    short, full = help_of(Runs, capsys), help_of(Runs, capsys, "--help_all")
    assert "--note" not in short and "--help_all lists all 4 flags" in short
    assert "--note" in full and "--help_all" not in full


def test_the_help_starts_with_usage_and_examples(capsys):
    shown = help_of(Places, capsys)
    assert shown.index("[flags]") < shown.index("python x.py PATH") < shown.index("--decode")


@pytest.mark.parametrize("columns, widest", [("60", 58), ("90", 88), ("500", 120)])
def test_the_help_fits_the_terminal(capsys, monkeypatch, columns, widest):
    monkeypatch.setenv("COLUMNS", columns)
    shown = help_of(Runs, capsys, "--help_all")
    assert max(map(len, shown.splitlines())) <= widest


def test_nested_flags_are_flat_on_the_command_line_and_in_yaml(tmp_path):
    assert parse_flags(WithCluster, ["--hosts", "a,b"]).cluster.hosts == ("a", "b")
    assert build(WithCluster, {"index": 2, "lr": 0.5}) == WithCluster(0.5, Cluster((), 2))
    assert "--index -1 is out of range" in refusal(WithCluster, "--index=-1")


def test_values_of_a_config_build_it_again():
    config = WithCluster(0.5, Cluster(("a",), 1))
    assert values_of(config) == {"lr": 0.5, "hosts": ("a",), "index": 1}
    assert build(WithCluster, values_of(config)) == config


def test_replace_reaches_nested_flags():
    config = replace(WithCluster(), index=3)
    assert config.cluster.index == 3 and config.lr == WithCluster().lr


def test_free_on_resume_lists_the_fields_marked_so():
    assert free_on_resume(WithCluster) == {"hosts"}
    assert free_on_resume(Runs) == {"extra"}


def test_a_command_chooses_the_config_class():
    name, config = parse_command({"show": Places, "compare": Runs}, ["compare", "a"])
    assert (name, config.runs) == ("compare", ("a",))


@pytest.mark.parametrize(
    "argv, sentence",
    [([], "a command is missing; pass one of show."), (["shwo"], "Did you mean show?")],
)
def test_an_unknown_command_is_one_sentence(argv, sentence):
    with pytest.raises(ValueError) as error:
        parse_command({"show": Places}, argv)
    assert sentence in str(error.value)


def test_the_help_of_commands_lists_them(capsys):
    with pytest.raises(SystemExit):
        parse_command({"show": Places}, ["--help"], "Does it.")
    assert "show         Where things are." in capsys.readouterr().out
