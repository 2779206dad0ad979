"""pb, SavedModel and TFLite give the checkpoint's embeddings."""

import pytest

from export import proof, runtimes, tensorflow_files
from export.inference_graph import embed
from runtime.tf1 import TF2
from tests.export.networks import ROWS, narrow
from tests.nets.tiny_nets import images

FORMATS = {
    "pb": (tensorflow_files.write_pb, runtimes.open_tensorflow),
    "savedmodel": (tensorflow_files.write_saved_model, runtimes.open_tensorflow),
    "tflite": (tensorflow_files.write_tflite, runtimes.open_tflite),
}


def worst(network, path, file_format, batch_size):
    write, opener = FORMATS[file_format]
    write(path, network, batch_size)
    images_NHWC = images(network.spec)
    runtime = next(iter(opener(path).values()))()
    sizes = proof.batch_sizes(len(images_NHWC), batch_size)
    found_ND = proof.run_batches(runtime.run, images_NHWC, sizes)
    return proof.differences(found_ND, embed(network, images_NHWC))[0]


@pytest.mark.parametrize("file_format", ["pb", "savedmodel"])
@pytest.mark.parametrize("normalize", [False, True])
def test_a_frozen_graph_takes_any_batch(monkeypatch, tmp_path, file_format, normalize):
    network = narrow(monkeypatch, "insightface_tf", normalize=normalize)
    assert worst(network, str(tmp_path / "model"), file_format, None) <= proof.TOLERANCE


@pytest.mark.skipif(not TF2, reason="TensorFlow 1.15's converter is not supported")
@pytest.mark.parametrize("lineage, block", ROWS)
def test_tflite_gives_the_checkpoints_embeddings(monkeypatch, tmp_path, lineage, block):
    network = narrow(monkeypatch, lineage, block)
    assert worst(network, str(tmp_path / "m.tflite"), "tflite", 1) <= proof.TOLERANCE


@pytest.mark.skipif(not TF2, reason="TensorFlow 1.15's converter is not supported")
def test_tflite_prelu_is_one_operation(monkeypatch, tmp_path):
    library = pytest.importorskip("ai_edge_litert.interpreter")
    path = str(tmp_path / "m.tflite")
    tensorflow_files.write_tflite(path, narrow(monkeypatch, "arcface_torch"))
    found = {op["op_name"] for op in library.Interpreter(path)._get_ops_details()}
    assert "PRELU" in found and not {"NEG", "RELU"} & found


@pytest.mark.skipif(not TF2, reason="TensorFlow 1.15's converter is not supported")
def test_tflite_int8_takes_raw_pixels(monkeypatch, tmp_path):
    library = pytest.importorskip("ai_edge_litert.interpreter")
    network, path = narrow(monkeypatch, "arcface_torch"), str(tmp_path / "m.tflite")
    tensorflow_files.write_tflite(path, network, 1, "int8", images(network.spec, 8))
    source = library.Interpreter(path).get_input_details()[0]
    assert source["dtype"].__name__ == "uint8" and source["quantization"] == (1.0, 0)
