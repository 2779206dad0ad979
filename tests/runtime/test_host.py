"""What this machine is, and what this process has used."""

import numpy as np

from runtime.host import peak_memory, processor


def test_the_processor_is_the_model_of_the_first_core(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nmodel name\t: A CPU @ 2.0 GHz\nmodel name\t: Other\n")
    assert processor(str(path)) == "A CPU @ 2.0 GHz"


def test_a_machine_without_such_a_file_still_has_a_name(tmp_path):
    assert processor(str(tmp_path / "none"))


def test_the_peak_of_memory_grows_with_what_is_used_and_never_falls():
    before = peak_memory()
    block = np.ones(60 << 20, np.uint8)
    after = peak_memory()
    del block
    assert after >= before and peak_memory() >= after > 0.05
