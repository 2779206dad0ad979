"""This machine: its processor, and the memory that this process has used."""

import contextlib
import platform
import sys
from typing import Optional


def processor(cpuinfo: str = "/proc/cpuinfo") -> str:
    """The model of this machine's CPU."""
    with contextlib.suppress(OSError):
        with open(cpuinfo, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_memory() -> Optional[float]:
    """GiB of main memory that this process used at most; None where the system does not count."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
