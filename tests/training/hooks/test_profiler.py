import csv
import glob
import json

import numpy as np
import pytest

import train_nets
from runtime.tf1 import tf
from tests.test_end_to_end import flags
from tools.profile import largest, main, read_profile
from training.hooks.profiler import Profile, steps_of

TIMES = 3  # how often the traced step multiplies


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    """A run of five steps of which the second and third are traced."""
    folder = tmp_path_factory.mktemp("run")
    profile = Profile("2:3", str(folder / "profile"), str(folder / "summary"))
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [96, 96])
        y = x
        for place in range(TIMES):
            y = tf.matmul(y, x, name=f"multiply_{place}")
        traced = profile.wrap(session)
        profile.begin(traced, 0)
        for step in range(1, 6):
            assert profile.wants(step) == ()
            found = traced.run((y,), {x: np.eye(96)})[0]
            profile.after(step, {}, 0.1)
            traced.run(tf.zeros([7, 5]))  # what another hook runs is none of the step
    np.testing.assert_array_equal(found, np.eye(96))  # the session's answer comes through
    return folder


def test_the_steps_of_the_range_are_traced_and_no_others(run_directory):
    names = sorted(path.name for path in (run_directory / "profile").iterdir())
    assert names == ["step_2.json", "step_3.json"]


def test_each_operation_is_found_once_a_step_with_its_time(run_directory):
    rows, steps = read_profile(str(run_directory))
    assert steps == 2
    ours = [(kind, name, took) for kind, name, took in rows if name.startswith("multiply_")]
    assert sorted(name for _, name, _ in ours) == sorted(
        f"multiply_{place}" for place in range(TIMES) for _ in range(2)
    )
    assert all("MatMul" in kind and took > 0 for kind, _, took in ours)
    kinds = dict(largest(rows, 0, 100))
    (multiplied,) = [value for kind, value in kinds.items() if "MatMul" in kind]
    assert multiplied[1] == 2 * TIMES


def test_chrome_and_tensorboard_can_open_it(run_directory):
    with open(str(run_directory / "profile" / "step_2.json")) as stream:
        events = json.load(stream)["traceEvents"]
    assert all(event["dur"] >= 0 and event["ts"] > 0 for event in events if event["ph"] == "X")
    assert any("CPU:0" in e["args"]["name"] for e in events if e["ph"] == "M")
    tags = [
        event.tagged_run_metadata.tag
        for path in glob.glob(str(run_directory / "summary" / "events*"))
        for event in tf.train.summary_iterator(path)
        if event.HasField("tagged_run_metadata")
    ]
    assert sorted(tags) == ["step 2", "step 3"]


def test_the_longest_come_first(run_directory, capsys):
    assert main([str(run_directory), "--top", "2"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("2 steps traced: ")
    assert said[2].split() == ["ms/step", "share", "times", "kind"] and len(said) == 9
    assert float(said[3].split()[0]) >= float(said[4].split()[0])
    assert int(said[3].split()[2]) == TIMES and "MatMul" in said[3]
    rows = [("A", "a1", 1.0), ("B", "b", 5.0), ("A", "a2", 3.0), ("C", "c", 2.0)]
    assert largest(rows, 0, 2) == [("B", (5.0, 1)), ("A", (4.0, 2))]


def test_a_gpus_work_counts_by_its_streams(tmp_path):
    names = ["/device:GPU:0", "/device:GPU:0/stream:7", "/device:GPU:0/stream:all", "/host:CPU"]
    names += ["/device:CPU:0"]
    events = [
        {"ph": "M", "pid": place, "args": {"name": name}} for place, name in enumerate(names)
    ] + [
        {"ph": "X", "pid": place, "dur": 1000 * (place + 1), "args": {"op": "Conv2D", "name": "c"}}
        for place in range(len(names))
    ]
    (tmp_path / "step_1.json").write_text(json.dumps({"traceEvents": events}))
    rows, _ = read_profile(str(tmp_path))
    assert sorted(took for _, _, took in rows) == [3.0, 5.0]


def test_a_profile_of_an_ascend_card_is_read(tmp_path, capsys):
    folder = tmp_path / "profile" / "PROF_000001_20240101_AB" / "mindstudio_profiler_output"
    folder.mkdir(parents=True)
    with open(str(folder / "op_summary_20240101.csv"), "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["Device_id", "Op Name", "OP Type", "Task Type", "Task Duration(us)"])
        writer.writerow([0, "stem/conv", "Conv2D", "AI_CORE", "1500.5\t"])
        writer.writerow([0, "head/matmul", "MatMulV2", "AI_CORE", "500"])
        writer.writerow([0, "stage1/conv", "Conv2D", "AI_CORE", "N/A"])
    rows, steps = read_profile(str(tmp_path))
    assert rows == [("Conv2D", "stem/conv", 1.5005), ("MatMulV2", "head/matmul", 0.5)]
    assert steps is None and main([str(tmp_path)]) == 0
    assert "75.0%" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["5", "0:3", "4:3", "a:b", "1:2:3", ""])
def test_a_range_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=f"--profile {text} is not a range of steps"):
        steps_of(text)


def test_a_run_without_a_profile_is_refused(tmp_path):
    assert steps_of("20:22") == (20, 22) and steps_of(None) is None
    with pytest.raises(ValueError, match="has no profile; train with --profile FIRST:LAST"):
        read_profile(str(tmp_path))
    (tmp_path / "profile" / "PROF_1").mkdir(parents=True)
    with pytest.raises(ValueError, match="run msprof --export=on"):
        read_profile(str(tmp_path))
    with pytest.raises(ValueError, match="pass the directory of a run"):
        main([])
    (tmp_path / "op_summary_0.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has no columns Op Name"):
        read_profile(str(tmp_path))


def test_without_a_range_the_session_is_left_alone(caplog):
    assert Profile(None, "unused").wrap("session") == "session"
    Profile(None, "unused").end(9)
    assert not caplog.text
    Profile("20:22", "unused").end(9)
    assert "--profile 20:22: no such step was made" in caplog.text


def test_a_run_traces_the_steps_that_it_is_told(small, tmp_path, capsys):
    output = str(tmp_path / "run")
    words = flags(small, output, "--epoch", "2step", "--profile", "2:2")
    validation = words.index("--eval_db_path")
    assert train_nets.main(words[:validation] + words[validation + 2 :]) == 0
    rows, steps = read_profile(output)
    kinds = {kind for kind, _, _ in rows}
    assert steps == 1 and any("Conv2D" in kind for kind in kinds)
    assert any("gradients" in name for _, name, _ in rows)
    assert main([output]) == 0 and "Conv2D" in capsys.readouterr().out
