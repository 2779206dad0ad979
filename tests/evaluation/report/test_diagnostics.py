import math

import pytest

from evaluation.report import diagnostics
from evaluation.report.run_logs import Run
from tests.evaluation.tiny_sets import train_line, validation_line


def run_of(train=(), lfw=()):
    return Run("run", {}, list(train), {"lfw": list(lfw)} if lfw else {}, {})


def found(run, question):
    return [check for check in diagnostics.checks(run) if check.question == question]


STEPS = range(10, 500, 10)
RISING = [validation_line(0, 0.6), validation_line(100, 0.8), validation_line(200, 0.9)]


def test_a_good_run_is_healthy():
    run = run_of([train_line(step) for step in STEPS], RISING)
    assert {check.level for check in diagnostics.checks(run)} == {diagnostics.OK}
    assert diagnostics.verdict(diagnostics.checks(run)) == (diagnostics.OK, "Training is healthy")


@pytest.mark.parametrize(
    "change, level, words",
    [
        (
            lambda i: dict(inference_loss=math.nan if i == 20 else 3.0 - i / 99),
            diagnostics.BAD,
            "not finite",
        ),
        (lambda i: dict(inference_loss=10.0 + i), diagnostics.BAD, "rises"),
        (lambda i: dict(inference_loss=10.0), diagnostics.WATCH, "is flat"),
    ],
)
def test_the_loss_is_watched(change, level, words):
    run = run_of([train_line(step, **change(i)) for i, step in enumerate(STEPS)])
    (check,) = found(run, "Loss")
    assert check.level == level and words in check.answer


def test_a_set_no_better_than_the_untrained_net_is_bad():
    lines = [validation_line(step, 0.6 + step / 1e6) for step in (0, 100, 200, 300)]
    (check,) = found(run_of([], lines), "lfw")
    assert check.level == diagnostics.BAD and "untrained" in check.answer
    (early,) = found(run_of([], lines[:2]), "lfw")
    assert early.level == diagnostics.WATCH


def test_a_set_that_has_fallen_says_since_when():
    (check,) = found(run_of([], RISING + [validation_line(300, 0.7)]), "lfw")
    assert check.level == diagnostics.WATCH and "since step 200" in check.answer


def test_embeddings_alike_for_everyone_are_bad():
    line = validation_line(100, 0.8, impostor_cosine=0.97, genuine_cosine=0.98)
    (check,) = found(run_of([], [validation_line(0, 0.6), line]), "Embeddings")
    assert check.level == diagnostics.BAD


def test_embeddings_that_hardly_differ_are_watched():
    line = validation_line(100, 0.8, impostor_cosine=0.51, genuine_cosine=0.59)
    (check,) = found(run_of([], [validation_line(0, 0.6), line]), "Embeddings")
    assert check.level == diagnostics.WATCH


def test_a_stuttering_input_is_watched():
    rates = [100.0 if i % 3 else 20.0 for i in range(40)]
    run = run_of([train_line(i + 1, images_per_second=rate) for i, rate in enumerate(rates)])
    (check,) = found(run, "Throughput")
    assert check.level == diagnostics.WATCH


def test_nothing_logged_is_no_verdict():
    assert diagnostics.verdict(diagnostics.checks(run_of())) == (
        diagnostics.WATCH,
        "No metrics yet",
    )


def test_the_worst_comes_first():
    run = run_of([train_line(step, inference_loss=5.0 + step) for step in STEPS], RISING)
    assert diagnostics.checks(run)[0].question == "Loss"


def test_a_finetuned_run_is_compared_with_its_checkpoint():
    lines = [validation_line(0, 0.935), validation_line(100, 0.936), validation_line(200, 0.937)]
    config = {"training": {"finetune": "old.ckpt"}}
    run = Run("run", config, [], {"lfw": lines + [validation_line(300, 0.936)]}, {})
    (check,) = found(run, "lfw")
    assert check.level == diagnostics.OK and "checkpoint that was finetuned" in check.answer


def test_throughput_is_steady_only_when_it_varies_little():
    for rates, expected in (([100.0, 95.0, 104.0], True), ([60.0, 100.0, 190.0], False)):
        lines = [train_line(i + 1, images_per_second=rates[i % 3]) for i in range(31)]
        (check,) = found(run_of(lines), "Throughput")
        assert check.level == diagnostics.OK and ("steady" in check.answer) == expected


def test_a_slow_start_is_no_stutter():
    lines = [train_line(i + 1, images_per_second=100.0 if i else 9.0) for i in range(6)]
    (check,) = found(run_of(lines), "Throughput")
    assert "steady" in check.answer


def test_high_training_accuracy_with_a_flat_validation_is_overfitting():
    lines = [train_line(step, accuracy=0.97) for step in STEPS]
    flat = [validation_line(step, 0.71) for step in (100, 200, 300, 400, 490)]
    (check,) = found(run_of(lines, flat), "Overfitting")
    assert check.level == diagnostics.WATCH and "97 %" in check.answer
    rising = [validation_line(step, 0.6 + step / 5000.0) for step in (100, 200, 300, 400, 490)]
    assert not found(run_of(lines, rising), "Overfitting")
    saturated = [validation_line(step, 0.998) for step in (100, 200, 300)]
    assert not found(run_of(lines, saturated), "Overfitting")


def test_an_overlap_with_the_training_images_is_bad():
    run = run_of([], RISING)._replace(overlaps={"lfw": 12})
    assert [check.level for check in found(run, "lfw")] == [diagnostics.BAD, diagnostics.OK]
