"""scripts/: each is read by bash, composes a command that the Python script takes, and two run."""

import glob
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import yaml

from data.eval_data_reader import write_pairs
from eval_ckpt_file import EvalConfig
from export.config import ExportConfig
from runtime.flags import parse_flags
from tests.inference import tiny_models
from tests.inference.test_sources import PNG
from tests.test_end_to_end import ROOT
from training.config import MultiDeviceConfig, TrainConfig

SCRIPTS = os.path.join(ROOT, "scripts")
CONFIGS = {
    "train_nets.py": TrainConfig,
    "train_nets_mgpu.py": MultiDeviceConfig,
    "eval_ckpt_file.py": EvalConfig,
}
SMALL = ["net_depth=10", "width=0.125", "embedding_size=16", "image_size=32,32"]
SMALL += ["eval_batch_size=10", "learning_rate=0.05", "show_info_interval=1"]


def bash(folder, script, *words, **environ):
    """A script from a folder of its own -> (exit code, what it printed, its errors)."""
    done = subprocess.run(
        ["bash", os.path.join(SCRIPTS, script)] + list(words),
        cwd=str(folder),
        env=dict(os.environ, PYTHON=sys.executable, **environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    return done.returncode, done.stdout, done.stderr


def missing(name):
    """Their words and their spelling, which other programs search for."""
    return '[Error] para "{}" must be {}ing\n'.format(name, "conf")


def composed(folder, script, *words, **environ):
    """[(name of the Python script, its flags)] that a script would call."""
    code, said, error = bash(folder, script, *words, DRY_RUN="1", **environ)
    assert code == 0, error
    found = []
    for line in said.splitlines():
        words = shlex.split(line)
        place = next(i for i, word in enumerate(words) if word.endswith(".py"))
        name = os.path.basename(words[place])
        found.append((name, parse_flags(CONFIGS[name], words[place + 1 :])))
    return found


@pytest.mark.parametrize(
    "path",
    sorted(glob.glob(f"{SCRIPTS}/**/*.sh", recursive=True) + glob.glob(f"{SCRIPTS}/*.sbatch")),
)
def test_bash_can_read_it(path):
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize(
    "script, python, ranks",
    [
        ("train_full_1p", "train_nets.py", 1),
        ("train_full_8p", "train_nets_mgpu.py", 8),
        ("train_performance_1p", "train_nets.py", 1),
        ("train_performance_8p", "train_nets_mgpu.py", 8),
        ("train_finetune_1p", "train_nets.py", 1),
    ],
)
def test_a_script_for_cards_composes_a_run(small, tmp_path, script, python, ranks):
    words = [f"--data_path={small.folder}", "--device=cpu", "--batch_size=16", "--net_depth=50"]
    words += ["--ckpt_path=/some/model.ckpt", "--learning_rate=0.25"]
    ((name, config),) = composed(tmp_path, f"npu/{script}.sh", *words)
    assert name == python and config.batch_size == 16 * ranks and config.net_depth == 50
    assert config.device == "cpu" and config.lr == 0.25 and config.scale == 64
    assert config.tfrecords_file_path == small.shards
    assert config.output_path == str(tmp_path / "output" / "0")
    if ranks > 1:
        assert config.num_devices == 8
    if "performance" in script:
        assert config.epoch == "500step" and config.eval_db_path is None
    else:
        assert sorted(config.eval_datasets) == ["cfp_fp", "lfw"]
    if "finetune" in script:
        assert config.finetune == "/some/model.ckpt"


def test_the_options_of_the_model_zoo_become_flags(small, tmp_path):
    words = [f"--data_path={small.folder}", "--precision_mode=force_fp32", "--train_steps=70"]
    words += ["--data_dump_flag=True", "--data_dump_step=0|5", "--autotune=True"]
    ((_, config),) = composed(tmp_path, "npu/train_full_1p.sh", *words)
    assert config.device == "npu" and config.precision_mode == "force_fp32"
    assert config.epoch == "70step" and config.auto_tune_mode == "RL,GA"
    assert config.enable_dump and config.npu_option == ("dump_step=0|5",)
    words = [f"--data_path={small.folder}", "--over_dump=True", "--profiling=True"]
    ((_, config),) = composed(tmp_path, "npu/train_full_1p.sh", *words)
    assert config.enable_dump_debug and config.profile == "10:12"


def test_cards_share_out_the_sets(small, tmp_path):
    words = [f"--data_path={small.folder}", f"--ckpt_path={tmp_path}", "--device=cpu"]
    found = composed(tmp_path, "npu/train_eval_8p.sh", *words)
    assert [config.eval_datasets for _, config in found] == [("cfp_fp",), ("lfw",)]
    assert all(config.ckpt_path == str(tmp_path) for _, config in found)


def test_what_is_missing_is_said_in_the_model_zoos_words(tmp_path):
    code, said, _ = bash(tmp_path, "npu/train_full_8p.sh")
    assert (code, said) == (1, missing("data_path"))
    code, said, _ = bash(tmp_path, "npu/train_finetune_1p.sh", "--data_path=/x", "--device=cpu")
    assert (code, said) == (1, missing("ckpt_path"))
    code, said, _ = bash(tmp_path, "npu/train_full_1p.sh", "--help")
    assert code == 1 and "bash train_full_1p.sh --data_path=/path" in said
    code, _, error = bash(tmp_path, "npu/train_full_1p.sh", "-x")
    assert code == 1 and "-x is not of the form --name=value" in error
    code, _, error = bash(tmp_path, "npu/train_full_1p.sh", "--data_path=/x", ASCEND_INSTALL="/no")
    assert code == 1 and "there is no toolkit in /no" in error


def test_the_scripts_for_gpus_compose_a_run(small, tmp_path):
    ((name, config),) = composed(tmp_path, "run_standalone_train.sh", small.folder)
    assert (name, config.device, config.eval_db_path) == ("train_nets.py", "gpu", small.folder)
    more = [small.shards, "4", "--device", "cpu", "--batch_size", "64"]
    ((name, config),) = composed(tmp_path, "run_distribute_train.sh", *more)
    assert (name, config.num_devices, config.device) == ("train_nets_mgpu.py", 4, "cpu")
    assert (config.tfrecords_file_path, config.eval_db_path) == (small.shards, None)
    for script, words in (
        ("run_standalone_train.sh", []),
        ("run_distribute_train.sh", [small.folder]),
        ("run_distribute_train.sh", [small.folder, "--device"]),
        ("run_eval.sh", [small.folder]),
    ):
        code, _, error = bash(tmp_path, script, *words)
        assert code == 2 and f"bash scripts/{script}" in error


def test_the_job_of_slurm_and_of_kubernetes_call_with_known_flags(small, tmp_path):
    ((name, config),) = composed(tmp_path, "slurm_train.sbatch", small.folder, "--lr", "0.4")
    assert name == "train_nets_mgpu.py" and config.supervise and config.resume
    assert config.tfrecords_file_path == small.shards and config.lr == 0.4
    with open(os.path.join(SCRIPTS, "tfjob.yaml")) as stream:
        job, policy = yaml.safe_load_all(stream)
    worker = job["spec"]["tfReplicaSpecs"]["Worker"]
    (container,) = worker["template"]["spec"]["containers"]
    assert container["name"] == "tensorflow" and container["command"][0] == "python3"
    config = parse_flags(MultiDeviceConfig, container["command"][2:])
    assert config.num_devices == container["resources"]["limits"]["nvidia.com/gpu"] == 8
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in worker["template"]["spec"]["volumes"]}
    assert policy["spec"]["podSelector"] == policy["spec"]["ingress"][0]["from"][0]["podSelector"]


def test_training_and_evaluation_end_with_the_lines_of_the_model_zoo(small, tmp_path):
    words = [f"--{word}" for word in SMALL] + ["--batch_size=8", "--device=cpu", "--train_steps=2"]
    data = f"--data_path={small.folder}"
    code, said, error = bash(tmp_path, "npu/train_full_1p.sh", data, *words, ASCEND_DEVICE_ID="3")
    assert code == 0, error
    rule, fps, accuracy, seconds = said.splitlines()
    assert rule == "------------------ Final result ------------------"
    assert float(fps.split("Final Performance images/sec : ")[1]) > 0
    assert 0 <= float(accuracy.split("Final Train Accuracy : ")[1]) <= 1
    assert int(seconds.split("E2E Training Duration sec : ")[1]) > 0
    folder = tmp_path / "output" / "3"
    case = "ArcFace_LResNet100E-IR_bs8_1p_acc"
    assert "step 2/2" in (folder / "train_3.log").read_text()
    losses = (folder / f"train_{case}_loss.txt").read_text().split()
    assert len(losses) == 2
    facts = dict(line.split(" = ") for line in (folder / f"{case}.log").read_text().splitlines())
    assert list(facts) == [
        *("Network", "RankSize", "BatchSize", "DeviceType", "CaseName", "ActualFPS"),
        *("TrainingTime", "TrainAccuracy", "ActualLoss", "E2ETrainingTime"),
    ]
    assert facts["CaseName"] == case and facts["ActualLoss"] == losses[-1]
    ms = 8 * 1000 / float(facts["ActualFPS"])
    assert float(facts["TrainingTime"]) == pytest.approx(ms, abs=0.006)

    ckpt = str(folder / "ckpt" / "InsightFace_iter_2.ckpt")
    words = [data, f"--ckpt_path={ckpt}", "--device=cpu"]
    code, said, error = bash(tmp_path, "npu/train_eval_8p.sh", *words)
    assert code == 0, error
    assert said.splitlines()[2] == accuracy  # what the run itself had found
    assert sorted(os.listdir(str(tmp_path / "output" / "1"))) == ["eval.json", "train_1.log"]

    words = [data, f"--ckpt_path={ckpt}", "--device=cpu"]
    code, _, error = bash(tmp_path, "npu/train_finetune_1p.sh", *words, ASCEND_DEVICE_ID="3")
    assert code == 1 and f"{folder} is emptied by this script, and ckpt_path lies there" in error
    assert os.path.exists(ckpt + ".index")


def test_a_run_that_fails_ends_with_its_words_and_code(small, tmp_path):
    words = [f"--data_path={small.folder}", "--device=cpu", "--loss=none_such"]
    code, said, error = bash(tmp_path, "npu/train_full_1p.sh", *words)
    assert (code, said) == (2, "") and "error: --loss none_such is not known" in error
    assert "[Error] ended with exit code 2; see" in error


def test_the_guide_runs_from_a_model_to_an_accuracy(tmp_path):
    pytest.importorskip("onnx", reason="writes the model")
    pytest.importorskip("onnxruntime", reason="stands for the card")
    model = tiny_models.write_onnx(tmp_path / "a.onnx")
    encoded = [PNG[i % len(PNG)] for pair in range(12) for i in (pair, pair + pair % 2)]
    write_pairs(str(tmp_path / "lfw.bin"), encoded, [pair % 2 == 0 for pair in range(12)])
    words = [model, str(tmp_path / "lfw.bin"), str(tmp_path / "out"), "--batch_size=5"]
    code, printed, error = bash(tmp_path, "npu/om_guide.sh", *words, SECONDS_PER_BATCH="0.01")
    assert code == 0, error
    assert re.search(r"\n\*{50}\naccuracy: [\d.]+\nbest_thresholds: [\d.]+\n\*{50}\n$", printed)
    assert len(json.load(open(str(tmp_path / "out" / "benchmark.json")))) == 6


def test_the_guide_exports_a_checkpoint_first(tmp_path):
    words = ["run/a.ckpt", "lfw.bin", str(tmp_path / "out")]
    code, printed, error = bash(tmp_path, "npu/om_guide.sh", *words, DRY_RUN="1")
    assert code == 0, error
    export = next(line for line in printed.splitlines() if "export_model.py" in line)
    flags = parse_flags(ExportConfig, shlex.split(export.split("export_model.py", 1)[1]))
    assert (flags.input_form, flags.file_format) == ("scaled", "onnx")


def test_the_guide_refuses_an_unknown_word(tmp_path):
    code, _, error = bash(tmp_path, "npu/om_guide.sh", "a.onnx", "lfw.bin", "out", "--batch=1")
    assert code == 2 and "--batch=1 is not known" in error
