"""What a run records about itself."""

import json
import logging
import os

from runtime.distributed.ranks import SINGLE
from tests.training.graph.test_step import config_of
from training.plan import make_plan
from training.run_log import (
    log_end,
    log_plan,
    log_to_file,
    record_of,
    report_unsaved,
    resume_command,
    write_config,
)


def test_the_record_names_net_flags_data_and_environment(small, tmp_path):
    config = config_of(small, tmp_path)
    record = record_of(config, make_plan(config))
    assert record["net"]["net_depth"] == config.net_depth and record["training"]["lr"] == 0.05
    assert record["dataset"]["images"] == small.images
    assert record["environment"]["device"] == "cpu"
    write_config(str(tmp_path), record)
    with open(str(tmp_path / "config.json")) as stream:
        assert json.load(stream) == json.loads(json.dumps(record))


def test_the_log_also_goes_to_a_file_with_the_time(tmp_path):
    logging.getLogger().setLevel(logging.INFO)
    with log_to_file(str(tmp_path), SINGLE):
        logging.info("within")
    logging.info("after")
    (name,) = os.listdir(str(tmp_path))
    (line,) = (tmp_path / name).read_text().splitlines()
    assert line.endswith(" within") and line[:4].isdigit()


def test_the_plan_is_logged_with_data_and_model(small, tmp_path, caplog):
    caplog.set_level("INFO")
    config = config_of(small, tmp_path)
    log_plan(config, make_plan(config), "run/ckpt", SINGLE)
    assert "24 images of 4 identities in 3 shards" in caplog.text
    assert f"arcface_torch IR-{config.net_depth}" in caplog.text
    assert "resuming from run/ckpt" in caplog.text


def test_the_resume_command_is_quoted_and_has_the_flag_once():
    argv = ["train_nets.py", "--output_path", "my run"]
    assert resume_command(argv, False) == "python3 train_nets.py --output_path 'my run' --resume"
    again = resume_command(argv + ["--resume"], True)
    assert again.count("--resume") == 1


def test_a_stopped_run_logs_how_to_resume(small, tmp_path, caplog):
    caplog.set_level("INFO")
    log_end(config_of(small, tmp_path), 7, 3.0, "SIGTERM")
    assert "SIGTERM: stopped after step 7, which is saved; resume with: python3" in caplog.text


def test_a_finished_run_names_its_report(small, tmp_path, caplog):
    caplog.set_level("INFO")
    log_end(config_of(small, tmp_path), 7, 3.0, None)
    assert f"trained to step 7; see {tmp_path}/report.html" in caplog.text


class Writer:
    directory, bytes = "run/ckpt", 12000000


def test_a_state_that_is_not_saved_is_one_sentence_with_the_cause(capsys):
    report_unsaved(Writer(), 7, "No space left on device")
    error = capsys.readouterr().err
    assert "the state of step 7 could not be saved to run/ckpt: No space left" in error
    assert "12 MB needed" in error and error.count("\n") == 1
