"""Checks of a run's metrics: is training healthy? One check per question, one sentence each."""

import math
import statistics
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from data.crop_geometry import Shift, describe
from evaluation.report.run_logs import Line, Run

OK, WATCH, BAD = "ok", "watch", "bad"

COLLAPSED = 0.9  # mean cosine of impostor pairs above which embeddings do not separate anyone
NEAR = 0.1  # between the mean cosines of genuine and impostor pairs
SLOW = 0.5  # of the median throughput
STEADY = 0.15  # spread of the middle 80 % of the throughput around its median
EDGE = 10  # lines compared at each end
SURE_LINES = 40  # lines of the log from which on a rising loss is an error
SURE_VALIDATIONS = 3  # from which on a set that does not rise is an error
FITTED = 0.9  # training accuracy above which a flat validation is overfitting
SATURATED = 0.95  # validation accuracy above which a flat curve is expected


class Check(NamedTuple):
    """The answer to one question."""

    level: str  # OK, WATCH or BAD
    question: str
    answer: str


def checks(run: Run) -> List[Check]:
    """The checks of a run, the worst first."""
    found = [
        _loss(run),
        _training_accuracy(run),
        *_sets(run),
        *_overlaps(run),
        *_shifts(run),
        _overfitting(run),
        _separation(run),
        _throughput(run),
    ]
    order = (BAD, WATCH, OK)
    return sorted([check for check in found if check], key=lambda check: order.index(check.level))


def verdict(found: Sequence[Check]) -> Tuple[str, str]:
    """(level, sentence) of all checks together."""
    if not found:
        return WATCH, "No metrics yet"
    worst = found[0].level
    if worst == OK:
        return OK, "Training is healthy"
    count = sum(check.level == worst for check in found)
    what = "has a problem" if worst == BAD else "is worth a look"
    return worst, f"Training {what}" if count == 1 else f"Training {what} in {count} places"


