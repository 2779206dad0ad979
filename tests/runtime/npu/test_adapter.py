"""The adapter's calls against its double, which is stricter than it."""

import os
import subprocess
import sys

import numpy as np
import pytest

from runtime.device import strategy
from runtime.distributed.ranks import Ranks
from runtime.npu import adapter as adapted
from runtime.npu import options
from runtime.session import session_config
from runtime.tf1 import TF2, build_for, for_npu, tf
from tests.npu_double.fixtures import HERE, cards, npu, on_cards, proto  # noqa: F401

BOTH = pytest.mark.parametrize("npu", ["r1.5", "r1.15"], indirect=True)


def variable():
    return tf.get_variable("v", [2], tf.float32, tf.zeros_initializer(), use_resource=False)


def test_without_the_adapter_one_sentence_says_what_it_needs():
    assert "npu_bridge" not in sys.modules
    with pytest.raises(ValueError) as caught:
        adapted.adapter()
    words = str(caught.value)
    assert "CANN" in words and "TensorFlow 1.15 and Python 3.7" in words
    assert ("this is TensorFlow 2" if TF2 else "this is TensorFlow 1.15") in words


def test_what_must_be_off_is_off_by_value():
    rewrite = proto().graph_options.rewrite_options
    assert int(rewrite.remapping) == 2 and int(rewrite.memory_optimization) == 2
    assert [entry.name for entry in rewrite.custom_optimizers] == ["NpuOptimizer"]
    assert proto().allow_soft_placement
    assert proto().graph_options.optimizer_options.global_jit_level == -1


def test_each_value_is_in_the_field_of_its_type():
    stored = proto().graph_options.rewrite_options.custom_optimizers[0].parameter_map
    assert stored["use_off_line"].WhichOneof("value") == "b"
    assert stored["iterations_per_loop"].i == 1
    assert stored["precision_mode"].s == b"allow_mix_precision"


def test_plain_tensorflow_runs_the_same_configuration():
    with tf.Graph().as_default(), tf.Session(config=proto()) as session:
        assert session.run(tf.constant(2.0) + 3.0) == 5.0


@BOTH
def test_what_training_says_is_taken(npu):  # noqa: F811
    values = npu.checked(session_config("npu", flags=options.NpuFlags(hcom_parallel=True)))
    assert values["precision_mode"] == "allow_mix_precision" and values["hcom_parallel"] is True


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda p, o: o.parameter_map["precision_mod"].__setattr__("s", b"x"), "no option"),
        (lambda p, o: o.parameter_map["use_off_line"].__setattr__("i", 1), "read from .b"),
        (lambda p, o: o.parameter_map["iterations_per_loop"].__setattr__("i", 0), "must match"),
        (lambda p, o: o.parameter_map["precision_mode"].__setattr__("s", b"half"), "must match"),
        (lambda p, o: _loops_without_data(o), "needs enable_data_pre_proc"),
        (lambda p, o: p.graph_options.rewrite_options.__setattr__("remapping", 1), "OFF"),
        (lambda p, o: p.graph_options.rewrite_options.__setattr__("memory_optimization", 0), "OFF"),
        (lambda p, o: _second(p), "more than once"),
        (lambda p, o: p.graph_options.rewrite_options.ClearField("custom_optimizers"), "without"),
    ],
)
def test_the_double_refuses_what_the_adapter_ignores(npu, spoil, words):  # noqa: F811
    config = proto()
    spoil(config, config.graph_options.rewrite_options.custom_optimizers[0])
    with tf.Graph().as_default(), pytest.raises(npu.Mistake, match=words):
        tf.Session(config=config)


def _loops_without_data(entry):
    entry.parameter_map["iterations_per_loop"].i = 5
    entry.parameter_map["enable_data_pre_proc"].b = False


def _second(config):
    config.graph_options.rewrite_options.custom_optimizers.add().name = "NpuOptimizer"


@pytest.mark.parametrize("npu", ["r1.5"], indirect=True)
def test_the_oldest_adapter_refuses_what_came_later(npu):  # noqa: F811
    with pytest.raises(npu.Mistake, match="hccl_timeout came with r1.7"):
        npu.checked(proto(hccl_timeout=60))


