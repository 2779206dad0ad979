"""The wheel: installed somewhere else, its command and its names work there."""

import os
import re
import subprocess
import sys

import pytest

from insightface_tf.__main__ import COMMANDS, installed_configs, usage
from runtime.cli import ROOT
from runtime.tf1 import TF2
from tests.serving.tiny_models import write_model, write_people

PYPROJECT = os.path.join(ROOT, "pyproject.toml")


def run(words, **options):
    return subprocess.run(
        [sys.executable] + words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        **options,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """(working directory, environment) in which only the installed wheel is found."""
    if not TF2:
        pytest.skip("the wheel is the same for both; it is built once, on Python 3.11")
    target = str(tmp_path_factory.mktemp("installed"))
    words = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = run(words + ["--target", target, ROOT])
    assert done.returncode == 0, done.stderr
    environment = dict(os.environ, PYTHONPATH=target)
    environment.pop("INSIGHTFACE_TF_PROGRAM", None)
    return str(tmp_path_factory.mktemp("elsewhere")), environment


def test_commands_of_the_installed_package_have_their_help(installed):
    directory, environment = installed
    for command in ("train", "convert", "facebank", "serve"):
        words = ["-m", "insightface_tf", command, "--help"]
        done = run(words, cwd=directory, env=environment)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) > 5


def test_the_installed_command_reports_a_mistake_in_one_sentence(installed):
    directory, environment = installed
    words = ["-m", "insightface_tf", "train", "--config", "configs/demo.yaml", "--lr", "-1"]
    done = run(words, cwd=directory, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --lr -1.0 is out of range: it must be above 0.0.\n"


def test_a_name_of_the_installed_package_is_imported_on_first_use(installed):
    directory, environment = installed
    code = (
        "import sys, insightface_tf\n"
        "from insightface_tf import align, evaluate, Embedder, FaceBank\n"
        "print(insightface_tf.__version__, Embedder.__module__, 'tensorflow' in sys.modules)\n"
    )
    done = run(["-c", code], cwd=directory, env=environment)
    assert done.stdout == "0.1.0 inference.embedder False\n", done.stderr


def test_the_examples_of_the_api_page_run(installed, tmp_path):
    _, environment = installed
    write_model(tmp_path / "model.onnx")
    write_people(tmp_path / "people", {"Ann": 1, "Ben": 2})
    with open(os.path.join(ROOT, "docs", "api.md"), encoding="utf-8") as stream:
        blocks = re.findall(r"```python\n(.*?)```", stream.read(), re.S)
    done = run(["-c", "\n".join(blocks)], cwd=str(tmp_path), env=environment)
    lines = done.stdout.splitlines()
    same, other = re.match(r"same person: (\S+) another: (\S+)", lines[0]).groups()
    assert float(same) > float(other), done.stderr
    assert lines[1:] == ["people/Ann/1.jpg Ann", "people/Ben/1.jpg Ben"]


def test_a_module_of_the_same_name_that_comes_first_is_reported(installed):
    directory, environment = installed
    with open(os.path.join(directory, "verification.py"), "w") as stream:
        stream.write("")
    done = run(["-c", "from insightface_tf import evaluate"], cwd=directory, env=environment)
    os.remove(os.path.join(directory, "verification.py"))
    assert "insightface_tf needs its own module 'verification'" in done.stderr


def test_an_unknown_command_names_the_commands():
    done = run(["-m", "insightface_tf", "frobnicate"], cwd=ROOT)
    assert done.returncode == 2 and done.stderr.startswith("error: insightface-tf has no command")
    assert "train-many" in done.stderr and done.stderr.count("\n") == 1


def test_every_script_is_there_and_in_the_wheel():
    with open(PYPROJECT) as stream:
        included = set(re.findall(r'^"([\w/.]+)" = "insightface_tf/\1"$', stream.read(), re.M))
    for script, _ in COMMANDS.values():
        assert os.path.exists(os.path.join(ROOT, script))
        assert script.split("/")[0] in included
    for name in os.listdir(ROOT):
        if name.endswith(".py"):
            assert name in included, f"{name} is not in the wheel"


def test_usage_fits_a_terminal():
    assert max(map(len, usage().splitlines())) <= 100


def test_an_installed_config_is_found_where_there_is_no_local_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--config", "configs/demo.yaml", "--lr", "0.1"]
    path = os.path.join(ROOT, "configs", "demo.yaml")
    assert installed_configs(words, ROOT) == ["--config", path, "--lr", "0.1"]
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.yaml").write_text("")
    assert installed_configs(words, ROOT) == words


def test_the_dependencies_are_those_of_the_requirements():
    with open(os.path.join(ROOT, "requirements.txt")) as stream:
        lines = [line.strip() for line in stream]
    expected = [line for line in lines if line and not line.startswith("#")]
    with open(PYPROJECT) as stream:
        section = stream.read().split("dependencies = [\n", 1)[1].split("]\n", 1)[0]
    assert re.findall(r"'(.*)'", section) == expected
