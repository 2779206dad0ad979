"""The seeds' command lines, endings, and combinations that do not exist."""

import pytest

from export.config import ExportConfig, check, with_positional
from runtime.flags import parse_flags


def parsed(*words):
    return parse_flags(ExportConfig, with_positional(list(words)))


def test_source_target_batchsize_are_accepted():
    config = parsed("--source", "a.ckpt", "--target", "b.onnx", "--batchsize", "16")
    assert (config.ckpt_file, config.path, config.batch_size) == ("a.ckpt", "b.onnx", 16)


def test_positional_in_out_batch_is_accepted():
    config = parsed("a.ckpt", "b.onnx", "4", "--normalize")
    assert (config.ckpt_file, config.path, config.batch_size) == ("a.ckpt", "b.onnx", 4)
    assert config.normalize


@pytest.mark.parametrize(
    "file_format, ending", [("onnx", ".onnx"), ("MINDIR", ".mindir"), ("savedmodel", "")]
)
def test_ending_is_added_where_it_is_missing(file_format, ending):
    config = parsed("--ckpt_file", "a", "--file_name", "arcface", "--file_format", file_format)
    assert config.path == f"arcface{ending}"


MISTAKES = {
    "AIR": (["--file_format", "AIR"], "AIR on Ascend hardware only"),
    "an unknown format": (["--file_format", "caffe"], "caffe is not known"),
    "an opset out of range": (["--opset", "23"], "--opset 23 is out of range"),
    "int8 without images": (["--int8"], "--int8 needs --calibration"),
    "int8 of a pb": (["--int8", "--file_format", "pb"], "--int8 does not exist for pb"),
    "a training head": (["--output_name", "logits"], "is a training head"),
    "a form of another format": (
        ["--input_form", "uint8", "--file_format", "om"],
        "does not exist for om",
    ),
    "one name for both ends": (["--input_name", "features"], "must be two names"),
    "no such images": (["--proof", "none"], "--proof none does not exist"),
    "int8 at opset 11": (["--int8", "--calibration", ".", "--opset", "11"], "13 or more"),
}


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_mistake_is_one_sentence(mistake, capsys):
    words, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match="^[^\n]*$") as error:
        check(parsed("--ckpt_file", "a", "--file_name", "b", *words))
    assert message in str(error.value)
