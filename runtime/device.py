"""What differs between devices: one strategy per kind, chosen once by `--device`.

Code outside runtime/ asks `strategy(name)` once, where a run begins, or `current()` while a graph
is built; it never asks which device it is. N images, D embedding, R identities of a matrix's
columns.

The life of a training run, in the order of the calls:

    device = strategy(config.device)
    ranks = device.ranks(environ)                    # None: the flags name the ranks
    config = device.adapt(config, ranks.size)
    with tf.Graph().as_default():
        device.build_graph()                         # before the first variable
        element, waited = device.next_batch(iterator)
        collectives = device.collectives(rank, size, hint)
        ...                                          # layers and losses use `current()`
        with tf.Session(target, config=proto) as session:
            device.initialize(session)
            train = device.repeat_step(session, train, steps_per_call)
"""

import logging
import math
from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple, TypeVar

from runtime import tf1
from runtime.distributed.collectives import Collectives
from runtime.distributed.ranks import Ranks
from runtime.flags import DEVICES
from runtime.tf1 import TF2, tf

C = TypeVar("C")


class Device:
    """CPU and GPU: TensorFlow's own kernels, on resource variables."""

    uses_resource_variables = True
    fetches_vary = True  # a new set of fetches costs nothing
    has_text = True  # string tensors and tf.Assert work in the graph
    has_clock = True  # tf.timestamp works in the graph
    one_rank_per_process = False
    compiles_on_host = True  # an estimate of the graph's peak memory applies
    draws_on_host = False  # the input pipeline draws Partial FC's samples
    profiles_in_session = True  # tf.RunOptions trace the step

    def ranks(self, environ: Mapping[str, str]) -> Optional[Ranks]:
        """The ranks that the environment defines; None where flags define them."""
        return None

    def adapt(self, config: C, size: int) -> C:
        """The config of a training that holds on this device; here the same, with a log line about
        flags that are for an NPU. size: the ranks of the run."""
        from runtime.npu.options import TYPED

        given = [name for name in TYPED + ("npu_option",) if getattr(config, name)]
        if given:
            logging.info("--%s is for --device npu and has no effect here.", ", --".join(given))
        return config

    def build_graph(self) -> None:
        """Marks the default graph as one for this device, before its first variable is made."""
        tf1.build_for("cpu")

    def collectives(self, rank: int, size: int, hint: str = "auto") -> Collectives:
        """The collectives of one rank."""
        return Collectives(rank, size, hint)

    def next_batch(self, batches: Any) -> Tuple[Any, tf.Tensor]:
        """An iterator -> (its next element, float32 scalar: seconds that the step waited for it).

        In the graph, so that neither a second session.run nor a copy is needed: both times are
        read by the run that uses the batch. The pipeline works ahead while a step runs, so this is
        what it could not do in that time."""
        with tf.device("/cpu:0"):
            started = tf.timestamp()
            # Without these two dependencies the executor may read both times at once.
            with tf.control_dependencies([started]):
                element = batches.get_next()
            with tf.control_dependencies(tf.nest.flatten(element)):
                waited = tf.timestamp() - started
        return element, tf.cast(tf.maximum(waited, 0.0), tf.float32)  # the clock may be set back

    def initialize(self, session: tf.Session) -> None:
        """Runs the initializers of all variables."""
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])

    def repeat_step(self, session: tf.Session, train: tf.Operation, steps: int) -> tf.Operation:
        """The op that makes `steps` steps of `train` in one session.run."""
        assert steps == 1, "several steps per call need an NPU"
        return train

    def needs_loss_scale(self, config: Any) -> bool:
        """Whether gradients may overflow in half precision, so that the loss is scaled."""
        return config.precision == "fp16"

    def apply_if_finite(
        self,
        update: Callable[[], tf.Operation],
        pairs: Sequence[Tuple[Any, Any]],
        finite: tf.Tensor,
        loss_scale: Optional[Any],
        size: int,
    ) -> Tuple[Any, tf.Tensor]:
        """Runs update() where the gradients are finite -> (op, finite: bool scalar).

        pairs: (gradient, variable); finite: bool scalar, over all ranks; loss_scale has
        update(finite) or is None; size: the number of ranks."""

        updated = tf.cond(finite, branch(update), branch(tf.no_op))
        if loss_scale is None:
            return updated, finite
        # The scale changes after the update, whose gradients were divided by this step's scale.
        with tf.control_dependencies([updated]):
            return loss_scale.update(finite), finite

    # kernels of layers and losses

    def same_conv_is_slow(self) -> bool:
        """Whether the gradient of a "SAME" convolution is to be replaced by one of our own: on a
        CPU TensorFlow 1.15's kernel for it takes 1.2 to 2.6 times as long."""
        return not TF2

    def dropout(self, x: tf.Tensor, rate: float, seed: Optional[tf.Tensor] = None) -> tf.Tensor:
        """x with `rate` of its values dropped and the others scaled up. seed: int32 [2]; the same
        seed drops the same values, so that a resumed run repeats them."""
        if seed is None:
            return tf.nn.dropout(x, rate=rate)
        kept = tf.random.stateless_uniform(tf.shape(x), seed) >= rate
        return tf.where(kept, x / (1.0 - rate), tf.zeros_like(x))

    def take(self, score_NR: tf.Tensor, labels_N: tf.Tensor) -> tf.Tensor:
        """Each row's score of its true identity, float32 [N]; of identity 0 for the label -1."""
        return tf.gather_nd(score_NR, true_indices(labels_N))

    def take_and_keep(self, score_NR: tf.Tensor, labels_N: tf.Tensor) -> Tuple[Any, Any]:
        """(score_NR, take(score_NR, labels_N)), whose gradients are added in one matrix."""
        at_N2 = true_indices(labels_N)

        @tf.custom_gradient
        def taken(score_NR):
            def gradient(slope_NR, slope_N):
                return tf.tensor_scatter_nd_add(slope_NR, at_N2, slope_N)

            return (tf.identity(score_NR), tf.gather_nd(score_NR, at_N2)), gradient

        return taken(score_NR)

    def put(self, score_NR: tf.Tensor, labels_N: tf.Tensor, value_N: tf.Tensor) -> tf.Tensor:
        """score_NR with value_N at each row's true identity."""
        return tf.tensor_scatter_nd_update(score_NR, true_indices(labels_N), value_N)

    def subtract(self, score_NR: tf.Tensor, labels_N: tf.Tensor, value_N: tf.Tensor) -> tf.Tensor:
        """score_NR minus value_N at each row's true identity."""
        return tf.tensor_scatter_nd_sub(score_NR, true_indices(labels_N), value_N)

    def cosines(
        self, units_ND: tf.Tensor, centres: Any, rows_R: Any, floor: float
    ) -> Optional[tf.Tensor]:
        """Cosines of unit rows to chosen centres; None where the blockwise kernel of
        losses/centre_cosines.py applies."""
        return None

    def check(self, x: tf.Tensor, condition: Callable[[], tf.Tensor], data: Any) -> tf.Tensor:
        """x, behind a tf.Assert of condition() that shows data()."""
        with tf.control_dependencies([tf.Assert(condition(), data(), summarize=1000)]):
            return tf.identity(x)

    # updates of variables

    def apply_momentum(
        self, variable: Any, slot: Any, gradient: tf.Tensor, decay: float, **settings: Any
    ) -> tf.Operation:
        """Momentum SGD with L2 decay. settings: lr, momentum and use_nesterov of the kernel."""
        decayed = []
        if decay and settings["momentum"] and not settings["use_nesterov"]:
            # accumulator += decay / momentum * variable in one pass and without a copy
            decayed = [
                tf.raw_ops.ResourceApplyGradientDescent(
                    var=slot.handle, alpha=-decay / settings["momentum"], delta=variable.value()
                )
            ]
        elif decay:
            gradient += decay * variable
        with tf.control_dependencies(decayed):
            return tf.raw_ops.ResourceApplyMomentum(
                var=variable.handle, accum=slot.handle, grad=gradient, **settings
            )

    def write_rows(self, variable: Any, rows_B: tf.Tensor, value_BD: tf.Tensor) -> tf.Operation:
        """variable[rows_B] = value_BD."""
        return tf.raw_ops.ResourceScatterUpdate(
            resource=variable.handle, indices=rows_B, updates=value_BD
        )

    def rows_per_block(self, count: int, block: Optional[int] = None) -> Optional[int]:
        """How many of `count` rows an update reads together; None is the kernel's default."""
        return block

    def zeros_slot(self, shape: Any) -> Tuple[Any, Any]:
        """(initializer, shape argument) of an optimizer's state of zeros."""

        def zeros():
            # A folded constant would share its memory with the slot, and the first write to a row
            # would copy the whole of it.
            return tf.fill(shape, tf.placeholder_with_default(0.0, []))

        return zeros, None

    def bias_corrections(self, steps: Any, betas: Sequence[float]) -> List[tf.Tensor]:
        """1 - beta^steps for each beta, float32; from float64: float32 loses four digits."""
        steps = tf.cast(steps, tf.float64)
        return [
            tf.cast(1.0 - tf.pow(tf.constant(beta, tf.float64), steps), tf.float32)
            for beta in betas
        ]


