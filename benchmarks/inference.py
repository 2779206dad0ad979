"""Images a second of an exported network against PyTorch's own export of the same network.

    python benchmarks/inference.py --ckpt_file output/r50/ckpt/InsightFace_iter_1000.ckpt

All files take turns in one run, so that a busy machine slows all of them alike. Ratios are to
PyTorch's export in ONNX Runtime.
"""

import dataclasses
import os
import sys
import tempfile
import time
from typing import Dict, Optional, Tuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np  # noqa: E402

from export.inference_graph import Network, read_network  # noqa: E402
from export.manifest import metadata_of
from export.onnx_writer import OnnxForm  # noqa: E402
from export.pipeline import write_onnx  # noqa: E402
from export.runtimes import Run, onnx_runtime, openvino_runtime, required  # noqa: E402
from nets.weights.layout import feature_map, tensors_of  # noqa: E402
from runtime.cli import run  # noqa: E402
from runtime.flags import flag, parse_flags  # noqa: E402
from tests.nets import torch_nets  # noqa: E402


@dataclasses.dataclass(frozen=True)
class InferenceBenchmarkConfig:
    ckpt_file: str = flag(dataclasses.MISSING, "an arcface_torch checkpoint's prefix")
    batch_sizes: Tuple[int, ...] = flag((1, 16), "images in a run")
    threads: int = flag(2, "threads of each runtime", low=1)
    rounds: int = flag(5, "turns of every file at every batch size", low=1)
    seconds: float = flag(1.0, "length of a turn", above=0)


def main(argv: Optional[list] = None) -> int:
    config = parse_flags(InferenceBenchmarkConfig, argv, __doc__.splitlines()[0])
    network = read_network(config.ckpt_file)
    with tempfile.TemporaryDirectory() as directory:
        runs = _runs(network, directory, config.threads)
        for size in config.batch_sizes:
            height, width = network.spec.image_size
            batch = np.random.RandomState(0).uniform(0, 255, (size, 3, height, width))
            _print(size, _rates(runs, batch.astype(np.float32), config))
    return 0


def _runs(network: Network, directory: str, threads: int) -> Dict[str, Run]:
    """{name: a function that runs one batch}; the first is what the others are compared with."""
    onnxruntime = required("onnxruntime", "onnxruntime", "The benchmark")
    openvino = required("openvino", "openvino", "The benchmark")
    theirs = os.path.join(directory, "torch.onnx")
    torch_onnx(network, theirs)
    runs = {"PyTorch's export, ONNX Runtime": onnx_runtime(onnxruntime, theirs, threads).run}
    runs["PyTorch's export, OpenVINO"] = openvino_runtime(openvino, theirs, threads).run
    metadata = metadata_of(network, "raw")
    for prelu in ("node", "decomposed"):
        path = os.path.join(directory, f"{prelu}.onnx")
        write_onnx(path, network, OnnxForm(prelu=prelu), metadata)
        runs[f"prelu {prelu}, ONNX Runtime"] = onnx_runtime(onnxruntime, path, threads).run
        for precision in ("fp32", "bf16"):
            name = f"prelu {prelu}, OpenVINO {precision}"
            try:
                runs[name] = openvino_runtime(openvino, path, threads, precision).run
            except ValueError as error:  # a processor without bfloat16
                print(f"{name}: skipped, {error}")
    return runs


def torch_onnx(network: Network, path: str) -> None:
    """The network in PyTorch, with the checkpoint's weights, written by torch.onnx.export."""
    torch = required("torch", "torch", "The benchmark")
    spec = network.spec
    if spec.row.names != "iresnet":
        raise ValueError(f"The benchmark is for arcface_torch; {network.prefix} is {spec.lineage}.")
    widths = [spec.channels(width) for width in spec.row.widths]
    pixels = int(np.prod(feature_map(spec)))
    net = torch_nets.IResNet(spec.row.units[spec.net_depth], widths, pixels, spec.embedding_size)
    tensors = tensors_of(network.arrays, spec)
    net.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in tensors.items()}, strict=False)
    net.eval()
    image = torch.zeros(1, 3, *spec.image_size)
    torch.onnx.export(
        net,
        image,
        path,
        input_names=["data"],
        opset_version=11,
        dynamic_axes={"data": {0: "batch"}},
        dynamo=False,
    )


def _rates(runs: Dict[str, Run], batch: np.ndarray, config: InferenceBenchmarkConfig) -> Dict:
    """{name: images a second in its best turn}."""
    best = {name: 0.0 for name in runs}
    for _ in range(config.rounds):
        for name, run_batch in runs.items():
            run_batch(batch)
            count, begun = 0, time.perf_counter()
            while time.perf_counter() - begun < config.seconds or not count:
                run_batch(batch)
                count += len(batch)
            best[name] = max(best[name], count / (time.perf_counter() - begun))
    return best


def _print(size: int, rates: Dict[str, float]) -> None:
    first = next(iter(rates.values()))
    print(f"batch {size}")
    for name, rate in rates.items():
        print(f"  {name:36s} {rate:8.1f} images/s  {rate / first:5.2f} x")


if __name__ == "__main__":
    run(main)
