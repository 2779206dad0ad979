""".tflite files in LiteRT, or in the TensorFlow Lite of an installed TensorFlow."""

from typing import Any

import numpy as np

from inference.backends.base import Backend, ModelOptions, as_shape


class LiteRtBackend(Backend):
    """An interpreter; its tensors are resized when the number of images changes."""

    def __init__(self, path: str, options: ModelOptions) -> None:
        try:
            self._interpreter = _interpreter_class()(model_path=path, num_threads=options.threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            text = " ".join(str(error).split())
            raise ValueError(f"{path} cannot be loaded by LiteRT: {text[:300]}") from None
        self._first = self._interpreter.get_input_details()[0]
        outputs = self._interpreter.get_output_details()
        self._output, self.outputs = outputs[0]["index"], len(outputs)
        signature = self._first.get("shape_signature", self._first["shape"])
        self.input_shape = as_shape(int(size) for size in signature)
        self.input_dtype = np.dtype(self._first["dtype"]).name
        self._images = int(self._first["shape"][0])

    def run(self, x: np.ndarray) -> np.ndarray:
        if len(x) != self._images:
            self._interpreter.resize_tensor_input(self._first["index"], x.shape)
            self._interpreter.allocate_tensors()
            self._images = len(x)
        self._interpreter.set_tensor(self._first["index"], x)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from runtime.tf1 import TF2, tf

        if TF2:
            return tf.lite.Interpreter
        # TensorFlow 1.15 has no num_threads.
        return lambda model_path, num_threads: tf.lite.Interpreter(model_path=model_path)
    return Interpreter
