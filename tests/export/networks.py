"""Narrow networks and their checkpoints for the tests of export/."""

import os
import subprocess
import sys

from checkpoint.writer import save_arrays
from export import onnx_writer
from export.inference_graph import Network
from export.pipeline import graph_of
from nets.build import variable_shapes
from nets.lineages import LINEAGES, NetSpec
from tests.nets.tiny_nets import numbers, small_spec

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROWS = [(name, block) for name, row in LINEAGES.items() for block in row.blocks]


def narrow(monkeypatch, lineage, block="ir", normalize=False):
    """A Network of few units and one eighth of the channels, without a checkpoint."""
    spec = small_spec(monkeypatch, lineage, block)
    network = Network("none.ckpt", spec, {}, {}, normalize)
    network.arrays = {name: numbers(name, shape) for name, shape in network.graph.shapes.items()}
    return network


def onnx_bytes(network, form=onnx_writer.OnnxForm(), fold=True) -> bytes:  # noqa: B008
    """The ONNX file of a network."""
    return write(graph_of(network, fold), network, form)


def write(graph, network, form) -> bytes:
    """The ONNX file of a graph."""
    chunks = onnx_writer.onnx_model(graph, network.spec, form, {"key": "value"})
    return b"".join(bytes(chunk) for chunk in chunks)


def write_checkpoint(directory, lineage="arcface_torch", depth=18, **changes):
    """A checkpoint of a published depth at one eighth of the channels: its prefix."""
    values = dict(width=0.125, embedding_size=24, image_size=(32, 32))
    spec = NetSpec(lineage, depth, **dict(values, **changes))
    prefix = os.path.join(str(directory), "ckpt", "InsightFace_iter_7.ckpt")
    arrays = {name: numbers(name, shape) for name, shape in variable_shapes(spec).items()}
    record = {"step": 7, "net": spec.to_json(), "dataset": {"source": "train.rec", "images": 9}}
    save_arrays(prefix, arrays, dict(record, training={"loss": "arcface"}))
    return prefix


def run_script(*words, python=sys.executable):
    """export_model.py in a process of its own."""
    return subprocess.run(
        [python, os.path.join(ROOT, "export_model.py")] + [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        cwd=ROOT,
    )
