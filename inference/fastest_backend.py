"""Which installed backend runs a model fastest on this machine: measured once and remembered.

No order is right for every model: two runtimes differ by less than 1.3 in either direction from one
network, processor and number of images in a run to the next.
"""

import json
import logging
import os
import platform
import time
from typing import Dict, List, Optional, Tuple

import numpy as np

from inference.backends.base import Backend, ModelOptions
from inference.model_files import installed_readers, model_kind, open_backend
from runtime.files import atomic_write, read_json_object, sha256_of

SMALLEST = 1 << 20  # bytes; a smaller model embeds thousands of images before this pays
BATCHES = (1, 4)  # images in a run
ROUNDS = 4  # of every backend in turn; the first one plans memory and is not counted
USUAL_SIZE = 112  # pixels, where a model leaves height or width open


def fastest_backend(model: str, options: ModelOptions) -> Optional[str]:
    """The name of the fastest installed backend that reads `model`; None where none does.

    The first call for a model, a processor and these options takes a few seconds."""
    names = installed_readers(model_kind(model), options.precision)
    if len(names) < 2 or not os.path.isfile(model) or os.path.getsize(model) < SMALLEST:
        return names[0] if names else None
    path = memory_path()
    if not _is_writable(path):  # a run that is resumed must find the same answer again
        return names[0]
    key = " ".join([sha256_of(model)[:32], _processor(), _spelled(options)] + names)
    known = read_json_object(path)
    if known.get(key) in names:
        return str(known[key])
    rates = measure(model, names, options)
    if not rates:
        return names[0]  # its error is the one to report
    fastest = max(rates, key=lambda name: rates[name])
    shown = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
    logging.info(
        "images/s: %s; %s is used for this model from now on (--backend overrides it).",
        shown,
        fastest,
    )
    with atomic_write(path) as stream:
        json.dump(dict(known, **{key: fastest}), stream, indent=1)
    return fastest


def measure(model: str, names: List[str], options: ModelOptions) -> Dict[str, float]:
    """{backend: images a second in its best run}, without those that do not load it."""
    backends: Dict[str, Backend] = {}
    for name in names:
        try:
            backends[name] = open_backend(model, name, options)[1]
        except ValueError as error:
            logging.debug("%s", error)
    rates = {name: 0.0 for name in backends}
    inputs = {name: _inputs(backend) for name, backend in backends.items()}
    for turn in range(ROUNDS):
        for name, backend in backends.items():
            for x in inputs[name]:
                begin = time.perf_counter()
                backend.run(x)
                rate = len(x) / (time.perf_counter() - begin)
                rates[name] = max(rates[name], rate if turn else 0.0)
    for backend in backends.values():
        backend.close()
    return rates


def memory_path() -> str:
    """The file that holds what was measured."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(root, "insightface-tf", "backends.json")


def _inputs(backend: Backend) -> List[np.ndarray]:
    """Random pixels in the backend's own form, for each number of images that it takes."""
    fixed = backend.input_shape[0]
    found = []
    for batch in (fixed,) if fixed else BATCHES:
        shape: Tuple[int, ...] = (batch,) + tuple(n or USUAL_SIZE for n in backend.input_shape[1:])
        pixels = np.random.RandomState(0).randint(0, 256, shape)
        found.append(pixels.astype(backend.input_dtype))
    return found


def _is_writable(path: str) -> bool:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    except OSError:
        return False
    return os.access(os.path.dirname(path), os.W_OK)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as stream:
            names = [line.split(":")[1].strip() for line in stream if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor()} x{len(names) or os.cpu_count()}"


def _spelled(options: ModelOptions) -> str:
    return f"{options.threads} {options.precision} {options.device} {options.batch_size}"
