"""Speed of a model by batch size: images a second, latency, memory, and the guide's table."""

import contextlib
import sys
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from inference.embedder import Embedder

GUIDE_BATCHES = (1, 4, 8, 16, 32, 64)
MIN_RUNS, MAX_RUNS = 3, 200


class Timing(NamedTuple):
    """What one batch size costs."""

    model: str  # the file
    backend: str  # see model_files.BACKENDS
    precision: str  # fp32, bf16 or int8
    threads: int  # CPU threads
    batch: int  # images in a run
    runs: int  # that were timed
    images_per_second: float  # batch / mean latency
    mean_ms: float  # latency of a run
    median_ms: float
    p99_ms: float
    memory_mb: float  # resident memory of the process after the runs

    def guide_line(self) -> str:
        """The line that the guide reproduces from ais_bench's log."""
        return (
            f"[INFO] throughput 1000*batchsize.mean({self.batch})/"
            f"NPU_compute_time.mean({self.mean_ms}): {self.images_per_second}"
        )


def time_batches(
    embedder: Embedder,
    batches: Sequence[int],
    seconds: float,
    progress: Optional[Callable[[Timing], Any]] = None,
) -> List[Timing]:
    """Times each batch size for about `seconds`, after one run that is not counted."""
    timings = []
    for batch in batches:
        fixed = embedder.input_shape[0]
        if fixed not in (None, batch):
            continue
        x = _random_input(embedder, batch)
        lasted = _time_runs(lambda x=x: embedder.run(x), seconds)  # type: ignore[misc]
        mean, median = float(np.mean(lasted)), float(np.median(lasted))
        timings.append(
            Timing(
                model=embedder.model,
                backend=embedder.backend_name,
                precision=embedder.precision,
                threads=embedder.threads,
                batch=batch,
                runs=len(lasted),
                images_per_second=batch / mean,
                mean_ms=1e3 * mean,
                median_ms=1e3 * median,
                p99_ms=1e3 * float(np.percentile(lasted, 99)),
                memory_mb=resident_megabytes(),
            )
        )
        if progress is not None:
            progress(timings[-1])
    return timings


def _time_runs(run: Callable[[], Any], seconds: float) -> List[float]:
    run()
    lasted: List[float] = []
    while len(lasted) < MIN_RUNS or (sum(lasted) < seconds and len(lasted) < MAX_RUNS):
        start = time.perf_counter()
        run()
        lasted.append(time.perf_counter() - start)
    return lasted


def _random_input(embedder: Embedder, batch: int) -> np.ndarray:
    shape = (batch,) + embedder.image_size + (3,)
    images_BHWC = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    return embedder.preprocess(images_BHWC)


def resident_megabytes() -> float:
    """Resident memory of this process; where /proc is missing, the most that it ever was."""
    with contextlib.suppress(OSError, StopIteration):
        with open("/proc/self/status", encoding="ascii", errors="replace") as stream:
            line = next(line for line in stream if line.startswith("VmRSS:"))
        return float(line.split()[1]) / 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024) if sys.platform == "darwin" else peak / 1024


def markdown_table(timings: Sequence[Timing], accuracies: Dict[str, str]) -> str:
    """The guide's table, with a column of accuracy by precision where one was measured."""
    heads = ["backend", "precision", "batch", "images/s", "median ms", "p99 ms", "memory MB"]
    if accuracies:
        heads.append("accuracy")
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    fastest = {
        key: max(
            each.images_per_second for each in timings if (each.backend, each.precision) == key
        )
        for key in {(each.backend, each.precision) for each in timings}
    }
    for each in timings:
        rate = f"{each.images_per_second:.1f}"
        if each.images_per_second == fastest[each.backend, each.precision]:
            rate = f"**{rate}**"
        cells = [each.backend, each.precision, str(each.batch), rate]
        cells += [f"{each.median_ms:.2f}", f"{each.p99_ms:.2f}", f"{each.memory_mb:.0f}"]
        if accuracies:
            cells.append(accuracies.get(each.precision, ""))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
