"""train_nets.py: its answers before a run. Runs themselves are in test_end_to_end.py."""

import pytest

import train_nets
from runtime.cli import run


@pytest.mark.parametrize(
    "words, sentence",
    [
        ([], "tfrecords_file_path is missing"),
        (["--net_dept", "50"], "--net_dept is not a known flag; did you mean --net_depth?"),
        (["--learning_rate", "1"], "did you mean --lr?"),
        (["--batch_size", "many"], "'many' is not a whole number"),
        (["--device", "tpu", "--tfrecords_file_path", "x"], "--device tpu is not known"),
        (["--tfrecords_file_path", "no_such_directory"], "no_such_directory"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(words, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        run(train_nets.main, words)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert sentence in error and error.count("\n") == 1
