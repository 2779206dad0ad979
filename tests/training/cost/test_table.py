"""The table of --plan."""

import pytest

from tests.training.cost.test_estimate import IDENTITIES, small
from training.cost.table import Hardware, plan_lines


def test_a_plan_of_ten_million_identities_needs_no_host_and_no_data():
    config = small(batch_size=512 * 2, device="gpu")
    lines = plan_lines(config, 10**7, Hardware(8, 64, 100.0, 900.0, device_memory=32.0))
    assert "19,531 per rank" in lines[0]
    assert lines[-1].endswith("GiB of its device's 32: it fits.")
    assert (
        plan_lines(config, 10**7, Hardware(8, 64, device_memory=0.01))[-1].count("does not fit")
        == 1
    )


def test_a_plan_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="--batch_size 8 cannot be divided among 3 devices"):
        plan_lines(small(), IDENTITIES, Hardware(3))
    with pytest.raises(ValueError, match="pass --bandwidth"):
        plan_lines(small(), IDENTITIES, Hardware(2, images_per_second=10.0))
