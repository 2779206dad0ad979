"""From a .rec to an accuracy, by the scripts that people call, on a net of seconds."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import eval_ckpt_file
import train_nets
from data import mx2tfrecords
from data.eval_data_reader import decode_images
from data.formats.tfrecord import example_bytes, parse_example
from evaluation.report.run_logs import read_metrics
from runtime.cli import run
from runtime.tf1 import tf
from tests.data.tiny_shards import write_shard

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def flags(small, output, *more):
    """The command line of a run of three steps on the small set."""
    words = {
        "tfrecords_file_path": small.shards,
        "output_path": output,
        "eval_db_path": small.folder,
        "image_size": f"{small.size},{small.size}",
        "net_depth": 10,
        "width": 0.125,
        "embedding_size": 16,
        "batch_size": 8,
        "eval_batch_size": 10,
        "lr": 0.05,
        "epoch": "3step",
        "show_info_interval": 1,
        "validate_interval": 2,
        "ckpt_interval": 2,
    }
    line = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    return line + ["--eval_datasets", "lfw", "cfp_fp"] + list(more)


def values_of(prefix):
    reader = tf.train.load_checkpoint(prefix)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def last_checkpoint(output, step):
    return os.path.join(str(output), "ckpt", f"InsightFace_iter_{step}.ckpt")


def numbers_of(output):
    """metrics.jsonl without what a clock wrote."""
    lines = read_metrics(os.path.join(str(output), "logs", "metrics.jsonl"))
    clock = ("images_per_second", "input_share", "flops_per_second", "flops_share")
    clock += ("goodput_share", "peak_memory_gib", "lost_steps")
    return [
        {key: line[key] for key in line if key not in clock and not key.endswith("seconds")}
        for line in lines
    ]


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """A run of five steps that nothing disturbed."""
    output = tmp_path_factory.mktemp("whole")
    assert train_nets.main(flags(small, str(output), "--epoch", "5step")) == 0
    return output


def test_a_run_leaves_the_files_that_the_readme_names(trained):
    for name in ("config.json", "report.html", "logs/metrics.jsonl", "summary", "ckpt"):
        assert os.path.exists(os.path.join(str(trained), name)), name
    steps = [line["step"] for line in numbers_of(trained) if line["kind"] == "train"]
    assert steps == [1, 2, 3, 4, 5]
    validated = [(line["step"], line["set"]) for line in numbers_of(trained) if "set" in line]
    assert validated == [(step, name) for step in (0, 2, 4, 5) for name in ("lfw", "cfp_fp")]
    with open(last_checkpoint(trained, 5) + ".json") as stream:
        record = json.load(stream)
    assert record["training"]["batch_size"] == 8 and record["net"]["net_depth"] == 10
    assert record["step"] == 5 and record["images_seen"] == 40
    assert values_of(last_checkpoint(trained, 5))["global_step"] == 5  # counted once a step


def test_a_resumed_run_ends_in_the_same_bits(small, trained, tmp_path):
    output = str(tmp_path)
    assert train_nets.main(flags(small, output, "--epoch", "2step")) == 0
    assert train_nets.main(flags(small, output, "--epoch", "5step", "--resume")) == 0
    whole, parts = values_of(last_checkpoint(trained, 5)), values_of(last_checkpoint(output, 5))
    assert whole.keys() == parts.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)
    assert numbers_of(output) == numbers_of(trained)


def test_evaluation_gives_the_accuracy_that_training_saw(small, trained, tmp_path):
    path = str(tmp_path / "eval.json")
    words = ["--ckpt_path", str(trained / "ckpt"), "--eval_db_path", small.folder]
    assert eval_ckpt_file.main(words + ["--eval_datasets", "lfw", "cfp_fp", "--json", path]) in (
        0,
        None,
    )
    with open(path) as stream:
        rows = json.load(stream)
    seen = {(line["step"], line["set"]): line for line in numbers_of(trained) if "set" in line}
    found = {(row["step"], row["set"]): row for row in rows if "best" not in row["checkpoint"]}
    assert set(found) == {(step, name) for step in (2, 4, 5) for name in ("lfw", "cfp_fp")}
    for key, row in found.items():
        for name in ("accuracy", "accuracy_std", "accuracy_flip", "accuracy_flip_std", "threshold"):
            assert row[name] == pytest.approx(seen[key][name], abs=1e-6), (key, name)


def test_evaluation_reads_the_averages_that_training_validated(small, tmp_path):
    output, path = str(tmp_path / "run"), str(tmp_path / "eval.json")
    assert train_nets.main(flags(small, output, "--ema", "0.9")) == 0
    words = ["--ckpt_file", last_checkpoint(output, 3), "--eval_db_path", small.folder]
    assert eval_ckpt_file.main(words + ["--eval_datasets", "lfw", "--json", path]) in (0, None)
    with open(path) as stream:
        (row,) = json.load(stream)
    seen = [line for line in numbers_of(output) if line.get("set") == "lfw"][-1]
    assert seen["step"] == 3 and row["xnorm"] == pytest.approx(seen["xnorm"], rel=1e-5)


def start(small, output, *more):
    words = [sys.executable, "train_nets.py"] + flags(small, output, *more)
    return subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def wait_for_step(output, step, process, limit=120):
    """Returns once metrics.jsonl tells of the step; fails if the process ends before."""
    path, until = os.path.join(output, "logs", "metrics.jsonl"), time.time() + limit
    while time.time() < until and process.poll() is None:
        if any(line["step"] >= step for line in read_metrics(path)):
            return
        time.sleep(0.02)
    raise AssertionError(f"no step {step}: {process.communicate()[1].decode()[-2000:]}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_says_how_to_go_on(small, tmp_path, number):
    output = str(tmp_path / "run")
    process = start(small, output, "--epoch", "100000step", "--validate_interval", "50000")
    wait_for_step(output, 3, process)
    process.send_signal(number)
    said = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 128 + number, said
    assert "--resume" in said and "Traceback" not in said
    last = max(line["step"] for line in numbers_of(output))
    record = json.load(open(last_checkpoint(output, last) + ".json"))
    assert record["step"] == last


def refused(words, capsys):
    """Standard error of train_nets.py, which must end with code 2 and one sentence."""
    with pytest.raises(SystemExit) as end:
        run(train_nets.main, words)
    said = capsys.readouterr().err
    assert end.value.code == 2, said
    assert said.startswith("error: ") and said.count("\n") == 1, said
    return said


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["--batch_size", "0"], "--batch_size 0 is out of range: it must be 1 or more."),
        (["--num_output", "3"], "--num_output 3 is too small for"),
        (["--tfrecords_file_path", "/nowhere/records"], "/nowhere/records"),
        (["--eval_datasets", "lfv"], "lfv"),
        (["--eval_db_path", "/nowhere/sets"], "/nowhere/sets"),
        (["--net_depth", "19"], "--net_depth 19"),
        (["--image_size", "64,64"], "pass --image_size 32 32"),
        (["--output_path", "/proc/run"], "/proc/run"),
        (["--lr", "-1"], "--lr -1.0 is out of range: it must be above 0.0."),
        (["--epoch", "0"], "--epoch 0 is less than one step"),
        (["--loss", "arkface"], "Did you mean arcface?"),
        (["--bach_size", "8"], "did you mean --batch_size?"),
        (["--device", "gpu"], "sees no GPU on this machine"),
    ],
)
def test_a_mistake_ends_before_the_first_step_with_one_sentence(
    small, tmp_path, more, sentence, capsys
):
    said = refused(flags(small, str(tmp_path / "run"), *more), capsys)
    assert sentence in said
    assert not os.path.exists(str(tmp_path / "run" / "config.json"))


def test_a_mistake_ends_the_process_with_code_2_and_nothing_else(small, tmp_path):
    words = ["train_nets.py"] + flags(small, str(tmp_path / "run"), "--num_output", "3")
    done = subprocess.run([sys.executable] + words, cwd=ROOT, stderr=subprocess.PIPE)
    said = done.stderr.decode()
    assert done.returncode == 2 and said.startswith("error: --num_output 3"), said
    assert said.count("\n") == 1, said


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoints(small, tmp_path, capsys):
    output = str(tmp_path / "run")
    more = ["--lr", "1e30", "--epoch", "30step", "--ckpt_interval", "1"]
    said = refused(flags(small, output, *more), capsys)
    number = int(re.match(r"error: step (\d+): loss and ", said).group(1))
    assert "lower --lr" in said and "learning rate 1e+30" in said
    good = last_checkpoint(output, number - 1)
    assert f"the last good checkpoint is {good}" in said and os.path.exists(good + ".index")
    kept = np.load(os.path.join(output, "logs", f"nonfinite_step_{number}.npz"))
    images, labels, records = (kept[name] for name in ("images", "labels", "records"))
    assert images.shape == (8, small.size, small.size, 3)
    for image, label, record in zip(images, labels, records):
        shard, row = record.split(": record ")
        encoded_label, encoded = parse_example(list(tf.io.tf_record_iterator(shard))[int(row)])
        (plain,) = decode_images([encoded], (small.size, small.size))
        apart = [np.abs(image.astype(int) - way).mean() for way in (plain, plain[:, ::-1])]
        assert encoded_label == label and min(apart) < 2.0


def test_damaged_records_are_counted_and_the_run_goes_on(small, tmp_path, caplog):
    """Two of the 24: the run passes over them in each epoch, up to --max_errors of them."""
    caplog.set_level("INFO")
    shards, output = str(tmp_path / "shards"), str(tmp_path / "run")
    shutil.copytree(small.shards, shards)
    name = sorted(name for name in os.listdir(shards) if name.startswith("train"))[1]
    examples = list(tf.io.tf_record_iterator(os.path.join(shards, name)))
    for row in (2, 5):
        label, encoded = parse_example(examples[row])
        examples[row] = example_bytes(label, encoded[:40] + b"?" * (len(encoded) - 40))
    write_shard(os.path.join(shards, name), examples)
    more = ["--tfrecords_file_path", shards, "--on_error", "skip", "--epoch", "6step"]
    assert train_nets.main(flags(small, output, *more)) == 0
    assert "4 damaged records were skipped." in caplog.text
    assert f"{name}: record 2" in caplog.text and f"{name}: record 5" in caplog.text
    with pytest.raises(ValueError, match="3 damaged records by step .* raise --max_errors"):
        train_nets.main(flags(small, output + "2", *more, "--max_errors", "2"))


def test_an_empty_dataset_directory_is_refused(small, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    more = ["--tfrecords_file_path", str(empty)]
    assert str(empty) in refused(flags(small, str(tmp_path / "run"), *more), capsys)


def test_a_directory_of_another_run_is_refused_without_resume(small, trained, capsys):
    said = refused(flags(small, str(trained)), capsys)
    assert "pass --resume" in said


def test_resuming_with_another_setting_names_it(small, trained, capsys):
    said = refused(flags(small, str(trained), "--resume", "--lr", "0.07"), capsys)
    assert "--lr 0.05" in said and "0.07" in said


def test_resuming_on_data_in_another_order_names_it(small, trained, tmp_path, capsys):
    other = str(tmp_path / "other")
    words = ["--bin_path", small.rec, "--idx_path", small.idx, "--tfrecords_file_path", other]
    assert mx2tfrecords.main(words + ["--shards", "3", "--shuffle_seed", "9"]) in (0, None)
    more = ["--resume", "--epoch", "9step", "--tfrecords_file_path", other]
    said = refused(flags(small, str(trained), *more), capsys)
    assert "data with order" in said and "--shuffle_seed" in said


def test_resuming_with_another_depth_names_it(small, trained, capsys):
    said = refused(flags(small, str(trained), "--resume", "--net_depth", "34"), capsys)
    assert "--net_depth 10" in said and "34" in said


def test_resuming_a_finished_run_says_that_nothing_is_left(small, trained, caplog):
    caplog.set_level("INFO")
    before = values_of(last_checkpoint(trained, 5))["global_step"]
    assert train_nets.main(flags(small, str(trained), "--epoch", "5step", "--resume")) == 0
    assert "nothing to do" in caplog.text and before == 5
