"""infer.py against its limits, each in one interleaved run.

python benchmarks/embed.py rate MODEL.onnx [IMAGES]   embed of JPEGs against the bare network
python benchmarks/embed.py start MODEL.onnx           process start to the first embedding
python benchmarks/embed.py preprocess [IMAGES]        tensors against decoding and writing
"""

import os
import sys

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import resource  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from typing import Any, Callable, List  # noqa: E402

import cv2  # noqa: E402
import numpy as np  # noqa: E402

ROUNDS = 4  # interleaved: embed, bare, embed, bare ...
LIMITS = {"rate": 0.95, "start": 1.0, "preprocess": 1.5}


def main(argv: List[str]) -> None:
    known = {"rate": rate, "start": start, "preprocess": preprocess}
    if not argv or argv[0] not in known:
        sys.exit(f"error: pass one of {', '.join(known)}; see the head of the file.")
    known[argv[0]](*argv[1:])


def rate(model: str, images: str = "2000") -> None:
    """embed of a directory of JPEGs, after the batch size is chosen, against the network alone."""
    from inference.embedder import Embedder
    from inference.embedding_run import EmbedPlan, embed_source
    from inference.sources import open_source

    with tempfile.TemporaryDirectory() as directory, Embedder(model) as embedder:
        count = int(images) // ROUNDS
        folder = _write_jpegs(os.path.join(directory, "images"), count, embedder.image_size)
        source = open_source(folder, embedder.image_size)
        output = os.path.join(directory, "out.npy")
        plan = EmbedPlan(flip=False, on_error="stop", batch_size=64)
        embed_source(embedder, source, output, plan)  # chooses the batch size
        batch = embedder.batch_size
        x = embedder.preprocess(_images(batch, embedder.image_size))
        embed_seconds, bare_seconds = [], []
        for _ in range(ROUNDS):
            embed_seconds.append(_time(lambda: embed_source(embedder, source, output, plan)))
            bare_seconds.append(_time(lambda: [embedder.run(x) for _ in range(count // batch)]))
    embed_rate = count / min(embed_seconds)
    bare_rate = count // batch * batch / min(bare_seconds)
    print(f"{os.path.basename(model)} in {embedder.backend_name}, {batch} images a run")
    print(f"  bare network  {bare_rate:8.1f} images/s")
    print(
        f"  embed         {embed_rate:8.1f} images/s, ratio {embed_rate / bare_rate:.3f} "
        f"(limit {LIMITS['rate']})"
    )


def start(model: str) -> None:
    """A process from its start to the first embedding."""
    code = (
        "import numpy as np; from inference import Embedder; "
        f"e = Embedder({model!r}); e.embed(np.zeros((1,) + e.image_size + (3,), np.uint8))"
    )
    command = [sys.executable, "-c", code]
    root = sys.path[0]
    seconds, processor = [], []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(_time(lambda: subprocess.run(command, cwd=root, check=True)))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    print(
        f"first embedding after {min(seconds):.2f} s (limit {LIMITS['start']}), of which the "
        f"processors worked {min(processor):.2f} s"
    )


def preprocess(images: str = "12000") -> None:
    """write_tensors against decoding each image and writing two blocks of its size."""
    from data.eval_data_reader import decode_images, write_pairs
    from inference.tensor_files import GUIDE, write_tensors

    encoded = _jpegs(64, (112, 112))
    encoded = [encoded[i % 64] for i in range(int(images))]
    block = b"\0" * (3 * 112 * 112 * 4)
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "lfw.bin")
        write_pairs(path, encoded, [i % 2 == 0 for i in range(len(encoded) // 2)])
        out = os.path.join(directory, "out")

        def bare() -> None:
            os.makedirs(out)
            for number, image in enumerate(encoded):
                decode_images([image], (112, 112))
                for ending in (".bin", "_flip.bin"):
                    with open(os.path.join(out, f"{number}{ending}"), "wb") as stream:
                        stream.write(block)

        ours, theirs = [], []
        for _ in range(2):
            ours.append(_time(lambda: write_tensors(path, out, GUIDE)))
            shutil.rmtree(out)
            theirs.append(_time(bare))
            shutil.rmtree(out)
    print(
        f"{images} images: preprocess {min(ours):.1f} s, decoding and writing {min(theirs):.1f} s, "
        f"ratio {min(ours) / min(theirs):.2f} (limit {LIMITS['preprocess']})"
    )


def _time(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _images(count: int, size: Any) -> np.ndarray:
    shape = (count,) + tuple(size) + (3,)
    return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


def _jpegs(count: int, size: Any) -> List[bytes]:
    """Smooth images, which compress as faces do."""
    small = _images(count, (14, 14))
    smooth = [cv2.resize(each, (size[1], size[0]), interpolation=cv2.INTER_CUBIC) for each in small]
    return [cv2.imencode(".jpg", each)[1].tobytes() for each in smooth]


def _write_jpegs(folder: str, count: int, size: Any) -> str:
    os.makedirs(folder)
    encoded = _jpegs(min(count, 64), size)
    for number in range(count):
        with open(os.path.join(folder, f"{number:05}.jpg"), "wb") as stream:
            stream.write(encoded[number % len(encoded)])
    return folder


if __name__ == "__main__":
    main(sys.argv[1:])
