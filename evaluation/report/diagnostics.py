"""A run's numbers -> is training healthy? One check a question, each answered in a sentence."""

import collections
import math
import statistics

OK, WATCH, BAD = "ok", "watch", "bad"
Check = collections.namedtuple("Check", "level question answer")

SAME_FOR_ALL = 0.9  # mean cosine of different people above which a net tells nobody apart
NEAR = 0.1  # between the mean cosines of genuine and impostor pairs
SLOW = 0.5  # of the median throughput
EDGE = 10  # lines compared at each end
SURE_LINES = 40  # of the log before a rising loss is a fault
SURE_VALIDATIONS = 3  # before a set that does not rise is one


def checks(run):
    """[Check] of a Run, the worst first."""
    found = [_loss(run), _memorised(run), *_sets(run), _spread(run), _speed(run)]
    order = (BAD, WATCH, OK)
    return sorted([check for check in found if check], key=lambda check: order.index(check.level))


def verdict(found):
    """(level, sentence) of all checks together."""
    if not found:
        return WATCH, "Nothing to judge yet"
    worst = found[0].level
    if worst == OK:
        return OK, "Training is healthy"
    count = sum(check.level == worst for check in found)
    what = "has a problem" if worst == BAD else "is worth a look"
    return worst, f"Training {what}" if count == 1 else f"Training {what} in {count} places"


def _loss(run):
    """The margin loss, not the whole: decay falls by itself."""
    name = "inference_loss" if run.train and "inference_loss" in run.train[-1] else "loss"
    values = [line[name] for line in run.train if isinstance(line.get(name), (int, float))]
    if not values:
        return None
    if not all(math.isfinite(value) for value in values):
        step = next(line["step"] for line in run.train if not math.isfinite(line.get(name, 0.0)))
        return Check(BAD, "Loss", f"is not finite at step {step:,}. Go back and lower --lr.")
    if len(values) < 4:
        return None
    edge = min(EDGE, len(values) // 2)
    first, last = statistics.median(values[:edge]), statistics.median(values[-edge:])
    said = f"from {first:.3g} to {last:.3g}"
    if last > 1.05 * first:
        level = BAD if len(values) >= SURE_LINES else WATCH  # while warming up it may
        return Check(level, "Loss", f"rises, {said}. Lower --lr or raise --warmup.")
    if last > 0.98 * first:
        return Check(WATCH, "Loss", f"stands still, {said}.")
    return Check(OK, "Loss", f"falls, {said}.")


def _memorised(run):
    values = [line["accuracy"] for line in run.train if isinstance(line.get("accuracy"), float)]
    if len(values) < 4:
        return None
    last = statistics.median(values[-min(EDGE, len(values) // 2) :])
    if last == 0.0:
        answer = "is still 0 without the margin. Usual in the first epoch only."
        return Check(WATCH, "Training accuracy", answer)
    return Check(OK, "Training accuracy", f"is {100 * last:.1f} % without the margin.")


def _sets(run):
    for name, lines in run.validations.items():
        trained = [line for line in lines if line["step"] > 0]
        if not trained:
            continue
        best = max(trained, key=lambda line: line["accuracy_flip"])
        last = trained[-1]
        start = lines[0]["accuracy_flip"] if lines[0]["step"] == 0 else None
        yield _set(name, best, last, start, sure=len(trained) >= SURE_VALIDATIONS)


def _set(name, best, last, start, sure):
    gain = 100 * (best["accuracy_flip"] - (0.5 if start is None else start))
    noise = best.get("accuracy_flip_std", 0.0)
    before = "chance" if start is None else "the untrained net"
    if gain < 1.0 and not sure:
        return Check(WATCH, name, f"is {gain:+.1f} points from {before}, so early no surprise.")
    if gain < 1.0:
        answer = f"is {gain:+.1f} points from {before}. Check labels, alignment and RGB order."
        return Check(BAD, name, answer)
    if best["accuracy_flip"] - last["accuracy_flip"] > max(2 * noise, 0.002):
        lost = 100 * (best["accuracy_flip"] - last["accuracy_flip"])
        return Check(WATCH, name, f"has lost {lost:.1f} points since step {best['step']:,}.")
    return Check(OK, name, f"is {gain:.1f} points above {before}.")


def _spread(run):
    lines = [lines[-1] for lines in run.validations.values() if lines[-1]["step"] > 0]
    lines = [line for line in lines if "impostor_cosine" in line]
    if not lines:
        return None
    impostor = max(line["impostor_cosine"] for line in lines)
    genuine = min(line["genuine_cosine"] for line in lines)
    if impostor > SAME_FOR_ALL:
        answer = f"are alike for everyone (mean cosine of different people {impostor:.2f})."
        return Check(BAD, "Embeddings", answer)
    said = f"mean cosine {genuine:.2f} for one person, {impostor:.2f} for two."
    if genuine - impostor < NEAR:
        return Check(WATCH, "Embeddings", f"hardly lie apart: {said}")
    return Check(OK, "Embeddings", f"lie apart: {said}")


def _speed(run):
    rates = [line["images_per_second"] for line in run.train if line.get("images_per_second")]
    if len(rates) < 4:
        return None
    middle = statistics.median(rates)
    slow = sum(rate < SLOW * middle for rate in rates)
    if slow > 0.1 * len(rates):
        share = 100 * slow / len(rates)
        answer = f"{middle:,.0f} images/s, but {share:.0f} % of the time under half of that."
        return Check(WATCH, "Throughput", answer)
    return Check(OK, "Throughput", f"is steady at {middle:,.0f} images/s.")
