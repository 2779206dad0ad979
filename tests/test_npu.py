"""--device npu from the command line to the weights, on the double of Ascend's adapter."""

import functools
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
from runtime import tf1, variables
from runtime.distributed.ranks import SINGLE, Ranks
from runtime.flags import build
from runtime.session import session_config
from runtime.tf1 import TF2, tf
from runtime.variables import is_sliced
from tests.npu_double.fixtures import HERE, cards, npu, tiny_net  # noqa: F401
from tests.test_end_to_end import ROOT, flags, last_checkpoint, numbers_of, values_of
from training import ascend
from training.config import MultiDeviceConfig
from training.graph.settings import step_settings
from training.graph.step import build_step
from training.plan import make_plan

STEPS, HALF = 4, 2
LR = "0.001"  # small, so that rounding errors grow little over the steps
NUDGES = 3  # runs that measure how far they grow
SLACK = 30.0  # single runs differ by a factor of 15: where a PReLU's input changes its sign
QUICK = ["--lineage", "insightface_tf_vgg", "--net_depth", "16", "--width", "0.03125"]
QUICK += ["--sample_rate", "0.5", "--num_output", "32"]


def npu_flags(small, output, *more):
    said = ["--dropout", "0", "--epoch", f"{STEPS}step", "--eval_batch_size", "4", "--lr", LR]
    return flags(small, str(output), *said, *more)


def losses_match(found, expected, same_steps=2):
    """Steps 1 to same_steps match to rounding; each step multiplies the error of those before."""
    names = ("loss", "inference_loss", "decay_loss", "accuracy", "learning_rate", "accuracy_flip")
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for line, other in zip(found, expected):
        for name in set(names) & set(line):
            near = 1e-5 if line["step"] <= same_steps else 1e-3
            np.testing.assert_allclose(line[name], other[name], rtol=near, err_msg=name)


@pytest.fixture(scope="module")
def halfway(small, tmp_path_factory):
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
def nudged(small, tmp_path_factory):
    """The CPU's first half from starts that differ by 1e-7, about one rounding error: how far that
    spreads on this CPU is the precision to which the result is defined."""
    outputs, seeded = [], variables._seeded
    with pytest.MonkeyPatch.context() as patch:
        for seed in range(NUDGES):
            patch.setattr(variables, "_seeded", functools.partial(nudged_start, seed, seeded))
            outputs.append(tmp_path_factory.mktemp("nudged"))
            half = npu_flags(small, outputs[-1], "--epoch", f"{HALF}step")
            assert train_nets.main(half) == 0
    return outputs


def nudged_start(seed, seeded, initializer, name):
    exact = seeded(initializer, name)

    def start(shape, dtype=None, partition_info=None):
        value = exact(shape, dtype=dtype)
        return value * (1.0 + 1e-7 * tf.random_uniform(value.shape, -1.0, 1.0, seed=seed + 1))

    return start


def distances(run, expected):
    """How far a run's variables are from the expected ones after the first half: {name: norm}."""
    found = values_of(last_checkpoint(run, HALF))
    return {name: np.linalg.norm(found[name] - value) for name, value in expected.items()}


def refusal(argv):
    with pytest.raises(ValueError) as caught:
        train_nets.main(argv)
    return str(caught.value)


def test_a_card_trains_to_the_losses_of_a_cpu(npu, small, halfway, on_cpu, tmp_path):  # noqa: F811
    """Its first steps from the same start, and its later ones from a checkpoint of the CPU."""
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(str(halfway), str(second))
    argv = ["--device", "npu", "--epoch", f"{HALF}step"]
    assert train_nets.main(npu_flags(small, first, *argv)) == 0
    resume = ["--resume", "--precision_mode", "force_fp32"]  # a CPU's run has no loss scale
    assert train_nets.main(npu_flags(small, second, "--device", "npu", *resume)) == 0
    losses_match(numbers_of(first), numbers_of(halfway))
    losses_match(numbers_of(second), numbers_of(on_cpu), same_steps=STEPS)


def test_a_card_trains_to_the_weights_of_a_cpu(npu, small, halfway, nudged, tmp_path):  # noqa: F811
    argv = ["--device", "npu", "--epoch", f"{HALF}step"]
    assert train_nets.main(npu_flags(small, tmp_path, *argv)) == 0
    sets = npu.world.current().fetch_sets
    assert len([names for names, fed in sets if "eval_images:0" in fed]) == 1
    assert len([names for names, _ in sets if len(names) > 5]) == 1  # the step, with all scalars
    expected = values_of(last_checkpoint(halfway, HALF))
    noise, apart = [distances(run, expected) for run in nudged], distances(tmp_path, expected)
    for name, value in expected.items():
        rounding = 1e-6 * np.linalg.norm(value)
        assert apart[name] <= SLACK * max(run[name] for run in noise) + rounding, name


@pytest.mark.parametrize("npu", ["r1.5"], indirect=True)
def test_a_run_with_a_sample_goes_on_with_several_steps_a_call(npu, small, tmp_path):  # noqa: F811
    """On the oldest adapter; its host draws the sample that a CPU's step draws."""
    more = QUICK + ["--show_info_interval", "2"]
    assert train_nets.main(npu_flags(small, tmp_path / "cpu", *more)) == 0
    argv = npu_flags(small, tmp_path / "npu", *more, "--device", "npu")
    assert train_nets.main(argv + ["--epoch", "2step"]) == 0
    assert train_nets.main(argv + ["--resume", "--iterations_per_loop", "2"]) == 0
    assert npu.world.current().runs["steps"] == 2
    losses_match(numbers_of(tmp_path / "npu"), numbers_of(tmp_path / "cpu"))


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
    told = ascend.adapted(config, ranks) if config.device == "npu" else config
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


def test_a_step_of_eight_cards_is_the_step_of_a_cpu(npu, tiny_net, small, tmp_path):  # noqa: F811
    expected, weights = steps_of(*prepared(many_config(small, tmp_path), SINGLE))
    config, found = many_config(small, tmp_path, device="npu"), {}
    told = [prepared(config, Ranks(host=rank, kind="NPU", cards=8)) for rank in range(8)]

    def run(rank):
        with npu.world.rank(rank):
            found[rank] = steps_of(*told[rank])

    with npu.world.ranks(8):
        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert npu.world.world().broken is None
    for rank in range(8):
        shown, values = found[rank]
        for step, other in zip(shown, expected):
            np.testing.assert_allclose(step["loss"], other["loss"], rtol=1e-5)
            assert step["accuracy"] == other["accuracy"]
        for name, value in values.items():
            if name.startswith("class_centres"):
                rows = len(weights[name]) // 8
                whole = weights[name][rank * rows : (rank + 1) * rows]
            elif name in weights:
                whole = weights[name]
            else:
                continue  # the loss scale, which a CPU in full precision has not
            np.testing.assert_allclose(value, whole, rtol=1e-4, atol=1e-4, err_msg=name)


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