class Npu(Device):
    """Ascend 910: static shapes, ref variables, only operations that its adapter is known to run.

    Each set of fetches is compiled as a graph of its own."""

    uses_resource_variables = False
    fetches_vary = False
    has_text = False
    has_clock = False
    one_rank_per_process = True
    compiles_on_host = False
    draws_on_host = True
    profiles_in_session = False

    def ranks(self, environ: Mapping[str, str]) -> Optional[Ranks]:
        from runtime.npu import card

        return card.ranks(environ)

    def adapt(self, config: C, size: int) -> C:
        from runtime.npu import training_limits

        return training_limits.adapt(config, size)

    def build_graph(self) -> None:
        """Ref variables: the adapter is not known to run the gathers and scatters of the resource
        kind (docs/ascend.md). A read of one is then a view, not a copy: a read after an update
        uses `read_value`, and an update waits for all reads before it."""
        tf1.build_for("npu")

    def collectives(self, rank: int, size: int, hint: str = "auto") -> Collectives:
        from runtime.npu.hccl import Hccl

        return Hccl(rank, size, hint)

    def next_batch(self, batches: Any) -> Tuple[Any, tf.Tensor]:
        """The device fetches its batch from a queue of its own; the time is 0."""
        return batches.get_next(), tf.zeros([])

    def initialize(self, session: tf.Session) -> None:
        from runtime.npu import adapter

        adapter.initialise(session, tf.global_variables() + tf.local_variables())

    def repeat_step(self, session: tf.Session, train: tf.Operation, steps: int) -> tf.Operation:
        from runtime.npu import adapter

        return adapter.repeated_step(session, train, steps)

    def needs_loss_scale(self, config: Any) -> bool:
        from runtime.npu import options

        return options.may_overflow(config)

    def apply_if_finite(
        self,
        update: Callable[[], tf.Operation],
        pairs: Sequence[Tuple[Any, Any]],
        finite: tf.Tensor,
        loss_scale: Optional[Any],
        size: int,
    ) -> Tuple[Any, tf.Tensor]:
        """By the device's float status where an overflow saturates, as on the 910A: no tensor is
        ever infinite there. In INF/NaN mode, the default of 910B and 910C, by `finite`, as on a
        GPU: NPULossScaleOptimizer then looks at this rank's gradients alone, and the slices of the
        class centres differ between ranks."""
        from runtime.npu import adapter

        if adapter.has_infinities():
            return super().apply_if_finite(update, pairs, finite, loss_scale, size)
        return adapter.guarded(update, pairs, loss_scale, size)

    def same_conv_is_slow(self) -> bool:
        return False

    def dropout(self, x: tf.Tensor, rate: float, seed: Optional[tf.Tensor] = None) -> tf.Tensor:
        """By the device's own masks, drawn anew in each run: a resumed run does not repeat them."""
        from runtime.npu import adapter

        return adapter.dropout(x, rate)

    def take(self, score_NR: tf.Tensor, labels_N: tf.Tensor) -> tf.Tensor:
        from runtime.npu import kernels

        return kernels.take(score_NR, labels_N)

    def take_and_keep(self, score_NR: tf.Tensor, labels_N: tf.Tensor) -> Tuple[Any, Any]:
        return score_NR, self.take(score_NR, labels_N)

    def put(self, score_NR: tf.Tensor, labels_N: tf.Tensor, value_N: tf.Tensor) -> tf.Tensor:
        from runtime.npu import kernels

        return kernels.put(score_NR, labels_N, value_N)

    def subtract(self, score_NR: tf.Tensor, labels_N: tf.Tensor, value_N: tf.Tensor) -> tf.Tensor:
        from runtime.npu import kernels

        return kernels.put(score_NR, labels_N, -value_N, add=True)

    def cosines(
        self, units_ND: tf.Tensor, centres: Any, rows_R: Any, floor: float
    ) -> Optional[tf.Tensor]:
        from runtime.npu import kernels

        return kernels.cosines(units_ND, centres, rows_R, floor)

    def check(self, x: tf.Tensor, condition: Callable[[], tf.Tensor], data: Any) -> tf.Tensor:
        """x: the graph can hold no message, and the pipeline has checked each record."""
        return x

    def apply_momentum(
        self, variable: Any, slot: Any, gradient: tf.Tensor, decay: float, **settings: Any
    ) -> tf.Operation:
        if decay:
            gradient += decay * variable
        return tf.raw_ops.ApplyMomentum(var=variable, accum=slot, grad=gradient, **settings).op

    def write_rows(self, variable: Any, rows_B: tf.Tensor, value_BD: tf.Tensor) -> tf.Operation:
        return tf.scatter_update(variable, rows_B, value_BD).op

    def rows_per_block(self, count: int, block: Optional[int] = None) -> Optional[int]:
        """All: a loop's shapes would not be static."""
        return count

    def zeros_slot(self, shape: Any) -> Tuple[Any, Any]:
        return tf.zeros_initializer(), shape

    def bias_corrections(self, steps: Any, betas: Sequence[float]) -> List[tf.Tensor]:
        """By expm1, the one operation of the device that keeps the digits."""
        steps = tf.cast(tf.identity(steps), tf.float32)  # no reference goes into a Cast
        return [-tf.math.expm1(steps * math.log(beta)) for beta in betas]


_HOST, _NPU = Device(), Npu()


def strategy(name: str) -> Device:
    """The strategy of `--device`."""
    assert name in DEVICES, name
    return _NPU if name == "npu" else _HOST


def current() -> Device:
    """The strategy of the default graph; that of CPU and GPU where `build_graph` has not run."""
    return _NPU if tf1.for_npu() else _HOST


def branch(make: Callable[..., Any], *arguments: Any) -> Callable[[], tf.Tensor]:
    """make(*arguments), which returns an op, as a branch of tf.cond, which returns a tensor."""

    def run() -> tf.Tensor:
        with tf.control_dependencies([make(*arguments)]):
            return tf.constant(True)

    return run


def true_indices(labels_N: tf.Tensor) -> tf.Tensor:
    """int64 [N, 2]: (row, label) of each row's true identity, label 0 for the label -1."""
    labels_N = tf.cast(labels_N, tf.int64)
    rows_N = tf.range(tf.size(labels_N, out_type=tf.int64))
    return tf.stack([rows_N, tf.maximum(labels_N, 0)], axis=1)
