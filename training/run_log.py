"""What a run says of itself: in its records, its log, and at both ends."""

import dataclasses
import logging
import os
import platform
import sys
import time

import numpy as np

from runtime import tf1
from training.plan import data_identity


def record_of(config, plan):
    """What each checkpoint, and config.json, say of the run."""
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
            "device": config.device,
        },
    }


def log_to_file(directory, ranks):
    stamp = time.strftime("%Y%m%d-%H%M%S") + (f"_host_{ranks.host}" if ranks.hosts else "")
    handler = logging.FileHandler(os.path.join(directory, f"train_{stamp}.log"))
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger().addHandler(handler)


def log_plan(config, plan, prefix, ranks):
    rule = "as given" if config.lr else f"0.1 x {config.batch_size} / 512"
    logging.info(
        "data: %d images of %d identities in %d shards; %d steps of %d images",
        plan.manifest.images,
        plan.manifest.identities,
        len(plan.manifest.shards),
        plan.total_steps,
        config.batch_size,
    )
    logging.info(
        "net: %s %d of lineage %s, width %g, %d numbers a face; learning rate %.4g (%s), %s, "
        "changes at steps %s",
        plan.spec.block,
        plan.spec.net_depth,
        plan.spec.lineage,
        plan.spec.width,
        plan.spec.embedding_size,
        plan.peak_rate,
        rule,
        config.schedule,
        list(plan.rate_changes) or "none",
    )
    if ranks.size > 1:
        logging.info(
            "ranks: %d on %d hosts, each with %d images of a step and %d or %d identities",
            ranks.size,
            ranks.host_count,
            config.batch_size // ranks.size,
            plan.identities // ranks.size,
            -(-plan.identities // ranks.size),
        )
    if prefix:
        logging.info("going on from %s", prefix)


def log_end(config, last, stop):
    if stop.requested:
        again = " ".join(sys.argv + ([] if config.resume else ["--resume"]))
        logging.info(
            "%s: stopped after step %d, which is saved; go on with: python3 %s",
            stop.requested,
            last,
            again,
        )
    else:
        logging.info("trained to step %d; see %s/report.html", last, config.output_path)
    return 0
