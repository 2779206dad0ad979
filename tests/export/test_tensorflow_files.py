"""pb, SavedModel and TFLite give the checkpoint's embeddings."""

import pytest

from export import proof, runtimes, tensorflow_files
from runtime.tf1 import TF2
from tests.export.networks import ROWS
from tests.nets.tiny_nets import images

FORMATS = {
    "pb": (tensorflow_files.write_pb, runtimes.open_tensorflow),
    "savedmodel": (tensorflow_files.write_saved_model, runtimes.open_tensorflow),
    "tflite": (tensorflow_files.write_tflite, runtimes.open_tflite),
}


def worst(networks, network, path, file_format, batch_size):
    write, opener = FORMATS[file_format]
    write(path, network, batch_size)
    runtime = next(iter(opener(path).values()))()
    images_NHWC = images(network.spec)
    sizes = proof.batch_sizes(len(images_NHWC), batch_size)
    found_ND = proof.run_batches(runtime.run, images_NHWC, sizes)
    return proof.differences(found_ND, networks.embeddings(network))[0]


@pytest.mark.parametrize("lineage, block", ROWS)
def test_pb_of_any_batch_gives_the_checkpoints_embeddings(networks, tmp_path, lineage, block):
    network = networks(lineage, block)
    assert worst(networks, network, str(tmp_path / "m.pb"), "pb", None) <= proof.TOLERANCE


@pytest.mark.parametrize("normalize", [False, True])
def test_saved_model_of_any_batch_gives_the_checkpoints_embeddings(networks, tmp_path, normalize):
    network = networks("insightface_tf", normalize=normalize)
    assert worst(networks, network, str(tmp_path / "m"), "savedmodel", None) <= proof.TOLERANCE


@pytest.mark.skipif(not TF2, reason="TensorFlow 1.15's converter is not supported")
@pytest.mark.parametrize("lineage, block", ROWS)
def test_tflite_gives_the_checkpoints_embeddings(networks, tmp_path, lineage, block):
    network = networks(lineage, block)
    assert worst(networks, network, str(tmp_path / "m.tflite"), "tflite", 1) <= proof.TOLERANCE


@pytest.mark.skipif(not TF2, reason="TensorFlow 1.15's converter is not supported")
def test_tflite_prelu_is_one_operation(networks, tmp_path):
    library = pytest.importorskip("ai_edge_litert.interpreter")
    path = str(tmp_path / "m.tflite")
    tensorflow_files.write_tflite(path, networks("arcface_torch"))
    found = {op["op_name"] for op in library.Interpreter(path)._get_ops_details()}
    assert "PRELU" in found and not {"NEG", "RELU"} & found


@pytest.mark.skipif(not TF2, reason="TensorFlow 1.15's converter is not supported")
def test_tflite_int8_takes_raw_pixels(networks, tmp_path):
    library = pytest.importorskip("ai_edge_litert.interpreter")
    network, path = networks("arcface_torch"), str(tmp_path / "m.tflite")
    tensorflow_files.write_tflite(path, network, 1, "int8", images(network.spec, 8))
    source = library.Interpreter(path).get_input_details()[0]
    assert source["dtype"].__name__ == "uint8" and source["quantization"] == (1.0, 0)