def _loss(run: Run) -> Optional[Check]:
    """The margin loss, not the total: weight decay falls by itself."""
    name = "inference_loss" if run.train and "inference_loss" in run.train[-1] else "loss"
    values = [line[name] for line in run.train if isinstance(line.get(name), (int, float))]
    if not values:
        return None
    if not all(math.isfinite(value) for value in values):
        step = next(line["step"] for line in run.train if not math.isfinite(line.get(name, 0.0)))
        answer = f"is not finite at step {step:,}. Resume an earlier checkpoint with a lower --lr."
        return Check(BAD, "Loss", answer)
    if len(values) < 4:
        return None
    edge = min(EDGE, len(values) // 2)
    first, last = statistics.median(values[:edge]), statistics.median(values[-edge:])
    change = f"from {first:.3g} to {last:.3g}"
    if last > 1.05 * first:
        level = BAD if len(values) >= SURE_LINES else WATCH  # it may rise during warmup
        return Check(level, "Loss", f"rises, {change}. Lower --lr or raise --warmup.")
    if last > 0.98 * first:
        return Check(WATCH, "Loss", f"is flat, {change}.")
    return Check(OK, "Loss", f"falls, {change}.")


def _last_accuracy(run: Run) -> Optional[float]:
    """Training accuracy without the margin: the median of the last lines."""
    values = [line["accuracy"] for line in run.train if isinstance(line.get("accuracy"), float)]
    return statistics.median(values[-min(EDGE, len(values) // 2) :]) if len(values) >= 4 else None


def _training_accuracy(run: Run) -> Optional[Check]:
    last = _last_accuracy(run)
    if last is None:
        return None
    if last == 0.0:
        answer = "is still 0 without the margin. Usual in the first epoch only."
        return Check(WATCH, "Training accuracy", answer)
    return Check(OK, "Training accuracy", f"is {100 * last:.1f} % without the margin.")


def _sets(run: Run) -> Iterator[Check]:
    for name, lines in run.validations.items():
        trained = [line for line in lines if line["step"] > 0]
        if not trained:
            continue
        start = lines[0]["accuracy_flip"] if lines[0]["step"] == 0 else None
        yield _finetuned_set(name, trained, start) if run.finetuned else _set(name, trained, start)


def _set(name: str, trained: Sequence[Line], start: Optional[float]) -> Check:
    best = max(trained, key=lambda line: line["accuracy_flip"])
    gain = 100 * (best["accuracy_flip"] - (0.5 if start is None else start))
    before = "chance" if start is None else "the untrained network"
    if gain < 1.0 and len(trained) < SURE_VALIDATIONS:
        return Check(WATCH, name, f"is {gain:+.1f} points from {before}; it is early.")
    if gain < 1.0:
        answer = f"is {gain:+.1f} points from {before}. Check labels, alignment and RGB order."
        return Check(BAD, name, answer)
    return _fallen(name, trained) or Check(OK, name, f"is {gain:.1f} points above {before}.")


def _finetuned_set(name: str, trained: Sequence[Line], start: Optional[float]) -> Check:
    """A finetuned network starts high, so that a small change is no error."""
    best = max(trained, key=lambda line: line["accuracy_flip"])
    if start is None:
        return _fallen(name, trained) or Check(OK, name, "has not fallen since its best.")
    gain = 100 * (best["accuracy_flip"] - start)
    level = WATCH if gain < -100 * _noise(best) else OK
    change = f"is {gain:+.1f} points from the checkpoint that was finetuned."
    return _fallen(name, trained) or Check(level, name, change)


def _noise(line: Line) -> float:
    return max(2 * line.get("accuracy_flip_std", 0.0), 0.002)


def _fallen(name: str, trained: Sequence[Line]) -> Optional[Check]:
    best = max(trained, key=lambda line: line["accuracy_flip"])
    lost = best["accuracy_flip"] - trained[-1]["accuracy_flip"]
    if lost <= _noise(best):
        return None
    answer = f"has lost {100 * lost:.1f} points since step {best['step']:,}."
    return Check(WATCH, name, answer)


def _overlaps(run: Run) -> Iterator[Check]:
    for name in run.validations:
        count = run.overlaps.get(name)
        if count:
            answer = (
                f"has {count:,} images of the training data, byte for byte. Its accuracy is not "
                "on unseen identities."
            )
            yield Check(BAD, name, answer)


def _shifts(run: Run) -> Iterator[Check]:
    for name, shift in run.shifts.items():
        answer = (
            f"has its mean face {describe(Shift(*shift))} of that of the training images: they are "
            "cut with different templates. Align both with the same one."
        )
        yield Check(WATCH, name, answer)


def _overfitting(run: Run) -> Optional[Check]:
    """High training accuracy while the mean over sets has not risen in the last half of the run."""
    accuracy, means = _last_accuracy(run), _mean_accuracies(run)
    if accuracy is None or accuracy < FITTED or len(means) < SURE_VALIDATIONS:
        return None
    middle = means[-1][0] / 2.0
    early = [mean for step, mean in means if step <= middle] or [means[0][1]]
    late = [mean for step, mean in means if step > middle]
    if max(late) > max(early) + 0.002 or max(late) >= SATURATED:
        return None
    best_step = max(means, key=lambda pair: pair[1])[0]
    answer = (
        f"Training accuracy is {100 * accuracy:.0f} %, but validation accuracy has not risen since "
        f"step {best_step:,}. Use more data or augmentation, or stop earlier."
    )
    return Check(WATCH, "Overfitting", answer)


def _mean_accuracies(run: Run) -> List[Tuple[int, float]]:
    """(step, mean Accuracy-Flip over sets) of the validations after step 0."""
    by_step: Dict[int, List[float]] = {}
    for lines in run.validations.values():
        for line in lines:
            by_step.setdefault(line["step"], []).append(line["accuracy_flip"])
    return [(step, statistics.mean(by_step[step])) for step in sorted(by_step) if step > 0]


def _separation(run: Run) -> Optional[Check]:
    lines = [lines[-1] for lines in run.validations.values() if lines[-1]["step"] > 0]
    lines = [line for line in lines if "impostor_cosine" in line]
    if not lines:
        return None
    impostor = max(line["impostor_cosine"] for line in lines)
    genuine = min(line["genuine_cosine"] for line in lines)
    if impostor > COLLAPSED:
        answer = f"have collapsed (mean cosine of impostor pairs {impostor:.2f})."
        return Check(BAD, "Embeddings", answer)
    means = f"mean cosine {genuine:.2f} for genuine pairs, {impostor:.2f} for impostor pairs."
    if genuine - impostor < NEAR:
        return Check(WATCH, "Embeddings", f"are barely separated: {means}")
    return Check(OK, "Embeddings", f"are separated: {means}")


def _throughput(run: Run) -> Optional[Check]:
    """The first line is skipped: it includes the first steps, which tune and allocate."""
    rates = [line["images_per_second"] for line in run.train if line.get("images_per_second")][1:]
    if len(rates) < 4:
        return None
    middle = statistics.median(rates)
    slow = sum(rate < SLOW * middle for rate in rates)
    if slow > 0.1 * len(rates):
        share = 100 * slow / len(rates)
        answer = f"has a median of {middle:,.0f} images/s; {share:.0f} % of lines are under half."
        return Check(WATCH, "Throughput", answer)
    low, high = (sorted(rates)[int(at * (len(rates) - 1))] for at in (0.1, 0.9))
    if max(high - middle, middle - low) <= STEADY * middle:
        return Check(OK, "Throughput", f"is steady at {middle:,.0f} images/s.")
    answer = f"has a median of {middle:,.0f} images/s, mostly {low:,.0f} to {high:,.0f}."
    return Check(OK, "Throughput", answer)
