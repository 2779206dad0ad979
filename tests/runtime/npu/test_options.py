import dataclasses
import logging

import pytest

from runtime.flags import build, parse_flags
from runtime.npu.option_checks import REFUSED
from runtime.npu.option_table import table
from runtime.npu.options import TYPED, NpuFlags, chosen, log_target, may_overflow
from tests.npu_double.fixtures import cards  # noqa: F401

pytestmark = pytest.mark.usefixtures("cards")  # no CANN and no card of this machine is seen


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


def test_every_option_for_training_is_a_flag_of_its_name():
    names = {field.name for field in dataclasses.fields(NpuFlags)}
    assert names == set(TYPED) | {"cann", "npu_card", "npu_option"}
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
    assert may_overflow(NpuFlags(npu_option=("precision_mode_v2=mixed_float16",)))


def test_gradients_of_bfloat16_are_not_scaled():
    flags = dict(npu_card="910B", precision_mode="allow_mix_precision_bf16")
    assert not may_overflow(NpuFlags(**flags))


def test_the_log_names_the_version_and_the_card(caplog):
    with caplog.at_level(logging.INFO):
        log_target(NpuFlags(cann="9.1", npu_card="910C"))
    assert caplog.messages == [
        "--device npu: CANN 9.1 (by --cann), a 910C (by --npu_card): an overflow is INF/NaN"
    ]


def test_the_log_warns_of_an_option_that_is_unknown_for_this_version(caplog):
    log_target(NpuFlags(cann="8", npu_option=("input_fusion_size=0",)))
    assert (
        "whether CANN 8.0 reads it is unknown (it came with a CANN from 8.0 to 9.0)"
        in (caplog.messages[-1])
    )


def test_the_log_warns_of_an_option_that_this_version_ignores(caplog):
    log_target(NpuFlags(cann="9", graph_memory_max_size="1073741824"))
    assert caplog.messages[-1] == "--graph_memory_max_size has no effect from CANN 9.0 on."
    log_target(NpuFlags(cann="7.0", graph_memory_max_size="1073741824"))
    assert len(caplog.messages) == 1


def test_npu_help_lists_every_option_and_its_cann(capsys):
    with pytest.raises(SystemExit) as end:
        parse_flags(NpuFlags, ["--npu_help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0 and not [
        name for name in table().options if f"  {name}: " not in shown
    ]
    assert "  external_weight: true or false; came with CANN 6.0" in shown
    assert "; 910B and 910C; came with a CANN from 8.0 to 9.0" in shown
    assert not [name for name in REFUSED if f"  {name}: {REFUSED[name]}" not in shown]


def test_the_common_help_has_no_option_of_the_adapter(capsys):
    with pytest.raises(SystemExit):
        parse_flags(NpuFlags, ["--help_all"])
    shown = capsys.readouterr().out
    assert "--npu_option" in shown and "--precision_mode" not in shown
