"""preflight.json of a run: what the checks before the first step found, for its report."""

import json
import os
from typing import Mapping

from data.crop_geometry import Shift
from runtime.files import atomic_write
from training.write_errors import continue_on_write_error

FILE = "preflight.json"


def write_findings(
    output_path: str, overlaps: Mapping[str, int], shifts: Mapping[str, Shift]
) -> None:
    """overlaps: set -> its images that are training images too. shifts: set -> its Shift."""
    path = os.path.join(output_path, FILE)
    content = {
        "overlaps": dict(overlaps),
        "shifts": {name: list(shift) for name, shift in shifts.items()},
    }
    with continue_on_write_error(path), atomic_write(path) as stream:
        json.dump(content, stream, indent=1)
