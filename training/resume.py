"""Where --resume continues: the newest complete checkpoint, if this run may continue it."""

import logging
from typing import Any, Dict, Mapping, NamedTuple, Optional

from checkpoint.format import newest_whole
from training.config import TrainConfig, check_resumable
from training.plan import Plan, check_dataset_unchanged


class Start(NamedTuple):
    """The state that a run starts from."""

    prefix: Optional[str] = None  # of the checkpoint; None in a new run
    record: Dict[str, Any] = {}  # of the checkpoint

    @property
    def step(self) -> int:
        """The steps that were made before."""
        return self.record.get("step", 0)

    @property
    def best(self) -> Optional[Mapping[str, float]]:
        """The highest accuracies so far, by verification set."""
        return self.record.get("best")


def find_start(config: TrainConfig, plan: Plan) -> Start:
    """The checkpoint that --resume continues; a ValueError where the flags or the data differ."""
    if not config.resume:
        return Start()
    directory = config.directory("ckpt")
    prefix, record = newest_whole(directory)
    if record is None or prefix is None:
        logging.info("--resume: no checkpoint in %s yet, a new run starts.", directory)
        return Start(prefix)
    check_resumable(config, record["training"], prefix)
    check_dataset_unchanged(plan.manifest, record["dataset"], prefix)
    return Start(prefix, record)
