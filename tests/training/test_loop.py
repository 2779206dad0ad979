import collections
import os
import signal
import subprocess
import sys

from runtime.tf1 import tf
from training.hooks.base import Hook
from training.loop import StopSignal, make_step, train_loop

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
Step = collections.namedtuple("Step", "train accumulate scalars stop_feed")


class Recorder(Hook):
    """Notes what it is told; wants `twice` at every third step."""

    def __init__(self, at=None, act=None):
        self.seen, self.ended, self.at, self.act = [], None, at, act

    def wants(self, step):
        return ("twice",) if step % 3 == 0 else ()

    def after(self, step, values, seconds):
        self.seen.append((step, dict(values)))
        if step == self.at:
            self.act()

    def end(self, step):
        self.ended = step


def run(hooks, first=0, last=7):
    with tf.Graph().as_default(), tf.Session() as session, StopSignal() as stop:
        count = tf.get_variable("count", [], tf.int64, initializer=tf.zeros_initializer())
        train = tf.assign_add(count, 1)
        with tf.control_dependencies([train]):
            twice = 2 * count.read_value()
        session.run(tf.global_variables_initializer())
        step = Step(train.op, (), {"twice": twice, "never": tf.constant(1)}, None)
        made = train_loop(session, step, (first, last), hooks, stop)
        return made, session.run(count)


def test_each_step_is_made_once_and_only_what_is_wanted_is_fetched():
    recorder = Recorder()
    assert run([recorder]) == (7, 7)
    expected = [(step, {"twice": 2 * step} if step % 3 == 0 else {}) for step in range(1, 8)]
    assert recorder.seen == expected and recorder.ended == 7


def test_a_resumed_run_makes_the_steps_that_are_left():
    recorder = Recorder()
    made, count = run([recorder], first=4)
    assert made == 7 and count == 3 and [step for step, _ in recorder.seen] == [5, 6, 7]


def test_a_signal_ends_the_loop_after_its_step_and_the_hooks_are_told():
    for number in (signal.SIGINT, signal.SIGTERM):
        recorder = Recorder(at=3, act=lambda n=number: os.kill(os.getpid(), n))
        assert run([recorder]) == (3, 3)
        assert recorder.ended == 3


def test_signals_are_handed_back_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    run([])
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_signal_ends_the_process_at_once():
    code = (
        "import os, signal\n"
        "from training.loop import StopSignal\n"
        "with StopSignal() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print(stop.received, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, b"SIGTERM\n")


def test_the_parts_of_a_batch_are_brought_together():
    with tf.Graph().as_default(), tf.Session() as session:
        turn = tf.get_variable("turn", [], tf.int64, initializer=tf.zeros_initializer())
        moved = tf.assign_add(turn, 1)
        with tf.control_dependencies([moved]):
            now = turn.read_value()
        scalars = {
            "input_seconds": tf.cast(now, tf.float32),
            "damaged": tf.where(now > 1, tf.strings.as_string(now), tf.constant("")),
            "loss": tf.cast(now, tf.float32),
        }
        session.run(tf.global_variables_initializer())
        step = Step(moved.op, [moved.op, moved.op], scalars, None)
        values = make_step(session, step, {"input_seconds", "damaged", "loss"})
    assert values == {"input_seconds": 6.0, "damaged": b"2\n3", "loss": 3.0}
