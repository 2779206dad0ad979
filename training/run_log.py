"""What a run records about itself: its config file, its log, and the lines at both ends."""

import contextlib
import dataclasses
import json
import logging
import os
import platform
import shlex
import sys
import time
from typing import Any, Dict, Iterator, List, Optional, Sequence

import numpy as np

from checkpoint.writer import CheckpointWriter
from runtime import tf1
from runtime.cli import complain
from runtime.distributed.ranks import Ranks
from runtime.files import atomic_write
from runtime.host import peak_memory, processor
from runtime.tf1 import tf
from training.config import TrainConfig
from training.plan import Plan, data_identity, unreached

CLOCK = "%H:%M:%S"


def record_of(config: TrainConfig, plan: Plan) -> Dict[str, Any]:
    """The record of the run in each checkpoint and in config.json."""
    return {
        "net": plan.spec.to_json(),
        "training": dataclasses.asdict(config),
        "dataset": data_identity(plan.manifest),
        "total_steps": plan.total_steps,
        "environment": {
            "python": platform.python_version(),
            "tensorflow": tf1.VERSION,
            "numpy": np.__version__,
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "processor": processor(),
            "device": config.device,
        },
    }


def write_config(directory: str, record: Dict[str, Any]) -> None:
    """Writes config.json."""
    with atomic_write(os.path.join(directory, "config.json")) as stream:
        json.dump(record, stream, indent=1, sort_keys=True)
        stream.write("\n")


class _LogFile(logging.FileHandler):
    """A log file whose disk may be full: one warning elsewhere, and training continues."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.failed:
            self.failed = True
            logging.warning(
                "%s could not be written (%s); the log continues here.",
                self.baseFilename,
                error.strerror,
            )


@contextlib.contextmanager
def log_to_file(directory: str, ranks: Ranks) -> Iterator[None]:
    """Within: the log also goes to a file, and its lines have the time of day."""
    root = logging.getLogger()
    terminals = [handler for handler in root.handlers if type(handler) is logging.StreamHandler]
    before = [handler.formatter for handler in terminals]
    suffix = f"_host_{ranks.host}" if ranks.hosts else ""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    file = _LogFile(os.path.join(directory, f"train_{stamp}{suffix}.log"))
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for handler in terminals:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", CLOCK))
    root.addHandler(file)
    try:
        yield
    finally:
        root.removeHandler(file)
        with contextlib.suppress(OSError):
            file.close()
        for handler, formatter in zip(terminals, before):
            handler.setFormatter(formatter)


def log_plan(config: TrainConfig, plan: Plan, prefix: Optional[str], ranks: Ranks) -> None:
    """The lines at the start of a run. prefix: the checkpoint to resume from."""
    logging.info(
        "data: %d images of %d identities in %d shards; %d steps of %d images",
        plan.manifest.images,
        plan.manifest.identities,
        len(plan.manifest.shards),
        plan.total_steps,
        config.batch_size,
    )
    logging.info(
        "model: %s %s-%d, width %g, %d-d embedding; learning rate %.4g (%s), %s, "
        "changes at steps %s",
        plan.spec.lineage,
        plan.spec.block.upper(),
        plan.spec.net_depth,
        plan.spec.width,
        plan.spec.embedding_size,
        plan.rates.peak_rate,
        "as given" if config.lr else f"0.1 x {config.batch_size} / 512",
        config.schedule,
        list(plan.rates.changes) or "none",
    )
    if ranks.size > 1:
        logging.info(
            "ranks: %d on %d hosts, each with %d images per step and %d or %d identities",
            ranks.size,
            ranks.host_count,
            config.batch_size // ranks.size,
            plan.identities // ranks.size,
            -(-plan.identities // ranks.size),
        )
    for sentence in unreached(plan):
        logging.warning("%s", sentence)
    if prefix:
        logging.info("resuming from %s", prefix)


def log_devices(session: tf.Session, ranks: Ranks) -> None:
    """The machine that the run uses."""
    logging.info(
        "host: %s, %s, %d cores; device: %s",
        platform.node() or "unknown",
        processor(),
        os.cpu_count() or 0,
        ", ".join(device_names(session, ranks.kind)) or ranks.kind,
    )


def device_names(session: tf.Session, kind: str) -> List[str]:
    """The models of the GPUs that TensorFlow uses; none for other devices."""
    if kind != "GPU":
        return []
    details = getattr(tf.config.experimental, "get_device_details", None)  # not in 1.15
    if details is None:
        return [d.name for d in session.list_devices() if d.device_type == "GPU"]
    gpus = tf.config.experimental.list_physical_devices("GPU")
    return [details(gpu).get("device_name", gpu.name) for gpu in gpus]


def log_end(config: TrainConfig, last: int, seconds: float, stopped_by: Optional[str]) -> None:
    """The lines at the end of a run whose state is saved. stopped_by: the signal, if one came."""
    memory = peak_memory()
    used = f", at most {memory:.1f} GiB of main memory" if memory else ""
    logging.info("%.0f s%s.", seconds, used)
    if stopped_by:
        logging.info(
            "%s: stopped after step %d, which is saved; resume with: %s",
            stopped_by,
            last,
            resume_command(sys.argv, config.resume),
        )
    else:
        logging.info("trained to step %d; see %s/report.html", last, config.output_path)


def report_unsaved(writer: CheckpointWriter, last: int, failure: str) -> None:
    """The sentence of a run that ends without its last state on disk."""
    complain(
        f"the state of step {last} could not be saved to {writer.directory}: {failure}, "
        f"{writer.bytes / 1e6:.0f} MB needed. Make room and resume with --resume."
    )


def resume_command(argv: Sequence[str], resumed: bool) -> str:
    """The command line that resumes this run, quoted for a shell."""
    words = ["python3"] + list(argv) + ([] if resumed else ["--resume"])
    return " ".join(map(shlex.quote, words))
