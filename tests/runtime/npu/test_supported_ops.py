from runtime.npu.supported_ops import EVIDENCE, HOST, NEVER, REF_USERS, SPARE_OUTPUTS


def test_every_operation_has_its_evidence():
    assert all(EVIDENCE.values())


def test_no_operation_is_both_taken_and_refused():
    assert not set(EVIDENCE) & set(NEVER)
    assert not set(HOST) & set(NEVER)


def test_what_takes_a_reference_has_evidence():
    assert set(REF_USERS) <= set(EVIDENCE)


def test_what_has_a_spare_output_has_evidence():
    assert set(SPARE_OUTPUTS) <= set(EVIDENCE)


def test_the_operations_of_both_overflow_modes_have_evidence():
    assert {"NpuGetFloatStatusV2", "NpuClearFloatStatusV2", "IsFinite"} <= set(EVIDENCE)
