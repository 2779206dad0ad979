"""--device npu from the command line to the weights, on the double of Ascend's adapter."""

import json
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

import eval_ckpt_file
import train_nets
from nets.build import BUILDERS
from runtime import tf1
from runtime.device import strategy
from runtime.distributed.ranks import SINGLE, Ranks
from runtime.flags import build
from runtime.session import session_config
from runtime.tf1 import TF2, tf
from runtime.variables import is_sliced
from tests.npu_double.fixtures import HERE, cards, npu, tiny_net  # noqa: F401
from tests.test_end_to_end import ROOT, flags, last_checkpoint, numbers_of, values_of
from tests.training.rounding_noise import (
    NUDGES,
    assert_values_within_noise,
    assert_within_noise,
    nudged_weights,
)
from tests.training.small_net import small_net
from training.config import MultiDeviceConfig
from training.graph.settings import step_settings
from training.graph.step import build_step
from training.plan import make_plan

STEPS, HALF = 4, 2
QUICK = ["--lineage", "insightface_tf_vgg", "--net_depth", "16", "--width", "0.03125"]
QUICK += ["--sample_rate", "0.5", "--num_output", "32"]
DEFINED = ("loss", "inference_loss", "decay_loss", "learning_rate")


def npu_flags(small, output, *more):
    words = ["--dropout", "0", "--epoch", f"{STEPS}step", "--eval_batch_size", "4", "--lr", "0.001"]
    return flags(small, str(output), *words, *more)


@pytest.fixture(scope="module")
def net():
    """Runs of this module train small_net: their graphs are built in seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BUILDERS, "ir", small_net)
        yield


def train_lines(run):
    """{step: line} of a run's training metrics."""
    return {line["step"]: line for line in numbers_of(run) if line["kind"] == "train"}


def losses_match(found, expected, nudged):
    """The first steps match to rounding, the later ones to the noise of nudged runs. All: outputs
    of runs, whose first step here is the first after one common state."""
    found, expected = train_lines(found), train_lines(expected)
    nudged = [train_lines(run) for run in nudged]
    assert found.keys() == expected.keys()
    for step, line in expected.items():
        first = step in (1, HALF + 1)  # from the initializers, or from a checkpoint
        for name in DEFINED + (("accuracy",) if first else ()):
            if first:
                np.testing.assert_allclose(found[step][name], line[name], rtol=1e-5, err_msg=name)
            else:
                runs = [run[step][name] for run in nudged]
                assert_within_noise(found[step][name], line[name], runs, f"step {step} {name}")


@pytest.fixture(scope="module")
def halfway(net, small, tmp_path_factory):
    """A CPU's run of the first half of the steps."""
    output = tmp_path_factory.mktemp("half")
    assert train_nets.main(npu_flags(small, output, "--epoch", f"{HALF}step")) == 0
    return output


@pytest.fixture(scope="module")
def on_cpu(small, halfway, tmp_path_factory):
    """The same run to the end."""
    output = tmp_path_factory.mktemp("cpu") / "run"
    shutil.copytree(str(halfway), str(output))
    assert train_nets.main(npu_flags(small, output, "--resume")) == 0
    return output


@pytest.fixture(scope="module")
def nudged(net, small, tmp_path_factory):
    """The CPU's run from starts that differ by a rounding error."""
    outputs = []
    for seed in range(NUDGES):
        outputs.append(tmp_path_factory.mktemp("nudged"))
        with nudged_weights(seed):
            argv = npu_flags(small, outputs[-1])
            assert train_nets.main(argv + ["--validate_interval", "1000"]) == 0
    return outputs


def refusal(argv):
    with pytest.raises(ValueError) as caught:
        train_nets.main(argv)
    return str(caught.value)


@pytest.fixture
def first_half(npu, net, small, tmp_path):  # noqa: F811
    """(output of a card's run of the first half of the steps, the sets of fetches that it made)."""
    output = tmp_path / "first"
    argv = npu_flags(small, output, "--device", "npu", "--epoch", f"{HALF}step")
    assert train_nets.main(argv) == 0
    return output, npu.world.current().fetch_sets


def test_a_card_trains_to_the_numbers_of_a_cpu(first_half, halfway, nudged):
    """Losses and weights; and the device compiles a step and a validation, each once."""
    output, sets = first_half
    losses_match(output, halfway, nudged)
    weights, expected = values_of(last_checkpoint(output, HALF)), last_checkpoint(halfway, HALF)
    noise = [values_of(last_checkpoint(run, HALF)) for run in nudged]
    assert_values_within_noise(weights, values_of(expected), noise)
    assert len([names for names, fed in sets if "eval_images:0" in fed]) == 1
    assert len([names for names, _ in sets if len(names) > 5]) == 1  # the step, with all scalars


