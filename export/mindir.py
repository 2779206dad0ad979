"""Exported graph -> MindIR through MindSpore, which runs in a Python of its own.

Letters: N images, D embedding.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from typing import Any, Dict, List, Optional

import numpy as np

from export.graph import Graph
from export.inference_graph import Network
from export.proof import Proof, Reference, batch_sizes, proof_of
from export.runtimes import input_of
from runtime.files import write_npz

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mindspore_net.py")
INSTALL = "python3.11 -m venv ms && ms/bin/pip install mindspore"


def interpreter(chosen: Optional[str]) -> str:
    """The Python that has MindSpore: the one of --mindspore_python, or this one."""
    if chosen is None:
        if importlib.util.find_spec("mindspore") is not None:
            return sys.executable
        raise ValueError(
            "--file_format mindir needs MindSpore, in an environment of its own: pass the Python "
            f"of one with --mindspore_python ({INSTALL}), or pass --file_format ckpt_ms to write "
            "MindSpore's checkpoint without it."
        )
    found = shutil.which(chosen)
    if found is None:
        raise ValueError(f"--mindspore_python {chosen} is not a program.")
    words = [found, "-c", "import importlib.util as u; print(u.find_spec('mindspore'))"]
    result = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True
    )
    if result.returncode or result.stdout.strip() in ("", "None"):
        raise ValueError(
            f"--mindspore_python {chosen} has no MindSpore; {shorter(found)} -m pip install "
            "mindspore."
        )
    return found


def write_mindir(
    path: str,
    network: Network,
    graph: Graph,
    reference: Reference,
    batch_size: int,
    python: str,
) -> Proof:
    """Writes a MindIR of a fixed batch; its embeddings after MindSpore has read it again."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as directory:
        pixels = input_of(reference.images_NHWC, network.spec, "scaled")
        missing = -len(pixels) % batch_size
        filled = np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)])
        with open(os.path.join(directory, "pixels.npy"), "wb") as stream:
            np.save(stream, filled)
        _write_graph(directory, graph, batch_size)
        version = _run(python, directory)
        features_ND = np.load(os.path.join(directory, "features.npy"))[: len(pixels)]
        shutil.copyfile(os.path.join(directory, "network.mindir"), path)  # theirs is mode 400
    sizes = batch_sizes(len(pixels), batch_size)
    return proof_of(f"mindspore {version}", features_ND, reference.expected_ND, sizes)


def _write_graph(directory: str, graph: Graph, batch_size: int) -> None:
    weights: Dict[str, np.ndarray] = {}
    nodes: List[Dict[str, Any]] = []
    for node in graph.nodes:
        weights.update({f"{node.output}/{role}": array for role, array in node.weights.items()})
        nodes.append(
            {
                "op": node.op,
                "inputs": node.inputs,
                "output": node.output,
                "weights": sorted(node.weights),
                "attributes": node.attributes,
                "shape": graph.shapes[node.output],
            }
        )
    write_npz(
        os.path.join(directory, "weights.npz"),
        {name: np.asarray(array, np.float32) for name, array in weights.items()},
    )
    description = {
        "input": graph.input,
        "output": graph.output,
        "batch_size": batch_size,
        "nodes": nodes,
    }
    with open(os.path.join(directory, "graph.json"), "w", encoding="utf-8") as stream:
        json.dump(description, stream)
    with open(os.path.join(directory, "network.py"), "w", encoding="utf-8") as stream:
        stream.write(module_source(graph))


def module_source(graph: Graph) -> str:
    """A network's module, one line a node. MindSpore compiles the lines of a file; a loop over
    nodes would cost it a level of recursion each, of which it has 1000."""
    lines = ["from mindspore import nn", "", "", "class Network(nn.Cell):"]
    lines += ["    def __init__(self, cells):", "        super().__init__()"]
    for node in graph.nodes:
        lines.append(f"        self.cell_{node.output} = cells['{node.output}']")
    lines += ["", f"    def construct(self, {graph.input}):"]
    for node in graph.nodes:
        lines.append(f"        {node.output} = self.cell_{node.output}({', '.join(node.inputs)})")
    return "\n".join(lines + [f"        return {graph.output}", ""])


def _run(python: str, directory: str) -> str:
    """Runs MindSpore's process; its version."""
    environment = dict(os.environ, GLOG_v="3")  # MindSpore's errors only
    environment.pop("PYTHONPATH", None)
    result = subprocess.run(
        [python, SCRIPT, directory],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        env=environment,
        cwd=directory,  # MindSpore dumps what it does not compile into the current directory
    )
    if result.returncode:
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        raise ValueError(
            f"MindSpore in {shorter(python)} exited with {result.returncode}: "
            f"{(lines or ['no output'])[-1][:300]}"
        )
    return result.stdout.split()[-1]


def shorter(path: str) -> str:
    """A path from the current directory, where that is shorter."""
    return min(path, os.path.relpath(path), key=len)
