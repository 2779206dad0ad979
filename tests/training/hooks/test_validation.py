"""When sets are validated, which accuracy is the best, and what overflows."""

import collections

import pytest

from evaluation.report.run_logs import read_metrics
from evaluation.saved_pairs import load
from runtime.distributed.ranks import SINGLE, Ranks
from runtime.tf1 import tf
from tests.conftest import write_set
from training.hooks.base import RunContext
from training.hooks.metrics import MetricsLog, Summaries
from training.hooks.validation import Evaluator, Outputs, Overflow, Validation

SIDE = 8
Ops = collections.namedtuple("Ops", "images_BHWC plain_BD mirrored_BD")


@pytest.fixture(scope="module")
def bin_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("sets") / "lfw.bin"
    write_set(path, pairs=12)
    return str(path)


class Writer:
    def __init__(self):
        self.best = []

    def save_best(self, session, step, **facts):
        self.best.append((step, dict(facts["best"])))


@pytest.fixture
def made(bin_path, tmp_path):
    """(validation, writer, path of metrics.jsonl, session); its embeddings are the pixels."""
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(tf.uint8, [6, SIDE, SIDE, 3])
        scale = tf.get_variable("scale", [], initializer=tf.ones_initializer())
        flat = scale * (tf.reshape(tf.cast(images, tf.float32), [6, -1]) - 127.0)
        session.run(tf.global_variables_initializer())
        log = MetricsLog(str(tmp_path / "metrics.jsonl"), 4, 24)
        outputs = Outputs(log, Summaries(1, None), Writer(), str(tmp_path))
        evaluator = Evaluator(Ops(images, flat, flat), (SIDE, SIDE), 6, SINGLE)
        run = RunContext(last=5, batch_size=4)
        validation = Validation(2, {"lfw": bin_path}, evaluator, outputs, run)
        yield validation, outputs.writer, log.path, session, scale


def steps_of(path):
    return [line["step"] for line in read_metrics(path) if line["kind"] == "validation"]


def test_sets_are_validated_at_the_start_at_the_interval_and_at_the_end(made):
    validation, _, path, session, _ = made
    validation.begin(session, 0)
    for step in range(1, 6):
        validation.after(step, {}, 0.1)
    assert steps_of(path) == [0, 2, 4, 5]


def test_a_resumed_run_does_not_validate_at_its_start(made):
    validation, _, path, session, _ = made
    validation.begin(session, 2)
    assert not read_metrics(path)


def test_the_best_checkpoint_is_written_only_where_the_mean_rises(made):
    validation, writer, _, session, _ = made
    validation.begin(session, 1)
    validation.validate(2)
    validation.validate(4)  # the same weights, and so the same accuracy
    ((step, best),) = writer.best
    assert step == 2 and best["mean"] == best["lfw"] > 0.5


def test_the_untrained_network_is_never_the_best(made):
    validation, writer, _, session, _ = made
    validation.begin(session, 0)
    assert writer.best == [] and validation.best["lfw"] == 0.0


def test_embeddings_that_overflow_are_a_warning_and_no_accuracy(made, caplog):
    validation, writer, path, session, scale = made
    scale.load(1e20, session)
    validation.begin(session, 0)
    assert "not evaluated, as embeddings overflow" in caplog.text
    assert not read_metrics(path) and writer.best == []


def test_the_scores_of_the_best_checkpoint_are_saved(made, tmp_path):
    validation, _, _, session, _ = made
    validation.begin(session, 1)
    validation.validate(2)
    assert load(str(tmp_path / "best" / "lfw.npz")).row["step"] == 2


def test_a_host_feeds_its_own_share_of_a_batch():
    with tf.Graph().as_default():
        images = tf.placeholder(tf.uint8, [6, SIDE, SIDE, 3])
        ranks = Ranks(3, ("a:1", "b:1"), 1)
        evaluator = Evaluator(Ops(images, images, images), (SIDE, SIDE), 2, ranks)
    assert (evaluator.batch_size, evaluator.share) == (12, slice(6, 12))


def test_overflow_is_an_error_of_its_own():
    assert issubclass(Overflow, Exception) and not issubclass(Overflow, ValueError)
