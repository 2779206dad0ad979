"""Many ranks train as one does: virtual devices of this process, processes of this machine."""

import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

import train_nets_mgpu
from data import mx2tfrecords
from evaluation.report.run_logs import read_metrics
from nets.build import BUILDERS
from runtime.cli import run
from runtime.distributed.hosts import free_addresses
from runtime.tf1 import TF2, tf
from tests.conftest import write_record_file, write_set
from tests.training.rounding_noise import (
    NUDGES,
    assert_values_within_noise,
    assert_within_noise,
    nudged_weights,
)
from tests.training.small_net import small_net

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
IDENTITIES = 7  # shared by 2 or 3 ranks unevenly


@pytest.fixture(scope="module")
def seven(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("seven"))
    rec, idx = write_record_file(folder, identities=IDENTITIES, each=6)
    words = ["--bin_path", rec, "--idx_path", idx, "--tfrecords_file_path", f"{folder}/tfrecords"]
    assert mx2tfrecords.main(words + ["--shards", "2"]) in (0, None)
    write_set(os.path.join(folder, "lfw.bin"), pairs=11)  # 22 images: no whole number of batches
    return folder


def flags(folder, output, *more):
    words = {
        "tfrecords_file_path": f"{folder}/tfrecords",
        "output_path": output,
        "eval_db_path": folder,
        "image_size": "32,32",
        "net_depth": 10,
        "width": 0.0625,
        "embedding_size": 16,
        "batch_size": 12,
        "eval_batch_size": 4,
        "loss": "cosface",  # without a kink, past which a rounding would become a percent
        "scale": 16,
        "lr": 0.0001,
        "epoch": "5step",
        "show_info_interval": 1,
        "validate_interval": 5,
        "ckpt_interval": 5,
    }
    line = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    return line + [str(word) for word in more]


def values_of(output, step=5):
    prefix = os.path.join(str(output), "ckpt", f"InsightFace_iter_{step}.ckpt")
    reader = tf.train.load_checkpoint(prefix)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def lines_of(output, kind="train"):
    path = os.path.join(str(output), "logs", "metrics.jsonl")
    return [line for line in read_metrics(path) if line["kind"] == kind]


def losses_of(output):
    return [line["loss"] for line in lines_of(output)]


@pytest.fixture(scope="module")
def on_ranks(seven, tmp_path_factory):
    """{number of ranks: the output of six or five steps, the same in all but that number}, and
    "nudged": outputs of one rank whose first weights differ by a rounding error."""
    outputs = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BUILDERS, "ir", small_net)
        for ranks in (1, 3):
            outputs[ranks] = str(tmp_path_factory.mktemp(f"on_{ranks}"))
            words = flags(seven, outputs[ranks], "--num_devices", ranks, "--sync_batch_norm")
            words += ["--epoch", "6step"] if ranks == 1 else []
            assert train_nets_mgpu.main(words) == 0
        outputs["nudged"] = [str(tmp_path_factory.mktemp("nudged")) for _ in range(NUDGES)]
        for seed, output in enumerate(outputs["nudged"]):
            words = flags(seven, output, "--epoch", "6step", "--validate_interval", "1000")
            with nudged_weights(seed):
                assert train_nets_mgpu.main(words) == 0
        yield outputs


def assert_losses_match(found, on_ranks):
    """The losses of steps, of which the first has no other's rounding behind it."""
    expected, nudged = losses_of(on_ranks[1]), [losses_of(run) for run in on_ranks["nudged"]]
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    for step in range(1, len(found)):
        noise = [run[step] for run in nudged]
        assert_within_noise(found[step], expected[step], noise, f"loss {step + 1}")


def test_five_steps_are_the_same_on_one_rank_and_on_three(on_ranks):
    assert len(losses_of(on_ranks[3])) == 5
    assert_losses_match(losses_of(on_ranks[3]), on_ranks)
    alone, together = values_of(on_ranks[1]), values_of(on_ranks[3])
    assert alone.keys() == together.keys()
    assert together["class_centres"].shape == (IDENTITIES, 16)
    assert_values_within_noise(together, alone, [values_of(run) for run in on_ranks["nudged"]])


