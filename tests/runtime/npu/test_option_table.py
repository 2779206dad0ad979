import importlib.util
import os
import re

import pytest

from runtime.npu import option_table
from runtime.npu.option_checks import REFUSED
from runtime.npu.option_table import column, first, history, is_read, option_at, table
from tests.npu_double.fixtures import HERE

FIELDS = {bool: "b", int: "i", str: "s"}


def known():
    """The double's own list of options, written apart from the table: (list, its newest branch)."""
    path = os.path.join(HERE, "npu_bridge", "known.py")
    spec = importlib.util.spec_from_file_location("known", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.KNOWN, module.MAIN


KNOWN, MAIN = known()


def branch(version):
    """The N of the adapter's branch r1.N of a column."""
    name = table().adapters[version]
    return int(name[3:]) if name and name.startswith("r1.") else MAIN


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_the_table_agrees_with_the_doubles_own_list(name):
    field, since, pattern = KNOWN[name]
    option, oldest = table().options[name], first(name)
    assert FIELDS[option.kind] == field or name == "jit_compile"
    recorded = [one for one in table().columns if table().adapters[one]]
    before = [branch(one) for one in recorded if one < oldest]
    # jit_compile is older than its present type, which is the one that the double has.
    assert (before or [0])[-1] < max(since, 5) or name == "jit_compile"
    assert branch(oldest) >= since or oldest == (5, 0) or name == "jit_compile"
    known_values = [value for value in option.choices if "hif8" not in str(value)]
    assert all(re.match(f"^({pattern})$", str(value)) for value in known_values if pattern)


def test_the_double_and_the_table_have_the_same_options():
    assert set(KNOWN) == set(table().options) - set(REFUSED)


def test_a_version_has_the_newest_column_that_is_not_later():
    assert column((6, 1)) == (6, 0)
    assert column((8, 5)) == (8, 0)
    assert column((9, 1)) == (9, 0)


def test_an_option_is_read_from_the_column_on_that_has_it():
    assert is_read("external_weight", (5, 1)) is False
    assert is_read("external_weight", (6, 0)) is True


def test_what_both_neighbours_have_a_version_without_source_has():
    assert table().options["external_weight"].read[8, 0] is None
    assert is_read("external_weight", (8, 0)) is True


def test_what_the_neighbours_disagree_on_is_unknown():
    assert is_read("input_fusion_size", (7, 0)) is False
    assert is_read("input_fusion_size", (9, 0)) is True
    assert is_read("input_fusion_size", (8, 2)) is None


def test_what_nobody_recorded_before_is_unknown():
    assert is_read("const_input", (5, 0)) is None


@pytest.mark.parametrize(
    "name, phrase",
    [
        ("use_off_line", ""),
        ("external_weight", "came with CANN 6.0"),
        ("input_fusion_size", "came with a CANN from 8.0 to 9.0"),
        ("es_cluster_config", "came with CANN 7.0, is gone since a CANN from 8.0 to 9.0"),
        ("auto_tune_mode", "is gone since CANN 6.0, came with CANN 6.3"),
    ],
)
def test_the_history_names_the_versions_that_added_and_removed_an_option(name, phrase):
    assert history(name) == phrase


def test_an_option_may_have_another_type_in_an_older_version():
    assert option_at("jit_compile", (6, 0)).kind is bool
    assert option_at("jit_compile", (9, 0)).kind is str


def test_an_option_may_have_another_default_in_an_older_version():
    assert option_at("hcom_parallel", (5, 1)).default is False
    assert option_at("hcom_parallel", (7, 0)).default is True


def test_every_column_names_its_source():
    assert all(len(table().sources[version]) > 40 for version in table().columns)


def test_every_option_has_an_entry_for_every_column():
    assert all(set(option.read) == set(table().columns) for option in table().options.values())


def test_a_default_is_of_the_options_type():
    for version in table().columns:
        for name in table().options:
            option = option_at(name, version)
            assert option.default is None or type(option.default) is option.kind


def test_a_version_is_spelled_as_it_is_read():
    assert option_table.version_of(option_table.spelled((6, 3))) == (6, 3)
