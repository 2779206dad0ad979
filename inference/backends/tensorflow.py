"""SavedModels and frozen GraphDefs (.pb) in TensorFlow."""

import os
from typing import Any, Tuple

import numpy as np

from inference.backends.base import Backend, ModelOptions
from runtime.session import session_config
from runtime.tf1 import tf


class TensorFlowBackend(Backend):
    """A session on the graph of a SavedModel's serving signature, or of a frozen GraphDef."""

    def __init__(self, path: str, options: ModelOptions) -> None:
        config = session_config(options.device)
        config.intra_op_parallelism_threads = options.threads or 0
        self._session = tf.Session(graph=tf.Graph(), config=config)
        with self._session.graph.as_default():
            try:
                is_directory = os.path.isdir(path)
                names = (
                    _load_saved_model(self._session, path) if is_directory else _load_graph(path)
                )
            except (tf.errors.OpError, ValueError, OSError, KeyError) as error:
                self.close()
                text = " ".join(str(error).split())
                raise ValueError(f"{path} cannot be loaded by TensorFlow: {text[:300]}") from None
            self._input, self._output = (
                self._session.graph.get_tensor_by_name(name) for name in names[:2]
            )
        self.outputs = names[2]
        self.input_shape = tuple(self._input.shape.as_list())
        self.input_dtype = self._input.dtype.as_numpy_dtype.__name__

    def run(self, x: np.ndarray) -> np.ndarray:
        return self._session.run(self._output, {self._input: x})

    def close(self) -> None:
        self._session.close()


def _load_saved_model(session: Any, path: str) -> Tuple[str, str, int]:
    """(input's name, output's name, number of outputs) of the serving signature."""
    meta = tf.saved_model.load(session, ["serve"], path)
    signature = meta.signature_def["serving_default"]
    first = signature.inputs[sorted(signature.inputs)[0]].name
    outputs = [signature.outputs[key].name for key in sorted(signature.outputs)]
    return first, outputs[0], len(outputs)


def _load_graph(path: str) -> Tuple[str, str, int]:
    """The placeholder of a frozen graph, and the operations that feed no other."""
    definition = tf.GraphDef()
    with open(path, "rb") as stream:
        content = stream.read()
    try:
        definition.ParseFromString(content)
    except Exception:  # protobuf's DecodeError has moved between versions
        raise ValueError("it is not a whole GraphDef") from None
    tf.import_graph_def(definition, name="")
    used = {name.split(":")[0].lstrip("^") for node in definition.node for name in node.input}
    inputs = [node.name for node in definition.node if node.op == "Placeholder"]
    outputs = [node.name for node in definition.node if node.name not in used and node.op != "NoOp"]
    if len(inputs) != 1 or not outputs:
        raise ValueError(f"it has {len(inputs)} placeholders, but one is needed")
    return f"{inputs[0]}:0", f"{outputs[-1]}:0", len(outputs)
