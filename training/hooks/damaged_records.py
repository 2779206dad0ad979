"""Damaged records that --on_error skip replaces by others of their batch."""

import logging
from typing import Any, Dict, Iterable, List

from training.hooks.base import Hook


class DamagedRecords(Hook):
    """Counts and names the damaged records of --on_error skip; too many end the run."""

    def __init__(self, on_error: str, max_errors: int) -> None:
        self.skipping, self.max_errors = on_error == "skip", max_errors
        self.names: List[str] = []

    def wants(self, step: int) -> Iterable[str]:
        return ("damaged",) if self.skipping else ()

    def after(self, step: int, values: Dict[str, Any], seconds: float) -> None:
        found = values["damaged"].decode().splitlines() if self.skipping else []
        self.names += found
        for name in found:
            logging.warning("step %d: skipped %s", step, name)
        if len(self.names) > self.max_errors:
            raise ValueError(
                f"{len(self.names)} damaged records by step {step}, the last of them {found[-1]}; "
                "convert the data again, or raise --max_errors."
            )

    def end(self, step: int) -> None:
        if self.names:
            logging.warning("%d damaged records were skipped.", len(self.names))
