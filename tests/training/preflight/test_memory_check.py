"""Whether a run fits: the sentence, and what a machine says of itself."""

import pytest

from runtime.distributed.ranks import SINGLE
from tests.training.graph.test_step import run  # noqa: F401
from training.preflight.memory_check import check_fits_memory, compare_memory, machine_memory

GIB = 2**30


def test_a_run_that_cannot_fit_is_refused_with_its_parts():
    with pytest.raises(ValueError) as error:
        compare_memory(40 * GIB, 9 * GIB, 30 * GIB, 24 * GIB, "this machine has")
    assert str(error.value).startswith(
        "the run needs about 40.0 GiB (9.0 for weights and optimizer state, 30.0 for the "
        "tensors of a step), and this machine has 24.0; lower --batch_size"
    )


def test_a_run_that_may_not_fit_is_told(caplog):
    assert compare_memory(25 * GIB, GIB, GIB, 24 * GIB, "this machine has") == "25.0 of 24.0 GiB"
    assert "it may not fit" in caplog.text
    caplog.clear()
    assert compare_memory(3 * GIB, GIB, GIB, 24 * GIB, "this machine has") == "3.0 of 24.0 GiB"
    assert compare_memory(3 * GIB, GIB, GIB, None, "") == "3.0 GiB" and not caplog.text


def test_a_machine_has_what_the_smaller_of_its_files_says(tmp_path):
    meminfo, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    meminfo.write_text("MemTotal:       2048 kB\nMemFree: 1 kB\n")
    limit.write_text("max\n")
    assert machine_memory(str(meminfo), str(limit)) == 2048 * 1024
    limit.write_text("4096\n")
    assert machine_memory(str(meminfo), str(limit)) == 4096
    assert machine_memory(str(tmp_path / "none"), str(tmp_path / "none")) is None


def test_the_graph_of_a_run_tells_what_it_needs(run):  # noqa: F811
    run_ = run()
    needed, _, rest = check_fits_memory(run_.session, run_.step, run_.config, SINGLE).partition(" ")
    assert 0.5 < float(needed) < 2.0 and rest.startswith("of ")
