"""The report of a run: headline, health, commands."""

import html
import json
import os
import re

from evaluation.report import writer
from evaluation.report.run_logs import read_run
from tests.evaluation import tiny_sets
from tests.evaluation.report.tiny_runs import text_of, whole_run
from tests.evaluation.tiny_sets import train_line, validation_line


def test_all_headline_figures_are_of_one_checkpoint(tmp_path):
    lines = [validation_line(0, 0.5), validation_line(0, 0.5, "cfp_fp")]
    for step, lfw, cfp in ((10, 0.95, 0.70), (20, 0.90, 0.80), (30, 0.91, 0.75)):
        lines += [validation_line(step, lfw), validation_line(step, cfp, "cfp_fp")]
    run = read_run(tiny_sets.write_run(tmp_path / "r", lines))
    assert run.best_step == 20  # the highest mean; lfw alone is higher at step 10
    text = text_of(writer.write_report(run.path))
    assert "90.00<small> %" in text and "80.00<small> %" in text
    assert "95.00<small> %" not in text


def test_the_headline_names_its_checkpoint_and_the_commands_to_use_it(tmp_path):
    run = whole_run(tmp_path / "my run", eval_db_path="data sets")
    os.makedirs(os.path.join(run, "ckpt"))
    prefix = os.path.join(run, "ckpt", "InsightFace_iter_best_600.ckpt")
    open(prefix + ".index", "w").close()
    text = html.unescape(text_of(writer.write_report(run)))
    quoted = f"--ckpt_file '{prefix}'"
    assert f"python eval_ckpt_file.py {quoted} --eval_db_path 'data sets'" in text
    assert f"python infer.py embed {quoted} --images" in text


def test_a_checkpoint_that_is_gone_is_not_named(tmp_path):
    text = text_of(writer.write_report(whole_run(tmp_path / "demo")))
    assert "No checkpoint of this step is kept" in text and "eval_ckpt_file.py" not in text


def test_an_overlap_with_the_training_images_is_in_the_report(tmp_path):
    run = whole_run(tmp_path / "demo")
    findings = {"overlaps": {"lfw": 7}, "shifts": {"cfp_fp": [8, 0]}}
    with open(os.path.join(run, "preflight.json"), "w") as stream:
        json.dump(findings, stream)
    text = text_of(writer.write_report(run))
    assert "has 7 images of the training data" in text
    assert "has its mean face 8 pixels down of that of the training images" in text
    assert "Training is healthy" not in text


def test_duration_host_and_peak_memory_are_in_the_header(tmp_path):
    run = tiny_sets.write_run(
        tmp_path / "r",
        [train_line(10, seconds=1107.0, peak_memory_gib=1.9)],
        {"environment": {"device": "cpu", "processor": "Some CPU", "cpus": 2}},
    )
    text = text_of(writer.write_report(run))
    assert "18 min 27 s" in text
    assert "Device cpu; host Some CPU, 2 cores; at most 1.9 GiB of main memory." in text


def test_each_link_of_the_contents_leads_to_a_section(tmp_path):
    text = text_of(writer.write_report(whole_run(tmp_path / "demo")))
    anchors = re.findall(r'href="#([a-z]+)"', text)
    assert len(anchors) >= 5 and all(f'<section id="{one}">' in text for one in anchors)
