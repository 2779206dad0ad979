"""Ascend's adapter to TensorFlow 1.15: the only module that imports npu_bridge, and on demand.

Importing it wraps tf.Session (CANN 5.1 and later), so TensorFlow comes first, by runtime.tf1, and a
session for the host alone needs `host_only` from then on.
"""

import contextlib
import sys
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence, Tuple

from runtime import tf1
from runtime.tf1 import TF2, tf

OPTIMIZER = "NpuOptimizer"
_FIELDS = {bool: "b", int: "i", str: "s"}


def adapter() -> Any:
    """npu_bridge's module of all names, or a ValueError that says what it needs."""
    here = f"TensorFlow {tf1.VERSION} on Python {sys.version_info[0]}.{sys.version_info[1]}"
    needs = (
        "--device npu needs npu_bridge, which comes with Huawei's CANN, TensorFlow 1.15 and Python "
        f"3.7; this is {here}"
    )
    if TF2:
        raise ValueError(f"{needs}: see docs/ascend.md, or pass --device cpu or gpu.")
    try:
        from npu_bridge import npu_init
    except (ImportError, OSError) as error:  # OSError: a CANN library of it is missing
        raise ValueError(
            f"{needs}, and {' '.join(str(error).split())}: source CANN's set_env.sh, as "
            "docs/ascend.md says, or pass --device cpu."
        ) from None
    return npu_init


def is_loaded() -> bool:
    """Whether the adapter was imported, so that every session passes through it."""
    return "npu_bridge" in sys.modules


def configure(proto: Any, values: Mapping[str, Any]) -> Any:
    """A ConfigProto with the one NpuOptimizer entry, which carries `values` ({key: bool, int or
    str}, see runtime.npu.options.chosen), and with what the adapter needs switched off."""
    rewrite = proto.graph_options.rewrite_options
    assert all(entry.name != OPTIMIZER for entry in rewrite.custom_optimizers)
    entry = rewrite.custom_optimizers.add()
    entry.name = OPTIMIZER
    for key, value in sorted(values.items()):
        stored = value.encode() if isinstance(value, str) else value
        setattr(entry.parameter_map[key], _FIELDS[type(value)], stored)
    off = type(rewrite).OFF  # 2, which as the second field's own type would be called MANUAL
    rewrite.remapping = off
    rewrite.memory_optimization = off
    proto.allow_soft_placement = True
    optimizer = proto.graph_options.optimizer_options
    optimizer.global_jit_level = type(optimizer).OFF
    return proto


def host_only(proto: Any) -> Any:
    """A ConfigProto whose session the loaded adapter leaves alone."""
    return configure(proto, {"use_off_line": False})


@contextlib.contextmanager
def system(proto: Any, ranks: Any) -> Iterator[None]:
    """HCCL, from before the first collective to the end of the run, when it is ended once. One card
    needs none of it. proto: that of the training session, as the first one's options count."""
    if ranks.kind != "NPU" or ranks.size == 1:
        yield
        return
    rank, size = ranks.host, ranks.size
    names = adapter()
    with tf.Graph().as_default() as graph:
        start, end = names.npu_ops.initialize_system(), names.npu_ops.shutdown_system()
    session = tf.Session(graph=graph, config=proto)
    try:
        session.run(start)
        try:
            found = names.get_rank_id(), names.get_rank_size()
            if found != (rank, size):
                raise ValueError(
                    f"HCCL reports rank {found[0]} of {found[1]}, but RANK_ID and RANK_SIZE are "
                    f"{rank} and {size}; RANK_TABLE_FILE is another run's."
                )
            yield
        finally:
            session.run(end)
    finally:
        session.close()


def initialise(session: tf.Session, variables: Sequence[Any]) -> None:
    """Gives a device's variables their first values, which are drawn on the host: the same numbers
    as without a device, by operations that it need not know."""
    with tf.Session(graph=session.graph, config=host_only(tf.ConfigProto())) as host:
        host.run(tf.variables_initializer(variables))
        values = host.run(variables)
    fed = [tf.placeholder(v.dtype.base_dtype, v.shape) for v in variables]
    assigned = tf.group(*[tf.assign(v, one).op for v, one in zip(variables, fed)])
    session.run(assigned, dict(zip(fed, values)))


def dropout(x: tf.Tensor, rate: float) -> tf.Tensor:
    """x with `rate` of its values dropped, by the device's own masks. They are drawn anew in each
    run: a resumed run does not repeat them."""
    return adapter().npu_ops.dropout(x, keep_prob=1.0 - rate)


def has_infinities() -> bool:
    """Whether an overflow on the device is an infinity or NaN, as NPULossScaleOptimizer finds out;
    else it saturates. An older adapter has no such call: its cards saturate."""
    plugin = getattr(adapter(), "npu_plugin", None)
    return bool(getattr(plugin, "is_inf_nan_enabled", lambda: False)())


def guarded(
    move: Callable[[], tf.Operation],
    pairs: Sequence[Tuple[Any, Any]],
    scale: Optional[Any],
    size: int,
) -> Tuple[Any, tf.Tensor]:
    """-> (op, finite). The op makes the update move(), an op too, if no operation of the step has
    overflowed on any card, and updates `scale`; finite: that, as a bool scalar.

    For a card that saturates, as the 910A always does: no infinity and no NaN is ever seen, so the
    device's own float status decides, as NPULossScaleOptimizer reads it once all gradients are
    there (pairs, summed over the cards before). scale: has update(finite), an op, or is None."""
    names = adapter()
    assert not has_infinities(), "in INF/NaN mode it looks at this card's gradients alone"
    manager = _Manager(scale)
    optimizer = names.NPULossScaleOptimizer(_Update(move), manager, is_distributed=size > 1)
    return optimizer.apply_gradients(pairs), manager.finite


class _Update(tf.train.Optimizer):
    """An update that is made already, as NPULossScaleOptimizer takes it."""

    def __init__(self, move):
        super().__init__(use_locking=False, name="Update")
        self._move = move

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        return self._move()


class _Manager:
    """A loss scale as NPULossScaleOptimizer takes it, which only updates it."""

    def __init__(self, scale):
        self._scale, self.finite = scale, None

    def update_loss_scale(self, finite):
        self.finite = finite
        return tf.no_op() if self._scale is None else self._scale.update(finite)


def repeated_step(session: tf.Session, train: tf.Operation, iterations: int) -> tf.Operation:
    """The op that makes `iterations` steps of `train` on the device in one run."""
    if iterations == 1:
        return train
    return adapter().util.set_iteration_per_loop(session, train, iterations)
