"""An exported file in the runtimes that are installed here: uint8 RGB images -> embeddings.

Letters: N images, H W pixels, D embedding.
"""

import importlib
from typing import Any, Callable, Dict, NamedTuple, Optional

import numpy as np

from export.onnx_writer import pixel_constants
from nets.lineages import NetSpec
from runtime.tf1 import VERSION, tf

Run = Callable[[np.ndarray], np.ndarray]  # what the file's input takes -> float32 [N, D]


class Runtime(NamedTuple):
    """A file opened by a runtime."""

    name: str  # of the runtime, with its version
    run: Run  # one batch


def optional(module: str) -> Optional[Any]:
    """A module, or None where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def required(module: str, package: str, purpose: str) -> Any:
    """A module, or a sentence about what to install."""
    found = optional(module)
    if found is None:
        raise ValueError(f"{purpose} needs {module}; pip install {package}.")
    return found


def input_of(images_NHWC: np.ndarray, spec: NetSpec, input_form: str) -> np.ndarray:
    """uint8 RGB [N, H, W, 3] -> what a file of an input form takes."""
    if input_form == "uint8":
        return images_NHWC
    pixels_NHWC = images_NHWC.astype(np.float32)
    if input_form == "scaled":
        mean, divisor = pixel_constants(spec)
        ordered = pixels_NHWC[..., ::-1] if spec.row.pixels == "BGR" else pixels_NHWC
        pixels_NHWC = (ordered - mean.astype(np.float32)) / np.float32(divisor)
    return np.ascontiguousarray(pixels_NHWC.transpose(0, 3, 1, 2), np.float32)


def open_onnx(path: str, threads: int = 0) -> Dict[str, Runtime]:
    """An ONNX file in ONNX Runtime and OpenVINO, where they are installed. threads: 0 for all."""
    found = {}
    for key, module, opener in (
        ("onnxruntime", "onnxruntime", onnx_runtime),
        ("openvino", "openvino", openvino_runtime),
    ):
        library = optional(module)
        if library is not None:
            found[key] = opener(library, path, threads)
    return found


def onnx_runtime(library: Any, path: str, threads: int = 0) -> Runtime:
    """ONNX Runtime on the CPU."""
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = library.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return Runtime(
        f"onnxruntime {library.__version__}", lambda batch: session.run(None, {name: batch})[0]
    )


def openvino_runtime(library: Any, path: str, threads: int = 0, precision: str = "f32") -> Runtime:
    """OpenVINO on the CPU; its own choice of precision would be bf16 where the CPU has AMX."""
    options: Dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision}
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    core = library.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", options)
    version = library.__version__.split("-")[0]
    return Runtime(f"openvino {version}", lambda batch: compiled([batch])[compiled.output(0)])


def open_tflite(path: str) -> Dict[str, Runtime]:
    """A .tflite file in LiteRT, or in TensorFlow's own interpreter of it."""
    library = optional("ai_edge_litert.interpreter")
    if library is None:
        return {"tflite": _interpreter(tf.lite.Interpreter, path, f"tensorflow {VERSION}")}
    version = getattr(optional("ai_edge_litert"), "__version__", "")
    return {"tflite": _interpreter(library.Interpreter, path, f"ai-edge-litert {version}".strip())}


def _interpreter(interpreter_class: Any, path: str, name: str) -> Runtime:
    interpreter = interpreter_class(model_path=path)

    def run(batch: np.ndarray) -> np.ndarray:
        source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        if list(source["shape"]) != list(batch.shape):
            interpreter.resize_tensor_input(source["index"], list(batch.shape))
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], batch)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"]).copy()

    return Runtime(name, run)


def open_pb(path: str) -> Dict[str, Runtime]:
    """A frozen graph in TensorFlow."""
    graph_def = tf.GraphDef()
    with open(path, "rb") as stream:
        graph_def.ParseFromString(stream.read())
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    session = tf.Session(graph=graph)
    return {"tensorflow": _session(session, "image:0", "features:0")}


def open_saved_model(path: str) -> Dict[str, Runtime]:
    """A SavedModel in TensorFlow, by its default signature."""
    session = tf.Session(graph=tf.Graph())
    with session.graph.as_default():
        loaded = tf.saved_model.loader.load(session, [tf.saved_model.tag_constants.SERVING], path)
    signature = loaded.signature_def["serving_default"]
    names = signature.inputs["image"].name, signature.outputs["features"].name
    return {"tensorflow": _session(session, *names)}


def _session(session: tf.Session, source: str, result: str) -> Runtime:
    return Runtime(f"tensorflow {VERSION}", lambda batch: session.run(result, {source: batch}))