@pytest.mark.parametrize("mode", ["force_fp32", "allow_mix_precision"])
def test_a_card_resumes_a_run_of_a_cpu(npu, small, halfway, on_cpu, nudged, mode, tmp_path, caplog):  # noqa: F811
    """With mixed precision, too: the checkpoint has no loss scale, which starts anew."""
    caplog.set_level("INFO")
    output = tmp_path / "second"
    shutil.copytree(str(halfway), str(output))
    argv = npu_flags(small, output, "--device", "npu", "--resume", "--precision_mode", mode)
    assert train_nets.main(argv) == 0
    losses_match(output, on_cpu, nudged)
    assert ("has no loss scale" in caplog.text) == (mode != "force_fp32")


@pytest.mark.parametrize("npu", ["r1.5"], indirect=True)
def test_a_run_with_a_sample_goes_on_with_several_steps_a_call(npu, tiny_net, small, tmp_path):  # noqa: F811
    """On the oldest adapter; its host draws the sample that a CPU's step draws."""
    more = QUICK + ["--show_info_interval", "2"]
    assert train_nets.main(npu_flags(small, tmp_path / "cpu", *more)) == 0
    argv = npu_flags(small, tmp_path / "npu", *more, "--device", "npu")
    assert train_nets.main(argv + ["--epoch", "2step"]) == 0
    assert train_nets.main(argv + ["--resume", "--iterations_per_loop", "2"]) == 0
    assert npu.world.current().runs["steps"] == 2
    found, expected = [train_lines(tmp_path / device) for device in ("npu", "cpu")]
    assert found.keys() == expected.keys() == {2, STEPS}
    for name in DEFINED:  # the later steps: see the runs that measure their noise
        np.testing.assert_allclose(found[2][name], expected[2][name], rtol=1e-5, err_msg=name)


def test_a_card_evaluates_to_the_accuracies_of_a_cpu(npu, small, on_cpu, tmp_path, capsys):  # noqa: F811
    argv = ["--ckpt_path", os.path.join(str(on_cpu), "ckpt"), "--eval_db_path", small.folder]
    tables = []
    for device in ("cpu", "npu"):
        path = tmp_path / f"{device}.json"
        eval_ckpt_file.main(argv + ["--device", device, "--batch_size", "10", "--json", str(path)])
        tables.append(json.loads(path.read_text()))
    for line, other in zip(*tables):
        assert line["accuracy_flip"] == other["accuracy_flip"]
        np.testing.assert_allclose(line["threshold"], other["threshold"], atol=0.011)


@pytest.mark.parametrize(
    "more, words",
    [
        (
            ["--precision", "bf16"],
            "--precision bf16 cannot be used with --device npu: variables are float32",
        ),
        (["--batch_size", "9"], "--batch_size 9 is divided among 1 cards"),
        (["--on_error", "skip"], "which the device cannot hold"),
        (["--accumulate", "2"], "compiled as a second graph"),
        (
            ["--iterations_per_loop", "3"],
            "--epoch 4step is 4 steps, but --iterations_per_loop makes 3",
        ),
        (["--iterations_per_loop", "2", "--no_enable_data_pre_proc"], "--enable_data_pre_proc too"),
        (["--npu_option", "graph_slice=auto", "--cann", "5.1"], "came with CANN 7.0"),
        (["--npu_option", "no_such=1"], "no option of NpuOptimizer"),
        (["--hccl_timeout", "600", "--cann", "5.0.2"], "--hccl_timeout came with CANN 5.1"),
    ],
)
def test_what_cannot_be_is_said_before_the_first_session(small, tmp_path, more, words, request):
    if not TF2 and "--iterations_per_loop" in more:
        request.getfixturevalue("npu")
    if TF2 and more[:2] == ["--iterations_per_loop", "3"]:
        pytest.skip("the adapter, which TensorFlow 2 has not, is asked for before")
    assert words in refusal(npu_flags(small, tmp_path, "--device", "npu", *more))


def test_no_adapter_is_one_sentence(small, tmp_path):
    words = refusal(npu_flags(small, tmp_path, "--device", "npu"))
    assert "npu_bridge" in words and "CANN" in words and words.count(". ") == 0


