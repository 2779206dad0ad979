"""Compares the machine's NVIDIA cards with the GPUs that the installed TensorFlow was built for.

TensorFlow falls back to the CPU without an error where a driver or library is missing, and compiles
every kernel for minutes where the wheel has none for the card. `sentence` states which case it is.
"""

import logging
import os
import re
import subprocess
from typing import Any, List, Mapping, NamedTuple, Optional, Tuple

from runtime.tf1 import tf

DRIVER = "/proc/driver/nvidia/version"  # of the kernel module; exists without nvidia-smi
QUERY = ("name", "compute_cap", "driver_version")
TIMEOUT = 20.0  # seconds; nvidia-smi hangs where a card has failed
Version = Tuple[int, int]  # compute capability: (9, 0) is sm_90


class Card(NamedTuple):
    """One NVIDIA card."""

    name: str
    capability: Optional[Version]  # None: nvidia-smi of an old driver does not report it
    driver: str  # version of the driver


def report() -> str:
    """The sentence for this machine and the installed TensorFlow."""
    return sentence(build_info(), nvidia_smi(), os.path.exists(DRIVER))


def check_device(device: str) -> None:
    """Logs the report for `--device gpu`, and where a driver is loaded but TensorFlow sees no GPU;
    fails where `--device gpu` has none."""
    if device != "gpu" and not os.path.exists(DRIVER):
        return
    if tf.config.experimental.list_physical_devices("GPU"):
        if device == "gpu":
            logging.info("GPU: %s", report())
    elif device == "gpu":
        raise ValueError(
            f"--device gpu: TensorFlow sees no GPU on this machine. {report()} Install the driver "
            "and TensorFlow's CUDA libraries (pip install 'tensorflow[and-cuda]'), or pass "
            "--device cpu."
        )
    else:
        logging.warning("TensorFlow sees no GPU, but an NVIDIA driver is loaded. %s", report())


def build_info() -> Mapping[str, Any]:
    """Properties of the installed TensorFlow's build. 1.15 has no record of them."""
    get_build_info: Any = getattr(tf.sysconfig, "get_build_info", None)
    if get_build_info is not None:
        return dict(get_build_info())
    return {"is_cuda_build": tf.test.is_built_with_cuda()}


def nvidia_smi() -> Optional[str]:
    """The CSV text of nvidia-smi: name, compute capability and driver of each card. None where the
    program does not exist or fails."""
    words = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=TIMEOUT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")


def read_cards(csv_text: Optional[str]) -> List[Card]:
    """Lines `name, compute capability, driver` -> cards. Other lines are messages of nvidia-smi."""
    cards = []
    for line in (csv_text or "").splitlines():
        fields = [field.strip() for field in line.rsplit(",", len(QUERY) - 1)]
        if len(fields) == len(QUERY):
            cards.append(Card(fields[0], _version(fields[1]), fields[2]))
    return cards


def sentence(build: Mapping[str, Any], csv_text: Optional[str], has_driver: bool = False) -> str:
    """Build info and the text of nvidia-smi -> which cards there are, and whether TensorFlow has
    kernels for them. has_driver: whether the kernel module is loaded."""
    if not build.get("is_cuda_build"):
        return f"This TensorFlow is built for the CPU only{_but_cards(csv_text)}."
    cards = read_cards(csv_text)
    if not cards:
        if has_driver:
            return "An NVIDIA driver is loaded, but nvidia-smi lists no card: run nvidia-smi."
        return "nvidia-smi lists no card: there is no NVIDIA driver or no NVIDIA card."
    return " ".join([_built_for(build)] + [_fit(build, card) for card in _distinct(cards)])


def _but_cards(csv_text: Optional[str]) -> str:
    cards = read_cards(csv_text)
    return f", but the machine has {_spell(cards[0])}" if cards else ""


def _built_for(build: Mapping[str, Any]) -> str:
    cuda = build.get("cuda_version")
    text = f"This TensorFlow is built for CUDA {cuda}" if cuda else "This TensorFlow uses CUDA"
    native, portable = _capabilities(build)
    kernels = [_sm(version) for version in native]
    kernels += [f"compute_{major}{minor} (PTX)" for major, minor in portable]
    return f"{text} with kernels for {', '.join(kernels)}." if kernels else f"{text}."


def _fit(build: Mapping[str, Any], card: Card) -> str:
    native, portable = _capabilities(build)
    known = native + portable
    if card.capability is None or not known:
        return f"{_spell(card)}: whether the kernels fit is unknown."
    if any(v[0] == card.capability[0] and v <= card.capability for v in native):
        return f"{_spell(card)}: the kernels fit."
    if any(version <= card.capability for version in portable):
        newest = max(version for version in portable if version <= card.capability)
        return (
            f"{_spell(card)}: no kernels for it; the driver compiles those of "
            f"compute_{newest[0]}{newest[1]} at the first start, which takes minutes."
        )
    if card.capability < min(known):
        return f"{_spell(card)} is too old: install an older TensorFlow, or use another card."
    return f"{_spell(card)}: no kernels for it: install a newer TensorFlow."


def _capabilities(build: Mapping[str, Any]) -> Tuple[List[Version], List[Version]]:
    """(with kernels, with PTX), both in ascending order: sm_90 is machine code for 9.x from 9.0 on,
    compute_90 is PTX, which a driver compiles for any later card. An entry `9.0` is both."""
    native, portable = set(), set()
    for text in build.get("cuda_compute_capabilities") or ():
        version = _version(re.sub(r"^(sm|compute)_(\d+)(\d)[a-z]?$", r"\2.\3", str(text)))
        if version is not None:
            if not str(text).startswith("compute_"):
                native.add(version)
            if not str(text).startswith("sm_"):
                portable.add(version)
    return sorted(native), sorted(portable)


def _version(text: str) -> Optional[Version]:
    found = re.match(r"^(\d+)\.(\d+)$", text)
    return (int(found.group(1)), int(found.group(2))) if found else None


def _distinct(cards: List[Card]) -> List[Card]:
    return [card for index, card in enumerate(cards) if card not in cards[:index]]


def _spell(card: Card) -> str:
    version = f"{_sm(card.capability)}, " if card.capability else ""
    return f"{card.name} ({version}driver {card.driver})"


def _sm(version: Version) -> str:
    return f"sm_{version[0]}{version[1]}"
