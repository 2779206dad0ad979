"""The record inside an exported model survives JSON; what is not a record is one sentence."""

import json

import pytest

from checkpoint.model_metadata import KEY, ModelMetadata, read_manifest


def metadata(**changes):
    values = dict(
        lineage="insightface_tf",
        net="ir",
        net_depth=50,
        width=1.0,
        embedding_size=512,
        image_size=[112, 96],
        channel_order="BGR",
        mean=[127.5],
        scale=128.0,
        input_form="raw",
        normalized=False,
        checkpoint_sha256="ab" * 32,
        step=7,
        dataset="faces_emore",
        accuracy={"lfw": 0.5},
    )
    return ModelMetadata(**dict(values, **changes))


def test_json_round_trip_keeps_every_field():
    assert ModelMetadata.from_json(metadata().to_json()) == metadata()


def test_json_ignores_the_keys_of_a_later_version():
    values = dict(metadata()._asdict(), added_later=1)
    assert ModelMetadata.from_json(json.dumps(values)) == metadata()


@pytest.mark.parametrize("text, message", [("{", "not JSON"), ("[]", "lacks lineage")])
def test_damaged_json_is_one_sentence(text, message):
    with pytest.raises(ValueError, match=message):
        ModelMetadata.from_json(text)


def test_unknown_input_form_is_one_sentence():
    with pytest.raises(ValueError, match="input form is 'hsv'"):
        ModelMetadata.from_json(metadata(input_form="hsv").to_json())


@pytest.mark.parametrize("name", ["m.onnx.manifest.json", "manifest.json"])
def test_manifest_is_found_beside_the_file(tmp_path, name):
    (tmp_path / name).write_text(json.dumps({KEY: metadata()._asdict()}))
    assert read_manifest(str(tmp_path / "m.onnx")) == metadata()


def test_manifest_is_found_inside_a_directory(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "manifest.json").write_text(json.dumps({KEY: metadata()._asdict()}))
    assert read_manifest(str(tmp_path / "saved")) == metadata()


def test_manifest_is_none_when_the_file_is_of_another_project(tmp_path):
    (tmp_path / "manifest.json").write_text('{"manifest_version": 2}')
    assert read_manifest(str(tmp_path / "m.onnx")) is None
