import numpy as np

from runtime.tf1 import tf
from runtime.variables import decayed_variables, is_sliced, stored, weight
from training.graph import optimizer


def test_a_weight_is_marked_once_however_often_it_is_used():
    with tf.Graph().as_default():
        for _ in range(2):
            with tf.variable_scope("tower", reuse=tf.AUTO_REUSE):
                decays = weight("w", [2, 3], tf.zeros_initializer(), decay=True)
                weight("b", [3], tf.zeros_initializer())
        marked = decayed_variables()
        assert len(marked) == 1 and marked[0] is decays


def test_variables_are_resources_on_both_tensorflows():
    with tf.Graph().as_default():
        variable = weight("w", [2, 3], tf.zeros_initializer())
        assert variable.handle.dtype == tf.resource


def first_values(others):
    """A weight's first values in a graph where `others` operations came before it."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(3)
        for _ in range(others):
            tf.constant(0)
        start = tf.random_normal_initializer()
        with tf.variable_scope("net"):
            pair = [weight(name, [2, 3], start) for name in ("a", "b")]
        session.run(tf.global_variables_initializer())
        return session.run(pair)


def test_first_weights_do_not_depend_on_what_else_is_in_the_graph():
    np.testing.assert_array_equal(first_values(others=0), first_values(others=5))


def test_two_weights_of_one_initializer_start_differently():
    a, b = first_values(others=0)
    assert not np.array_equal(a, b)


def test_a_replica_starts_with_the_same_weights_under_its_own_name():
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(3)
        pair = []
        for scope in ("", "replica_12"):
            with tf.variable_scope(scope):
                pair.append(weight("a", [2, 3], tf.random_normal_initializer()))
                with tf.variable_scope("net"):
                    pair.append(weight("a", [2, 3], tf.random_normal_initializer()))
        session.run(tf.global_variables_initializer())
        first, first_net, second, second_net = session.run(pair)
        assert [stored(v).name for v in pair] == ["a", "net/a"] * 2
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first_net, second_net)
    assert not np.array_equal(first, first_net)


def test_a_whole_variable_is_stored_whole():
    with tf.Graph().as_default():
        variable = weight("replica_like/w", [2, 3], tf.zeros_initializer())
        assert stored(variable) == ("replica_like/w", (2, 3), "")
        assert not is_sliced(variable)


def test_slices_and_their_slots_are_read_back_as_one_variable(tmp_path):
    """Written by two owners, restored whole, by the op that a checkpoint is read with."""
    with tf.Graph().as_default(), tf.Session() as session:
        rows, owned = [3, 4], []
        for part, scope in enumerate(("", "replica_1")):
            with tf.variable_scope(scope, auxiliary_name_scope=False):
                start = tf.constant_initializer(part + 1.0)
                slice_of = (part * 3, 7)
                owned.append(weight("w", [rows[part], 2], start, slice_of=slice_of))
        owned += [optimizer.slot(variable) for variable in owned]
        session.run(tf.global_variables_initializer())
        said = [stored(variable) for variable in owned]
        assert all(is_sliced(variable) for variable in owned)
        for part in (0, 1):  # a file an owner, merged
            names, specs = zip(*[(one.name, one.slice_spec) for one in said[part::2]])
            save = tf.raw_ops.SaveV2(
                prefix=str(tmp_path / f"part_{part}"),
                tensor_names=names,
                shape_and_slices=specs,
                tensors=[v.read_value() for v in owned[part::2]],
            )
            session.run(save)
        prefix = str(tmp_path / "whole")
        parts = [str(tmp_path / f"part_{part}") for part in (0, 1)]
        session.run(
            tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=prefix)
        )
    reader = tf.train.load_checkpoint(prefix)
    assert said[1] == ("w", (7, 2), "7 2 3,4:0,2")
    np.testing.assert_array_equal(
        reader.get_tensor("w"), np.repeat([[1.0], [2.0]], rows, 0) + [[0, 0]]
    )
    np.testing.assert_array_equal(reader.get_tensor("w/Momentum"), np.zeros((7, 2)))
