"""The refusals of options, each by the flags that a user passes."""

import pytest

from runtime.flags import build
from runtime.npu.options import NpuFlags, chosen
from tests.npu_double.fixtures import cards  # noqa: F401

pytestmark = pytest.mark.usefixtures("cards")  # no CANN and no card of this machine is seen


def refusal(**flags):
    with pytest.raises(ValueError) as caught:
        chosen(build(NpuFlags, flags))
    return str(caught.value)


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
        (dict(npu_option=("graph_slice=auto",), cann="6.3.RC1"), "came with CANN 7.0, and --cann"),
        (dict(npu_option=("jit_compile=auto",), cann="6.0"), "'auto' is not true or false"),
        (dict(auto_tune_mode="GA", cann="6.0"), "is gone since CANN 6.0, came with CANN 6.3"),
        (dict(npu_option=("es_cluster_config=x",), cann="9"), "is gone since a CANN from 8.0 to 9"),
        (
            dict(npu_option=("oo_level=O1",), cann="7.0"),
            "came with a CANN from 8.0 to 9.0",
        ),
        (dict(hccl_timeout=600, cann="5.0.2"), "--hccl_timeout came with CANN 5.1"),
        (dict(cann="10.1"), "--cann 10.1 is not a version that is known here"),
        (dict(iterations_per_loop=10, enable_data_pre_proc=False), "needs the device to fetch"),
        (dict(iterations_per_loop=10, mix_compile_mode=True), "pass --enable_data_pre_proc"),
        (
            dict(precision_mode="allow_mix_precision_bf16"),
            "is for 910B and 910C, and the",
        ),
        (
            dict(npu_option=("precision_mode_v2=mixed_hif8",), npu_card="910C"),
            "is for none of the cards",
        ),
        (
            dict(npu_option=("input_batch_cpy=true",), cann="9"),
            "is for 910B and 910C",
        ),
        (dict(hccl_timeout=0), "must be 1 to 17340 seconds, as the card is a 910A"),
        (dict(npu_option=("variable_placement=Host",)), "needs --mix_compile_mode"),
        (dict(enable_dump=True), "need --dump_path"),
        (dict(enable_dump=True, dump_path="/no/such"), "is not an existing directory"),
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


def test_an_option_that_may_be_there_is_taken():
    values = chosen(NpuFlags(cann="8.1", npu_option=("input_fusion_size=0",)))
    assert values["input_fusion_size"] == 0


@pytest.mark.parametrize("name", ["910B", "910C"])
def test_what_a_newer_card_has_is_taken(name):
    flags = dict(npu_card=name, hccl_timeout=0, precision_mode="allow_mix_precision_bf16")
    values = chosen(NpuFlags(cann="9", npu_option=("aicore_num=2|4",), **flags))
    assert values["aicore_num"] == "2|4" and values["hccl_timeout"] == 0
