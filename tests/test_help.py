"""--help of every script, and its answer to a mistyped flag: examples, and no TensorFlow."""

import glob
import json
import os
import subprocess
import sys

import pytest

from runtime.flags import parse_flags
from tests.test_end_to_end import ROOT
from training.config import MultiDeviceConfig, TrainConfig

# Runs each script; prints {"script --flag": [its output, its exit code, TensorFlow's part]}.
RUN = """
import contextlib, io, json, runpy, sys
found = {}
for script in sys.argv[1:]:
    for word in ("--help", "--no_such_flag"):
        sys.argv, text, code = [script, word], io.StringIO(), None
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            try:
                runpy.run_path(script, run_name="__main__")
            except SystemExit as ended:
                code = ended.code
        found[f"{script} {word}"] = [text.getvalue(), code, "tensorflow" in sys.modules]
print(json.dumps(found))
"""
# The flags of InsightFace_TF's train_nets.py and train_nets_mgpu.py, which its users know.
ORIGINAL = """
net_depth epoch batch_size lr_steps momentum eval_datasets eval_db_path image_size num_output
tfrecords_file_path summary_path ckpt_path log_file_path saver_maxkeep buffer_size
log_device_mapping summary_interval ckpt_interval validate_interval show_info_interval
""".split()


def scripts():
    """Paths of the files that people call, relative to the root."""
    paths = glob.glob(os.path.join(ROOT, "*.py")) + glob.glob(os.path.join(ROOT, "data", "*.py"))
    for path in sorted(paths):
        with open(path) as stream:
            if '__name__ == "__main__"' in stream.read():
                yield os.path.relpath(path, ROOT)


@pytest.fixture(scope="module")
def answers():
    words = [sys.executable, "-c", RUN] + list(scripts())
    environ = dict(os.environ, COLUMNS="102", PYTHONPATH=ROOT)
    return json.loads(subprocess.check_output(words, cwd=ROOT, env=environ).decode())


@pytest.mark.parametrize("script", scripts())
def test_help_and_a_mistyped_flag_load_no_tensorflow(answers, script):
    text, code, loaded = answers[f"{script} --help"]
    assert code == 0 and "--" in text and not loaded
    text, code, loaded = answers[f"{script} --no_such_flag"]
    assert code == 2 and text.count("\n") == 1 and not loaded


@pytest.mark.parametrize("script", ["train_nets.py", "train_nets_mgpu.py"])
def test_the_common_help_has_examples_first_and_two_screens_of_flags(answers, script):
    lines = answers[f"{script} --help"][0].splitlines()
    assert any(f"python3 {script} " in line for line in lines[:6])
    assert len(lines) <= 90 and max(map(len, lines)) <= 100
    known = {line.split()[0][2:] for line in lines if line.startswith("  --")}
    assert not set(ORIGINAL) - known


def all_flags(config_class, capsys):
    with pytest.raises(SystemExit):
        parse_flags(config_class, ["--help_all"])
    return capsys.readouterr().out


def test_help_all_has_the_flags_that_help_omits(answers, capsys):
    everything = all_flags(MultiDeviceConfig, capsys)
    for name in ("clip_norm", "max_restarts", "npu_option"):
        assert f"--{name}" in everything
        assert f"--{name}" not in answers["train_nets_mgpu.py --help"][0]


def test_a_mistyped_flag_that_help_omits_is_still_found():
    with pytest.raises(ValueError, match="did you mean --clip_norm"):
        parse_flags(TrainConfig, ["--clip_nrom", "1"])
