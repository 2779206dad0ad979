"""That a million centres are held once: their start, their slots and their steps make no copy."""

import json
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IDENTITIES, SIZE = 400_000, 128


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peaks are read from Linux")
@pytest.mark.parametrize("devices", [1, 2])
def test_sampled_head_holds_weights_and_momentum_and_no_copy_of_either(devices):
    """On two devices each holds half of them: together they take no more."""
    words = ["--devices", str(devices)]
    words += ["--case", "ours", "--steps", "1", "--batch_size", "16", "--sample_rate", "0.005"]
    words += ["--identities", str(IDENTITIES), "--embedding_size", str(SIZE)]
    script = os.path.join(ROOT, "benchmarks", "head.py")
    said = subprocess.run(
        [sys.executable, script] + words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        check=True,
    )
    peak = json.loads(said.stdout.decode().strip().splitlines()[-1])["gib"] * 2**30
    assert peak < 1.3 * 2 * 4 * IDENTITIES * SIZE  # one more copy would make it 1.5
