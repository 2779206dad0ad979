"""A run's files -> the lines and files that Ascend's model zoo expects at the end of a script."""

import dataclasses
import glob
import json
import os
import platform

from evaluation.report.run_logs import read_metrics
from runtime.cli import run
from runtime.flags import flag, parse_flags


@dataclasses.dataclass(frozen=True)
class ClosingConfig:
    """What common.sh tells of the call."""

    run: str = flag(dataclasses.MISSING, "--output_path of the run")
    folder: str = flag(dataclasses.MISSING, "output/<device id> of the script")
    network: str = flag(dataclasses.MISSING, "name of the network")
    case_name: str = flag(dataclasses.MISSING, "name of the case")
    rank_size: int = flag(1, "cards", low=1)
    batch_size: int = flag(128, "images of a step on each card", low=1)
    seconds: int = flag(0, "from start to end", low=0)
    evaluation: bool = flag(False, "a checkpoint was evaluated, and none trained")


def main(argv=None):
    config = parse_flags(ClosingConfig, argv)
    fps, accuracy, losses = (evaluated if config.evaluation else trained)(config)
    print("------------------ Final result ------------------")
    print(f"Final Performance images/sec : {fps:.2f}")
    print(f"Final Train Accuracy : {accuracy:.4f}")
    print(f"E2E Training Duration sec : {config.seconds}")
    write_files(config, fps, accuracy, losses)
    return 0


def trained(config):
    """(images a second, accuracy, losses) of a run: the speed of its later half; the last
    validation's accuracy with mirrored images, of the mean set; else that of the last step."""
    lines = read_metrics(os.path.join(config.run, "logs", "metrics.jsonl"))
    steps = [line for line in lines if line["kind"] == "train"]
    if not steps:
        raise ValueError(f"{config.run} holds no steps; see the log in {config.folder}.")
    later = steps[len(steps) // 2 :]
    fps = sum(line["images_per_second"] for line in later) / len(later)
    validated = [line for line in lines if line["kind"] == "validation" and line["step"]]
    last = [line["accuracy_flip"] for line in validated if line["step"] == validated[-1]["step"]]
    accuracy = sum(last) / len(last) if last else steps[-1]["accuracy"]
    return fps, accuracy, [line["loss"] for line in steps]


def evaluated(config):
    """(images a second, mean accuracy with mirrored images, no losses) of all cards' tables."""
    rows = []
    cards = os.path.join(os.path.dirname(os.path.abspath(config.folder)), "[0-9]*")
    for path in sorted(glob.glob(os.path.join(cards, "eval.json"))):
        with open(path) as stream:
            rows += json.load(stream)
    images = sum(2 * (row["genuine"] + row["impostor"]) for row in rows)
    accuracy = sum(row["accuracy_flip"] for row in rows) / len(rows)
    return images / max(1, config.seconds), accuracy, []


def write_files(config, fps, accuracy, losses):
    if losses:
        path = os.path.join(config.folder, f"train_{config.case_name}_loss.txt")
        with open(path, "w") as stream:
            stream.writelines(f"{loss:.4f}\n" for loss in losses)
    facts = {
        "Network": config.network,
        "RankSize": config.rank_size,
        "BatchSize": config.batch_size,
        "DeviceType": platform.machine(),
        "CaseName": config.case_name,
        "ActualFPS": f"{fps:.2f}",
        "TrainingTime": f"{config.batch_size * config.rank_size * 1000 / max(fps, 1e-9):.2f}",
        "TrainAccuracy": f"{accuracy:.4f}",
        "ActualLoss": f"{losses[-1]:.4f}" if losses else "",
        "E2ETrainingTime": config.seconds,
    }
    with open(os.path.join(config.folder, f"{config.case_name}.log"), "w") as stream:
        stream.writelines(f"{key} = {value}\n" for key, value in facts.items())


if __name__ == "__main__":
    run(main)
