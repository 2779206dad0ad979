"""infer.py embed: images to embeddings, and each wrong input in one sentence."""

import cv2
import numpy as np
import pytest

import infer
from nets.lineages import NetSpec
from tests.checkpoint.test_reader import write
from tests.nets.tiny_nets import embed, numbers, shapes_of

SPEC = NetSpec("insightface_tf", 18, "ir", 0.125, 24, (32, 32))
IMAGES = np.random.RandomState(1).randint(0, 256, (5, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write(tmp_path_factory.mktemp("ckpt") / "a.ckpt", shapes_of(SPEC), SPEC)


def _embed(checkpoint, tmp_path, images, *more):
    output = str(tmp_path / "out.npy")
    flags = ["--ckpt_file", checkpoint, "--images", str(images), "--output", output]
    infer.main(["embed"] + flags + ["--batch_size", "2"] + list(more))
    return np.load(output)


def _expected(images_NHWC):
    arrays = {name: numbers(name, shape) for name, shape in shapes_of(SPEC).items()}
    return embed(SPEC, arrays, images_NHWC)


def test_an_array_and_a_directory_of_the_same_images_embed_alike(checkpoint, tmp_path):
    np.save(str(tmp_path / "images.npy"), IMAGES)
    (tmp_path / "images").mkdir()
    for number, image in enumerate(IMAGES):
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), image[:, :, ::-1])
    expected = _expected(IMAGES)
    from_array = _embed(checkpoint, tmp_path, tmp_path / "images.npy")
    assert from_array.dtype == np.float32 and from_array.shape == (5, 24)
    np.testing.assert_allclose(from_array, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(_embed(checkpoint, tmp_path, tmp_path / "images"), from_array)


def test_flip_adds_the_mirrored_images_embedding(checkpoint, tmp_path):
    np.save(str(tmp_path / "images.npy"), IMAGES)
    both = _embed(checkpoint, tmp_path, tmp_path / "images.npy", "--flip")
    expected = _expected(IMAGES) + _expected(IMAGES[:, :, ::-1])
    np.testing.assert_allclose(both, expected, rtol=1e-3, atol=1e-4)


def _array(tmp_path, array):
    np.save(str(tmp_path / "images.npy"), array)
    return tmp_path / "images.npy"


def _directory(tmp_path, **files):
    (tmp_path / "images").mkdir()
    for name, content in files.items():
        (tmp_path / "images" / name.replace("_", ".")).write_bytes(content)
    return tmp_path / "images"


def _png(height, width):
    return cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))[1].tobytes()


MISTAKES = {
    "floats": (lambda t: _array(t, IMAGES / 255.0), "float64 [5, 32, 32, 3]"),
    "channels first": (lambda t: _array(t, IMAGES.transpose(0, 3, 1, 2)), "[5, 3, 32, 32]"),
    "no images": (lambda t: _array(t, IMAGES[:0]), "holds no images"),
    "a text as .npy": (lambda t: _directory(t, a_npy=b"text") / "a.npy", "not a whole .npy"),
    "a text file": (lambda t: _directory(t, a_png=_png(32, 32), b_txt=b"x"), "b.txt is not an"),
    "a broken image": (lambda t: _directory(t, a_png=b"x"), "a.png cannot be decoded"),
    "an empty image": (lambda t: _directory(t, a_png=b""), "a.png cannot be decoded"),
    "another size": (lambda t: _directory(t, a_png=_png(40, 32)), "a.png is 40x32 pixels"),
    "an empty directory": (lambda t: _directory(t), "is empty"),
    "another kind of file": (lambda t: _directory(t, a_jpg=b"") / "a.jpg", "neither a directory"),
}


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_mistake_is_one_sentence_and_writes_nothing(checkpoint, tmp_path, mistake):
    prepare, says = MISTAKES[mistake]
    with pytest.raises(ValueError, match="^[^\n]*$") as error:
        _embed(checkpoint, tmp_path, prepare(tmp_path))
    assert says in str(error.value)
    assert not (tmp_path / "out.npy").exists()


def test_missing_files_are_refused(checkpoint, tmp_path):
    with pytest.raises(OSError):
        _embed(checkpoint, tmp_path, tmp_path / "none.npy")
    with pytest.raises(ValueError, match="names no checkpoint"):
        _embed(str(tmp_path / "none.ckpt"), tmp_path, _array(tmp_path, IMAGES))


@pytest.mark.parametrize("argv", [[], ["emned"], ["embed"]])
def test_a_wrong_command_line_is_one_sentence(argv):
    with pytest.raises(ValueError, match="^[^\n]*$"):
        infer.main(argv)


@pytest.mark.parametrize("output", ["out.txt", "none/out.npy"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(checkpoint, tmp_path, output):
    flags = ["--ckpt_file", checkpoint, "--images", "x", "--output", str(tmp_path / output)]
    with pytest.raises(ValueError, match="^--output"):
        infer.main(["embed"] + flags)
