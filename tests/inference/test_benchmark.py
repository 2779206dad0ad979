import pytest

from inference.benchmark import Timing, markdown_table, resident_megabytes, time_batches
from inference.embedder import Embedder
from tests.inference.backends.test_tensorflow import write_graph
from tests.inference.tiny_models import write_manifest

TIMING = Timing("a.onnx", "onnxruntime", "fp32", 2, 16, 9, 1432.0, 11.17, 11.1, 12.0, 100.0)


def test_the_line_is_the_guides():
    assert TIMING.guide_line() == (
        "[INFO] throughput 1000*batchsize.mean(16)/NPU_compute_time.mean(11.17): 1432.0"
    )


@pytest.fixture
def embedder(tmp_path):
    path = write_graph(tmp_path / "model.pb")
    write_manifest(path)
    with Embedder(str(path)) as embedder:
        yield embedder


def test_each_batch_size_is_timed(embedder):
    timings = time_batches(embedder, (1, 3), 0.01)
    assert [timing.batch for timing in timings] == [1, 3]
    assert all(timing.median_ms <= timing.p99_ms for timing in timings)


def test_the_rate_follows_from_the_mean_latency(embedder):
    timing = time_batches(embedder, (3,), 0.01)[0]
    assert timing.images_per_second == pytest.approx(3e3 / timing.mean_ms)


def test_the_fastest_batch_is_marked():
    table = markdown_table([TIMING, TIMING._replace(batch=1, images_per_second=566.0)], {})
    assert "| onnxruntime | fp32 | 16 | **1432.0** |" in table and "| 566.0 |" in table


def test_an_accuracy_has_its_column():
    table = markdown_table([TIMING], {"fp32": "lfw 0.99767"})
    assert table.splitlines()[0].endswith("| accuracy |")
    assert table.splitlines()[-1].endswith("| lfw 0.99767 |")


def test_memory_is_that_of_the_process():
    assert resident_megabytes() > 1
