import dataclasses
import importlib.util
import os
import re

import pytest

from runtime.flags import build, parse_flags
from runtime.npu.options import NEWEST, OPTIONS, TYPED, NpuFlags, chosen, may_overflow
from tests.npu_double.fixtures import HERE

FIELDS = {bool: "b", int: "i", str: "s"}
# The adapter's branch of a version of CANN, as docs/ascend.md has it.
BRANCHES = {(5, 0): 5, (5, 1): 8, (6, 0): 11, (6, 3): 12, (7, 0): 15}


def known():
    """The double's own list of options, written apart from this repository's."""
    path = os.path.join(HERE, "npu_bridge", "known.py")
    spec = importlib.util.spec_from_file_location("known", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.KNOWN


def said(**flags):
    return chosen(build(NpuFlags, flags))


def refusal(**flags):
    with pytest.raises(ValueError) as caught:
        said(**flags)
    return str(caught.value)


def test_a_training_says_little_by_itself():
    assert chosen() == {
        "use_off_line": True,
        "graph_run_mode": 1,
        "precision_mode": "allow_mix_precision",
        "enable_data_pre_proc": True,
        "iterations_per_loop": 1,
    }
    assert chosen(cards=8)["hcom_parallel"] is True
    assert chosen(training=False)["graph_run_mode"] == 0


@pytest.mark.parametrize("name", sorted(known()))
def test_the_table_agrees_with_one_that_was_written_apart(name):
    field, since, pattern = known()[name]
    option = OPTIONS[name]
    assert FIELDS[option.kind] == field
    assert BRANCHES[option.since] >= since or option.since == (5, 0) and since <= 5
    values = option.choices or ([option.low] if option.low is not None else [])
    values = [str(value) for value in values]
    of_910 = [value for value in values if "bf16" not in value and "bfloat" not in value]
    assert all(re.match(f"^({pattern})$", value) for value in of_910 if pattern)


def test_every_option_for_training_is_a_flag_of_its_name():
    names = {field.name for field in dataclasses.fields(NpuFlags)}
    assert names == set(TYPED) | {"cann", "npu_option"}
    assert {"precision_mode", "hcom_parallel", "dump_path", "session_device_id"} <= set(TYPED)


def test_other_options_are_read_as_the_table_types_them():
    found = said(npu_option=("deterministic=1", "jit_compile=false", "external_weight=true"))
    assert (found["deterministic"], found["jit_compile"]) == (1, "false")
    assert found["external_weight"] is True


def test_the_commas_of_a_value_stay():
    argv = ["--npu_option", "optypelist_for_implmode=Pooling,SoftmaxV2", "deterministic=1"]
    found = chosen(parse_flags(NpuFlags, argv + ["--op_select_implmode", "high_precision"]))
    assert found["optypelist_for_implmode"] == "Pooling,SoftmaxV2"
    assert found["deterministic"] == 1


@pytest.mark.parametrize(
    "flags, words",
    [
        (dict(npu_option=("dump_mod=all",)), "no option of NpuOptimizer; did you mean dump_mode?"),
        (dict(npu_option=("deterministic=yes",)), "'yes' is not a whole number"),
        (dict(npu_option=("external_weight=1",)), "'1' is not true or false"),
        (dict(npu_option=("deterministic",)), "has no value; write deterministic=VALUE"),
        (dict(npu_option=("deterministic=2",)), "must be one of 0, 1"),
        (dict(npu_option=("dump_step=5-",)), "must be text of the form"),
        (dict(npu_option=("dynamic_input=true",)), "shapes are static here"),
        (dict(npu_option=("min_group_size=1",)), "no version of the adapter reads it"),
        (dict(npu_option=("use_off_line=true",), use_off_line=True), "is given twice"),
        (dict(npu_option=("jit_compile=true",), cann="6.3.RC1"), "came with CANN 7.0, and --cann"),
        (dict(hccl_timeout=600, cann="5.0.2"), "--hccl_timeout came with CANN 5.1"),
        (dict(cann="8.1"), "--cann 8.1 is not a version that is known here"),
        (dict(iterations_per_loop=10, enable_data_pre_proc=False), "needs the device to fetch"),
        (dict(iterations_per_loop=10, mix_compile_mode=True), "pass --enable_data_pre_proc"),
        (dict(precision_mode="allow_mix_precision_bf16"), "the Ascend 910 has no bfloat16"),
        (dict(enable_dump=True), "need --dump_path"),
        (dict(enable_dump=True, dump_path="/no/such"), "is not a directory that is there"),
        (dict(enable_dump=True, enable_dump_debug=True, dump_path="/"), "cannot be used together"),
        (dict(enable_dump=True, profiling_mode=True, dump_path="/"), "a dump cannot be used"),
        (dict(local_device_list="0,1"), "needs --local_rank_id"),
        (dict(local_device_list="0;1", local_rank_id=0), "must be text of the form"),
        (dict(graph_memory_max_size="15G"), "must be text of the form"),
        (dict(is_tailing_optimization=True), "omit it"),
    ],
)
def test_what_the_adapter_would_ignore_is_refused(flags, words):
    assert words in refusal(**flags)


def test_lists_of_mixed_precision_are_refused_without_mixed_precision(tmp_path):
    path = tmp_path / "list.json"
    path.write_text("{}")
    assert said(modify_mixlist=str(path))["modify_mixlist"] == str(path)
    words = refusal(modify_mixlist=str(path), precision_mode="force_fp32")
    assert "--precision_mode is force_fp32" in words


def test_a_choice_is_refused_while_flags_are_read():
    with pytest.raises(ValueError, match="--precision_mode half is not known; choose one of"):
        parse_flags(NpuFlags, ["--precision_mode", "half"])


def test_gradients_are_scaled_wherever_half_precision_may_be():
    assert may_overflow(NpuFlags())
    assert may_overflow(NpuFlags(precision_mode="allow_fp32_to_fp16"))
    assert not may_overflow(NpuFlags(precision_mode="force_fp32"))
    assert not may_overflow(NpuFlags(npu_option=("precision_mode_v2=origin",)))


def test_nothing_in_the_table_is_newer_than_the_newest():
    assert max(option.since for option in OPTIONS.values()) <= NEWEST


@pytest.mark.parametrize(
    "option, cann, first",
    [
        ("external_weight=true", "5.1", "6.0"),
        ("device_type=x", "5.0", "5.1"),
        ("frozen_variable=true", "6.0", "6.3"),
        ("graph_slice=auto", "6.3", "7.0"),
    ],
)
def test_an_option_of_a_later_cann_is_refused(option, cann, first):
    name = option.split("=")[0]
    assert f"--{name} came with CANN {first}" in refusal(npu_option=(option,), cann=cann)
    chosen(NpuFlags(npu_option=(option,), cann=first))


@pytest.mark.parametrize(
    "name", ["const_input", "enable_compress_weight", "experimental_model_deploy_mode"]
)
def test_an_option_that_training_cannot_use_is_refused_with_the_reason(name):
    assert f"--npu_option {name} cannot be set here" in refusal(npu_option=(f"{name}=x",))


def test_npu_help_lists_every_option_and_its_cann(capsys):
    with pytest.raises(SystemExit) as end:
        parse_flags(NpuFlags, ["--npu_help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0 and not [name for name in OPTIONS if f"  {name}: " not in shown]
    assert "  external_weight: true or false; CANN 6.0 or later" in shown


def test_the_common_help_has_no_option_of_the_adapter(capsys):
    with pytest.raises(SystemExit):
        parse_flags(NpuFlags, ["--help_all"])
    shown = capsys.readouterr().out
    assert "--npu_option" in shown and "--precision_mode" not in shown