def test_a_session_for_the_host_is_left_alone_by_a_loaded_adapter(npu):  # noqa: F811
    config = session_config("cpu")
    assert npu.checked(config)["use_off_line"] is False
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        assert session.run(tf.strings.join(["a", "b"])) == b"ab"


def test_hccl_is_started_asked_and_ended_once(npu):  # noqa: F811
    def program(rank):
        ranks = Ranks(host=rank, kind="NPU", cards=2)
        with adapted.system(proto(), ranks):
            known = npu.world.current()
            return known.started, known.ended, known

    for started, ended, known in on_cards(npu, 2, program):
        assert (started, ended) == (True, False) and known.ended


def test_a_rank_that_is_not_the_environments_ends_the_run(npu):  # noqa: F811
    def program(rank):
        with adapted.system(proto(), Ranks(host=1 - rank, kind="NPU", cards=2)):
            pass

    with pytest.raises(ValueError, match="HCCL reports rank . of 2, but RANK_ID"):
        on_cards(npu, 2, program)


def test_a_card_alone_starts_no_hccl(npu):  # noqa: F811
    with adapted.system(proto(), Ranks(kind="NPU")):
        assert not npu.world.current().started


def test_a_rank_is_unknown_before_hccl_is_started(npu):  # noqa: F811
    with pytest.raises(npu.Mistake, match="before initialize_system"):
        npu.names.get_rank_id()


def test_hccl_cannot_be_ended_twice(npu):  # noqa: F811
    with tf.Graph().as_default(), tf.Session(config=proto()) as session:
        start, end = npu.names.npu_ops.initialize_system(), npu.names.npu_ops.shutdown_system()
        session.run(start)
        session.run(end)
        with pytest.raises(tf.errors.OpError, match="ends HCCL, which is not running"):
            session.run(end)


class Scale:
    """A loss scale that remembers what it was told."""

    def __init__(self):
        self.told = tf.get_variable("told", [2], tf.float32, tf.zeros_initializer())

    def update(self, finite):
        here = tf.cast(tf.stack([finite, tf.logical_not(finite)]), tf.float32)
        return tf.assign_add(self.told, here).op


@BOTH
def test_a_card_that_overflows_stops_the_update_of_all(npu):  # noqa: F811
    def program(rank):
        build_for("npu")
        v, scale = tf.get_variable("v", [], initializer=tf.zeros_initializer()), Scale()
        pairs = [(tf.constant(1.0), v)]
        move, finite = adapted.guarded(lambda: tf.assign_add(v, 1.0).op, pairs, scale, 2)
        with tf.Session(config=proto()) as session:
            session.run(tf.global_variables_initializer())
            seen = [session.run([finite, move])[0] for _ in range(3)]
            return seen, session.run(v), list(session.run(scale.told))

    def overflowing(rank):
        npu.world.world().overflows.add((1, 2))  # rank 1's second look at its status
        return program(rank)

    for seen, value, told in on_cards(npu, 2, overflowing):
        assert seen == [True, False, True]
        assert value == 2.0 and told == [2.0, 1.0]


@pytest.mark.parametrize("npu", ["r1.15", "main 910A"], indirect=True)
def test_a_910a_has_no_infinities(npu):  # noqa: F811
    assert adapted.has_infinities() is False


NEWER = pytest.mark.parametrize("npu", ["main 910B", "main 910C"], indirect=True)


@NEWER
def test_a_newer_card_has_infinities(npu):  # noqa: F811
    assert adapted.has_infinities() is True


@NEWER
def test_in_saturation_mode_a_newer_card_has_no_infinities(npu):  # noqa: F811
    npu.names.npu_plugin.set_device_sat_mode(0)
    assert adapted.has_infinities() is False


@NEWER
def test_the_double_refuses_the_adapters_own_look_at_infinities_on_several_cards(npu):  # noqa: F811
    def program(rank):
        optimizer = npu.names.NPULossScaleOptimizer(
            tf.train.GradientDescentOptimizer(1.0), npu.names.FixedLossScaleManager(1.0), True
        )
        optimizer.apply_gradients([(tf.constant(1.0), variable())])

    with pytest.raises(npu.Mistake, match="would stop that rank alone"):
        on_cards(npu, 2, program)


