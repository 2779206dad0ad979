import pytest

from runtime.npu import compiled_ops
from runtime.tf1 import TF2, tf

pytestmark = pytest.mark.skipif(TF2, reason="the adapter is for TensorFlow 1.15")


def faults(make):
    with tf.Graph().as_default():
        return compiled_ops.faults(compiled_ops.compiled([make()]), "here")


def images(shape=(2, 4, 4, 3)):
    return tf.placeholder(tf.float32, shape)


def reference(name):
    return tf.get_variable(name, [3], initializer=tf.zeros_initializer(), use_resource=False)


def resource():
    return tf.get_variable("v", [3, 2], initializer=tf.zeros_initializer(), use_resource=True)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: tf.where(images([4]) > 0.0), "Where is refused: its shape is dynamic"),
        (lambda: tf.unique(images([4])).idx, "Unique is refused"),
        (lambda: tf.nn.relu(images([None, 4])), "Relu makes a shape that is not static"),
        (lambda: tf.cast(images(), tf.float64), "Cast makes float64"),
        (lambda: tf.as_string(images()), "AsString makes string"),
        (
            lambda: tf.linalg.inv(images([3, 3])),
            "there is no evidence that the device supports MatrixInverse",
        ),
        (lambda: tf.gather(resource(), [0, 1]), "ResourceGather is refused"),
        (lambda: tf.assign_sub(reference("v"), [1.0] * 3), "reference goes into AssignSub"),
        (
            lambda: tf.tensor_scatter_nd_update(images([4]), [[1]], [2.0]),
            "TensorScatterUpdate is refused: its prototype",
        ),
        (lambda: tf.py_func(lambda: 1.0, [], tf.float32), "PyFunc is refused"),
    ],
)
def test_what_may_not_compile_is_said_once(make, words):
    found = [fault for fault in faults(make) if words in fault]
    assert len(found) == 1 and found[0].startswith("here: ")


def test_what_hangs_on_constants_alone_is_not_asked_after():
    def make():
        places = tf.cast(tf.where([True, False, True])[:, 0], tf.int32)
        return tf.nn.relu(images([2])) + tf.cast(places, tf.float32)

    assert [fault for fault in faults(make) if "Where" in fault] == []


def test_the_pipeline_behind_an_iterator_is_the_hosts():
    def batch():
        dataset = tf.data.Dataset.from_tensors(["text"]).map(lambda _: tf.zeros([2, 2]))
        return tf.nn.relu(tf.data.make_initializable_iterator(dataset).get_next())

    assert faults(batch) == []


def test_shapes_that_are_convolved_are_found():
    with tf.Graph().as_default():
        kernel = tf.zeros([1, 1, 3, 5])
        y = tf.nn.conv2d(images(), kernel, [1, 1, 1, 1], padding="VALID")
        assert compiled_ops.convolved(compiled_ops.compiled([y])) == {(2, 4, 4, 3)}
