"""Programs on several cards, which the tests of the adapter and of HCCL run against the double."""

import threading

from runtime.npu import adapter, options
from runtime.tf1 import tf


def proto(**values):
    return adapter.configure(tf.ConfigProto(), dict(options.chosen(), **values))


def on_cards(npu, size, program):
    """program(rank) on a thread each, each inside its own graph; what they return, by rank."""
    found, errors = {}, []

    def run(rank):
        try:
            with npu.world.rank(rank), tf.Graph().as_default():
                found[rank] = program(rank)
        except BaseException as error:
            errors.append(error)

    with npu.world.ranks(size):
        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return [found[rank] for rank in range(size)]


def variable():
    return tf.get_variable("v", [2], tf.float32, tf.zeros_initializer(), use_resource=False)
