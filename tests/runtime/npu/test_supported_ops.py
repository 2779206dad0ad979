"""The table of operations is consistent with itself and with TensorFlow's own list."""

import re

from runtime.npu import supported_ops
from runtime.tf1 import tf

OF_THE_DEVICE = re.compile("^(Hcom|Npu|DropOut)")  # not TensorFlow's


def test_each_operation_has_evidence_of_a_known_kind():
    for kind, evidence in supported_ops.EVIDENCE.items():
        letters = re.sub(r" ?\([^)]*\)", "", evidence).split(", ")
        assert set(letters) <= set("LPMWA"), f"{kind}: {evidence}"


def test_no_operation_is_both_supported_and_refused():
    assert not set(supported_ops.EVIDENCE) & set(supported_ops.NEVER)


def test_names_are_operations_of_tensorflow_or_of_the_device():
    """A misspelt entry would refuse, or let through, nothing."""
    names = list(supported_ops.EVIDENCE) + list(supported_ops.NEVER)
    names += list(supported_ops.REF_USERS) + list(supported_ops.SPARE_OUTPUTS)
    unknown = [n for n in names if not OF_THE_DEVICE.match(n) and not hasattr(tf.raw_ops, n)]
    assert unknown == []


def test_users_of_references_are_supported_operations():
    assert set(supported_ops.REF_USERS) <= set(supported_ops.EVIDENCE)
