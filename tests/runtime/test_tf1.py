import os

import pytest

from runtime import tf1
from runtime.tf1 import tf


def test_the_flag_of_version_2_is_that_of_the_version():
    assert tf1.TF2 == (int(tf1.VERSION.split(".")[0]) >= 2)


def test_graphs_are_built_and_variables_are_resources():
    with tf.Graph().as_default():
        variable = tf.get_variable("v", [2])
        assert variable.op.type == "VarHandleOp"  # nothing is executed eagerly


def test_a_graph_for_an_npu_is_marked_and_has_ref_variables():
    with tf.Graph().as_default():
        tf1.build_for("npu")
        assert tf1.for_npu()
        assert tf.get_variable("v", [2]).op.type == "VariableV2"


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_other_graphs_are_not_marked(device):
    with tf.Graph().as_default():
        tf1.build_for("npu")
    with tf.Graph().as_default():
        tf1.build_for(device)
        assert not tf1.for_npu()
        assert tf.get_variable("v", [2]).op.type == "VarHandleOp"


def test_messages_during_the_import_are_dropped_and_later_ones_kept(capfd):
    with tf1._quiet():
        os.write(2, b"from C++\n")
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "later\n"