@NEWER
def test_an_infinity_of_one_card_stops_the_update_of_all(npu):  # noqa: F811
    def program(rank):
        device = strategy("npu")
        device.build_graph()
        v, scale = tf.get_variable("v", [], initializer=tf.zeros_initializer()), Scale()
        # A slice of the class centres: each rank has a gradient of its own.
        gradient = tf.placeholder_with_default(1.0, [])
        finite = device.collectives(rank, 2).maximum(
            tf.cast(tf.logical_not(tf.is_finite(gradient)), tf.float32)
        )
        move, finite = device.apply_if_finite(
            lambda: tf.assign_add(v, 1.0).op, [(gradient, v)], tf.equal(finite, 0.0), scale, 2
        )
        with tf.Session(config=proto()) as session:
            session.run(tf.global_variables_initializer())
            values = [1.0, np.inf if rank else 1.0, 1.0]
            seen = [session.run([finite, move], {gradient: value})[0] for value in values]
            return seen, session.run(v), list(session.run(scale.told))

    for seen, value, told in on_cards(npu, 2, program):
        assert seen == [True, False, True]
        assert value == 2.0 and told == [2.0, 1.0]


def test_importing_the_adapter_wraps_interactive_sessions_too(npu):  # noqa: F811
    with tf.Graph().as_default(), pytest.raises(npu.Mistake, match="without NpuOptimizer"):
        tf.InteractiveSession()


def test_importing_the_adapter_replaces_the_dropout_of_keras(npu):  # noqa: F811
    with tf.Graph().as_default():
        y = tf.keras.layers.Dropout(0.25)(tf.ones([4]), training=True)
        kinds = [op.node_def.attr["_npu_op"].s for op in y.graph.get_operations()]
        assert b"DropOutDoMask" in kinds


def test_the_adapter_is_closed_when_the_process_ends(npu):  # noqa: F811
    registered = "import atexit\natexit.register = lambda call: print(call.__name__)\n"
    environ = dict(os.environ, PYTHONPATH=HERE)
    words = [sys.executable, "-c", registered + "import npu_bridge"]
    assert b"npu_close" in subprocess.check_output(words, env=environ, stderr=subprocess.DEVNULL)


def test_the_loops_counters_are_resource_variables_that_no_step_loads(npu):  # noqa: F811
    with tf.Graph().as_default():
        build_for("npu")
        train = tf.assign_add(tf.train.get_or_create_global_step(), 1).op
        with tf.Session(config=proto(iterations_per_loop=5)) as session:
            adapted.repeated_step(session, train, 5)
            counters = tf.local_variables()
            assert [variable.dtype for variable in counters] == [tf.int64] * 4
            assert npu.world.current().fetch_sets == []


def test_dropout_is_the_adapters(npu):  # noqa: F811
    with tf.Graph().as_default():
        build_for("npu")
        assert for_npu()
        x = tf.ones([1000])
        y = adapted.dropout(x, 0.25)
        assert y.op.get_attr("_npu_op") == b"DropOutDoMask"
        with tf.Session(config=proto()) as session:
            found = session.run(y)
    np.testing.assert_allclose(sorted(set(found)), [0.0, 4.0 / 3.0])


def test_several_steps_are_made_in_one_run(npu):  # noqa: F811
    with tf.Graph().as_default():
        build_for("npu")
        step = tf.train.get_or_create_global_step()
        train = tf.assign_add(step, 1).op
        with tf.Session(config=proto(iterations_per_loop=5)) as session:
            session.run(tf.global_variables_initializer())
            repeated_step = adapted.repeated_step(session, train, 5)
            session.run(repeated_step)
            assert session.run(step) == 5


def test_first_values_are_drawn_on_the_host(npu):  # noqa: F811
    with tf.Graph().as_default():
        build_for("npu")
        start = tf.random_normal_initializer(seed=3)
        v = tf.get_variable("v", [4], initializer=start)
        with tf.Session(config=proto()) as session:
            adapted.initialise(session, [v])
            found = session.run(v)
        names = [name for names, _ in npu.world.current().fetch_sets for name in names]
        assert not [name for name in names if "random" in name]
    with tf.Graph().as_default(), tf.Session(config=session_config("cpu")) as session:
        v = tf.get_variable("v", [4], initializer=tf.random_normal_initializer(seed=3))
        session.run(v.initializer)
        np.testing.assert_array_equal(found, session.run(v))
