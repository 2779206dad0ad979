"""A whole run's directory, for the tests of its report."""

import os

from evaluation.verification_set import VerificationSet
from tests.evaluation import tiny_sets
from tests.evaluation.tiny_sets import train_line, validation_line


def text_of(path):
    with open(str(path), encoding="utf-8") as stream:
        return stream.read()


def whole_run(path, best=0.9, sets=("lfw", "cfp_fp"), **config):
    lines = [train_line(step) for step in range(10, 600, 10)]
    for name in sets:
        lines += [validation_line(step, best - 0.1 + step / 6e3, name) for step in (0, 300, 600)]
    record = {
        "net": tiny_sets.SPEC.to_json(),
        "training": {"lr": 0.1, "total_steps": 600, **config},
    }
    record["dataset"] = {"images": 240, "identities": 40, "source": "train.rec"}
    run = tiny_sets.write_run(path, lines, record)
    os.makedirs(os.path.join(run, "best"))
    for name in sets:
        path = os.path.join(run, f"{name}.bin")
        tiny_sets.write_set(path, pairs=40)
        result = VerificationSet.open(path).evaluate(tiny_sets.FAKE_NET)
        result.save(os.path.join(run, "best", f"{name}.npz"), step=600)
    return run