def test_no_card_is_one_sentence(npu, small, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("NPU_DEVICE_NODES", str(tmp_path))
    assert "no Ascend card" in refusal(npu_flags(small, tmp_path, "--device", "npu"))


def many_config(small, output, **settings):
    values = dict(
        tfrecords_file_path=small.shards,
        output_path=str(output),
        image_size=(small.size, small.size),
        lineage="insightface_tf_vgg",
        net_depth=16,
        width=0.03125,
        embedding_size=16,
        batch_size=16,
        eval_batch_size=2,
        dropout=0.0,
        lr=0.01,
        num_output=32,
        schedule="constant",
    )
    return build(MultiDeviceConfig, dict(values, **settings))


def batch_of(config):
    noise = np.random.RandomState(3)
    shape = (config.batch_size,) + tuple(config.image_size) + (3,)
    images = noise.randint(0, 256, shape).astype(np.uint8)
    return images, noise.randint(0, 32, config.batch_size).astype(np.int64)


def prepared(config, ranks):
    """What a process knows before it builds its graph."""
    told = strategy(config.device).adapt(config, ranks.size)
    return told, make_plan(told, ranks), ranks, session_config(told.device, flags=told)


def steps_of(told, plan, ranks, proto, count=2):
    """The losses of a few steps of one process on its share of a batch, and its variables then."""
    whole = batch_of(told)
    with tf.Graph().as_default():
        tf1.build_for(told.device)
        tf.set_random_seed(told.seed)
        shares = [
            [tf.constant(np.split(part, ranks.size)[rank]) for part in whole]
            for rank in ranks.local
        ]
        settings = step_settings(told, plan.identities, plan.rates, plan.frozen_steps)
        step = build_step(settings, shares, ranks)
        with tf.Session(config=proto) as session:
            session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
            if ranks.host:  # what another rank than the first holds does not count
                copies = [v for v in tf.global_variables() if not is_sliced(v)]
                session.run([tf.assign_add(v, tf.ones_like(v)) for v in copies])
            session.run(step.replicate)
            names = ("loss", "accuracy")
            fetches = [step.train, {name: step.scalars[name] for name in names}]
            shown = [session.run(fetches)[1] for _ in range(count)]
            variables = {v.op.name: v for v in tf.global_variables()}
            return shown, session.run(variables)


def nudged_steps(seed, *prepared_run):
    with nudged_weights(seed):
        return steps_of(*prepared_run)


def test_a_step_of_eight_cards_is_the_step_of_a_cpu(npu, tiny_net, small, tmp_path):  # noqa: F811
    alone = prepared(many_config(small, tmp_path), SINGLE)
    expected, weights = steps_of(*alone)
    nudged = [nudged_steps(seed, *alone) for seed in range(NUDGES)]
    config, found = many_config(small, tmp_path, device="npu"), {}
    runs = [prepared(config, Ranks(host=rank, kind="NPU", cards=8)) for rank in range(8)]

    def run(rank):
        with npu.world.rank(rank):
            found[rank] = steps_of(*runs[rank])

    with npu.world.ranks(8):
        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert npu.world.world().broken is None
    for rank in range(8):
        first, second = found[rank][0]
        np.testing.assert_allclose(first["loss"], expected[0]["loss"], rtol=1e-5)
        assert first["accuracy"] == expected[0]["accuracy"]
        noisy = [shown[1]["loss"] for shown, _ in nudged]
        assert_within_noise(second["loss"], expected[1]["loss"], noisy, "the second loss")
    ends = [values for _, values in nudged]
    slices = [name for name in weights if name.startswith("class_centres")]
    for rank in range(8):  # the loss scale is a card's alone
        copies = {name: found[rank][1][name] for name in weights if name not in slices}
        assert_values_within_noise(copies, {name: weights[name] for name in copies}, ends)
    whole = {name: np.concatenate([found[rank][1][name] for rank in range(8)]) for name in slices}
    assert_values_within_noise(whole, {name: weights[name] for name in slices}, ends)


@pytest.mark.skipif(TF2, reason="the adapter is for TensorFlow 1.15")
def test_one_command_trains_on_two_cards(cards, small, tmp_path):  # noqa: F811
    """Two processes, with a sample of classes: of each card's slice, by the labels of both."""
    world, conf = tmp_path / "world", tmp_path / "hccn.conf"
    world.mkdir()
    conf.write_text("address_0=192.168.1.1\naddress_1=192.168.1.2\n")
    path = os.pathsep.join([ROOT, HERE])
    environ = dict(os.environ, NPU_DOUBLE_WORLD=str(world), PYTHONPATH=path, HCCN_CONF=str(conf))
    words = [sys.executable, os.path.join(ROOT, "train_nets_mgpu.py"), "--num_devices", "2"]
    words += npu_flags(small, tmp_path, *QUICK, "--device", "npu")
    done = subprocess.run(words, env=environ, stderr=subprocess.PIPE, cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    found = [line["loss"] for line in numbers_of(tmp_path) if line["kind"] == "train"]
    assert len(found) == STEPS and np.isfinite(found).all()
    centres = values_of(last_checkpoint(tmp_path, STEPS))["class_centres"]
    assert centres.shape == (32, 16) and np.all(np.linalg.norm(centres, axis=1) > 0.0)
    assert os.path.exists(last_checkpoint(tmp_path, STEPS) + ".data-00001-of-00002")