def test_all_ranks_together_validate_as_one(on_ranks):
    alone, together = (lines_of(on_ranks[n], "validation")[0] for n in (1, 3))
    for key in ("accuracy", "accuracy_flip", "threshold", "auc"):
        np.testing.assert_allclose(together[key], alone[key], atol=1e-6)


def test_a_run_of_three_ranks_goes_on_with_two(seven, on_ranks, tmp_path):
    output = str(tmp_path / "run")
    shutil.copytree(on_ranks[3], output)
    words = ["--num_devices", 2, "--sync_batch_norm", "--resume", "--epoch", "6step"]
    assert train_nets_mgpu.main(flags(seven, output, *words)) == 0
    assert losses_of(output)[:5] == losses_of(on_ranks[3])
    assert_losses_match(losses_of(output), on_ranks)
    assert values_of(output, 6).keys() == values_of(on_ranks[3]).keys()


def start_hosts(folder, output, *more, own=((), ())):
    addresses = ",".join(free_addresses(len(own)))
    started = []
    for index, words in enumerate(own):
        line = flags(folder, output, "--worker_hosts", addresses, "--task_index", index)
        line = [sys.executable, "train_nets_mgpu.py"] + line + list(more) + list(words)
        started.append(
            subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, universal_newlines=True)
        )
    return started


def ends_of(hosts):
    said = [host.communicate(timeout=120)[1] for host in hosts]
    return [host.returncode for host in hosts], said


def test_two_hosts_train_one_net_until_a_signal_to_one_stops_both(seven, tmp_path):
    output = str(tmp_path / "run")
    words = ["--num_devices", "2", "--batch_size", "8", "--epoch", "5000step"]
    hosts = start_hosts(seven, output, *words, "--ckpt_interval", "5000")
    for line in hosts[0].stderr:
        if "step 7/" in line:
            hosts[1].send_signal(signal.SIGTERM)
            break
    codes, said = ends_of(hosts)
    assert codes == [143, 143], said
    stops = [re.search(r"stopped after step (\d+), which is saved", text) for text in said]
    last = int(stops[0].group(1))
    assert last == int(stops[1].group(1))
    assert values_of(output, last)["class_centres"].shape == (IDENTITIES, 16)
    assert os.path.exists(f"{output}/ckpt/InsightFace_iter_{last}.ckpt.json")
    leftovers = [name for name in os.listdir(f"{output}/ckpt") if "part" in name or name[0] == "."]
    assert not leftovers and np.isfinite(losses_of(output)).all()


def test_hosts_that_were_told_different_things_end_before_the_first_step(seven, tmp_path):
    own = (("--margin", "0.4"), ("--margin", "0.5"))
    codes, said = ends_of(start_hosts(seven, str(tmp_path / "run"), own=own))
    assert codes == [2, 2], said
    assert "--margin differs between hosts: (0.4,) here, on rank 0" in said[0]
    assert "Traceback" not in said[0] + said[1]


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--batch_size", "10", "--num_devices", "4"], "--batch_size 10 cannot be divided among"),
        (["--num_devices", "0"], "--num_devices"),
        (["--num_devices", "8", "--batch_size", "16"], "than there are identities, 7"),
        (["--device", "gpu", "--num_devices", "2"], "--num_devices 2: TensorFlow sees 0 GPUs"),
        (["--sample_rate", "0"], "--sample_rate 0"),
        (["--sample_rate", "1.5"], "--sample_rate 1.5"),
        (["--sample_rate", "0.3", "--num_devices", "2"], "--sample_rate 0.3 draws 1 of"),
        (["--worker_hosts", "a:1,b:2", "--task_index", "2"], "--task_index"),
        (["--worker_hosts", "a:1,b:2"], "--task_index is missing"),
        (["--draw_groups", "3", "--num_devices", "2"], "--draw_groups 3 cannot be shared"),
    ]
    + ([] if TF2 else [(["--wire", "fp16"], "--wire fp16 needs the collectives of TensorFlow 2")]),
)
def test_a_mistake_is_one_sentence(seven, tmp_path, capsys, words, sentence):
    line = flags(seven, str(tmp_path / "run"), *words)
    with pytest.raises(SystemExit) as ended:
        run(train_nets_mgpu.main, line)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error
