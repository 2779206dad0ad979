import cv2
import numpy as np
import pytest

from inference.embedder import Embedder
from inference.embedding_run import EmbedPlan, embed_source, model_identity
from inference.sources import open_source
from tests.inference.backends.test_tensorflow import write_graph
from tests.inference.tiny_models import IMAGES, expected, write_manifest


@pytest.fixture
def embedder(tmp_path):
    path = write_graph(tmp_path / "model.pb")
    write_manifest(path)
    with Embedder(str(path)) as embedder:
        yield embedder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for number, image in enumerate(IMAGES):
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), image[:, :, ::-1])
    return tmp_path / "images"


def run(embedder, folder, flip=False, on_error="stop", progress=None):
    """(rows of the .npy, EmbedResult)."""
    output = str(folder.parent / "out.npy")
    source = open_source(str(folder), embedder.image_size)
    result = embed_source(embedder, source, output, EmbedPlan(flip, on_error, 2), progress)
    return np.load(output), result


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_every_image_has_its_row(embedder, folder):
    close(run(embedder, folder)[0], expected(IMAGES))


def test_flip_adds_the_mirrored_images_embedding(embedder, folder):
    wanted = expected(IMAGES) + expected(IMAGES[:, :, ::-1])
    close(run(embedder, folder, flip=True)[0], wanted)


def test_without_flip_no_mirrored_image_is_computed(embedder, folder):
    images, run_model = [], embedder.run
    embedder.run = lambda x: images.append(len(x)) or run_model(x)
    run(embedder, folder)
    blank = 1  # the run that finds out the embedding's size
    assert sum(images) == len(IMAGES) + blank


def test_an_unreadable_image_stops_the_run(embedder, folder):
    (folder / "3.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="3.png cannot be decoded"):
        run(embedder, folder)


def test_skip_leaves_the_row_out(embedder, folder):
    (folder / "3.png").write_bytes(b"x")
    rows, result = run(embedder, folder, on_error="skip")
    close(rows, expected(np.delete(IMAGES, 3, axis=0)))
    assert [name for name, _ in result.failed] == ["3.png"]


def test_skip_names_the_rows_that_there_are(embedder, folder):
    (folder / "3.png").write_bytes(b"x")
    run(embedder, folder, on_error="skip")
    names = (folder.parent / "out_names.txt").read_text().split()
    assert names == ["0.png", "1.png", "2.png", "4.png", "5.png", "6.png"]


def test_nan_keeps_the_row(embedder, folder):
    (folder / "3.png").write_bytes(b"x")
    rows, _ = run(embedder, folder, on_error="nan")
    assert np.isnan(rows[3]).all()
    close(np.delete(rows, 3, axis=0), expected(np.delete(IMAGES, 3, axis=0)))


class StopError(Exception):
    """Stands for the end of a process."""


def test_an_interrupted_run_is_resumed(embedder, folder):
    done = []

    def stop(images):
        done.append(images)
        if sum(done) == 4:
            raise StopError

    with pytest.raises(StopError):
        run(embedder, folder, progress=stop)
    again = []
    close(run(embedder, folder, progress=again.append)[0], expected(IMAGES))
    assert again == [4, 2, 1]


def test_progress_counts_every_image(embedder, folder):
    done = []
    run(embedder, folder, progress=done.append)
    assert sum(done) == len(IMAGES)


def test_a_model_that_is_written_again_has_another_identity(tmp_path):
    path = write_graph(tmp_path / "model.pb")
    before = model_identity(str(path))
    path.write_bytes(path.read_bytes() + b"")
    path.touch()
    assert model_identity(str(path)) != before
