import pytest

from inference.onnx_file import TensorInfo, read_onnx
from tests.inference.tiny_models import HEIGHT, SIZE, WIDTH, write_onnx

pytest.importorskip("onnx", reason="writes the files that are read")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return write_onnx(path, names=("Sub_0", "Mul_0"), ir=7)


def test_versions_are_read(model):
    found = read_onnx(model)
    assert (found.ir_version, found.opset) == (7, 11)


def test_a_named_dimension_stays_a_name(model):
    shape = ("N", 3, HEIGHT, WIDTH)
    assert read_onnx(model).inputs == [TensorInfo("image", "float32", shape)]


def test_outputs_have_their_names(model):
    assert read_onnx(model).outputs == [TensorInfo("features", "float32", ("N", SIZE))]


def test_the_first_nodes_have_their_names(model):
    assert read_onnx(model).first_node_names == ["Sub_0", "Mul_0", "Flatten", "dense"]


def test_metadata_is_text_by_key(model):
    assert list(read_onnx(model).metadata) == ["insightface_tf"]


def test_a_file_without_quantised_operators_is_not_quantised(model):
    assert not read_onnx(model).quantized


def test_an_initializer_that_is_listed_as_an_input_is_none(tmp_path):
    import onnx

    path = write_onnx(tmp_path / "a.onnx")
    model = onnx.load(path)
    model.graph.input.append(onnx.helper.make_tensor_value_info("weights", 1, [1]))
    onnx.save(model, path)
    assert [tensor.name for tensor in read_onnx(path).inputs] == ["image"]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(model, tmp_path, share):
    content = open(model, "rb").read()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="cut.onnx is not a whole ONNX file.*export it again"):
        read_onnx(str(cut))


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match="empty.onnx is empty"):
        read_onnx(str(tmp_path / "empty.onnx"))


def test_a_text_file_is_refused(tmp_path):
    (tmp_path / "text.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="not a whole ONNX file"):
        read_onnx(str(tmp_path / "text.onnx"))
