"""Images a second of an exported network against PyTorch's own export of the same network.

    python benchmarks/inference.py
    python benchmarks/inference.py --ckpt_file output/r50/ckpt/InsightFace_iter_1000.ckpt

All files take turns in one run, so that a busy machine slows all of them alike. Ratios are to
PyTorch's export in ONNX Runtime: with the default network, arcface_torch's r50, ours is to reach
1.0 x in ONNX Runtime and 1.25 x in OpenVINO fp32. It takes two to three minutes on two cores.
"""

import dataclasses
import os
import sys
import tempfile
import time
from typing import Dict, Optional, Tuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np  # noqa: E402

from export import int8  # noqa: E402
from export.inference_graph import Network, read_network  # noqa: E402
from export.manifest import metadata_of  # noqa: E402
from export.onnx_writer import OnnxForm  # noqa: E402
from export.pipeline import write_onnx  # noqa: E402
from export.runtimes import Run, onnx_runtime, openvino_runtime, required  # noqa: E402
from nets.lineages import NetSpec  # noqa: E402
from nets.weights.layout import feature_map, tensors_of  # noqa: E402
from runtime.cli import run  # noqa: E402
from runtime.flags import flag, parse_flags  # noqa: E402
from tests.nets import torch_nets  # noqa: E402

# {file: title}; opset_13 is only what int8 is made of
FILES = {
    "torch": "PyTorch's export",
    "node": "ours",
    "decomposed": "ours, PReLU decomposed",
    "opset_13": "",
    "int8": "ours, int8",
}


@dataclasses.dataclass(frozen=True)
class InferenceBenchmarkConfig:
    ckpt_file: Optional[str] = flag(
        None, "an arcface_torch checkpoint's prefix; default: r50 with random weights"
    )
    batch_sizes: Tuple[int, ...] = flag((1, 16), "images in a run")
    threads: int = flag(2, "threads of each runtime", low=1)
    rounds: int = flag(4, "turns of every file at every batch size", low=1)
    seconds: float = flag(0.7, "length of a turn, at least one batch", above=0)


def main(argv: Optional[list] = None) -> int:
    config = parse_flags(InferenceBenchmarkConfig, argv, __doc__.splitlines()[0])
    network = read_network(config.ckpt_file) if config.ckpt_file else _random_network()
    with tempfile.TemporaryDirectory() as directory:
        runs = _runs(network, directory, config.threads)
        for size in config.batch_sizes:
            batch = _images(network.spec, size)
            _print(size, _rates(runs, batch, config))
    return 0


def _random_network() -> Network:
    """arcface_torch's r50; the speed of a network does not depend on its weights."""
    network = Network("random weights", NetSpec("arcface_torch", 50), {}, {}, False)
    rng = np.random.RandomState(0)
    for name, shape in network.graph.shapes.items():
        noise = rng.standard_normal(shape).astype(np.float32) / np.sqrt(np.prod(shape[:-1]) or 1)
        is_scale = name.endswith(("gamma", "moving_variance"))
        network.arrays[name] = np.ones(shape, np.float32) if is_scale else noise
    return network


def _images(spec: NetSpec, count: int) -> np.ndarray:
    """float32 RGB 0-255 [count, 3, H, W]."""
    shape = (count, 3) + spec.image_size
    return np.random.RandomState(0).uniform(0, 255, shape).astype(np.float32)


def _runs(network: Network, directory: str, threads: int) -> Dict[str, Run]:
    """{name: a function that runs one batch}; the first is what the others are compared with."""
    onnxruntime = required("onnxruntime", "onnxruntime", "The benchmark")
    openvino = required("openvino", "openvino", "The benchmark")

    def open_both(title: str, path: str) -> Dict[str, Run]:
        in_onnxruntime = onnx_runtime(onnxruntime, path, threads).run
        in_openvino = openvino_runtime(openvino, path, threads).run
        return {f"{title}, ONNX Runtime": in_onnxruntime, f"{title}, OpenVINO": in_openvino}

    files = {name: os.path.join(directory, f"{name}.onnx") for name in FILES}
    torch_onnx(network, files["torch"])
    metadata = metadata_of(network, "raw")
    for prelu in ("node", "decomposed"):
        write_onnx(files[prelu], network, OnnxForm(prelu=prelu), metadata)
    write_onnx(files["opset_13"], network, OnnxForm(opset=int8.OPSET), metadata)
    int8.quantize(files["opset_13"], files["int8"], _images(network.spec, int8.BATCH), {})
    runs: Dict[str, Run] = {}
    for name, title in FILES.items():
        if title:
            runs.update(open_both(title, files[name]))
    try:
        bf16 = openvino_runtime(openvino, files["node"], threads, "bf16")
        runs["ours, OpenVINO bf16"] = bf16.run
    except ValueError as error:  # a processor without bfloat16
        print(f"ours, OpenVINO bf16: skipped, {error}")
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
    for run_batch in runs.values():
        run_batch(batch)  # the first run of a shape allocates
    for _ in range(config.rounds):
        for name, run_batch in runs.items():
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
        print(f"  {name:38s} {rate:8.1f} images/s  {rate / first:5.2f} x")


if __name__ == "__main__":
    run(main)
