""".om files on an Ascend card, through the Python interface of Ascend's ais_bench."""

import os

import numpy as np
from ais_bench.infer.interface import InferSession

from inference.backends.base import Backend, ModelOptions, as_shape


class AisBenchBackend(Backend):
    """A session of ais_bench on the card ASCEND_DEVICE_ID; an .om has one fixed batch."""

    def __init__(self, path: str, options: ModelOptions) -> None:
        self._session = InferSession(int(os.environ.get("ASCEND_DEVICE_ID", "0")), path)
        first = self._session.get_inputs()[0]
        self.outputs = len(self._session.get_outputs())
        self.input_shape = as_shape(first.shape)
        self.input_dtype = {"uint8": "uint8"}.get(str(first.datatype).lower(), "float32")

    def run(self, x: np.ndarray) -> np.ndarray:
        return self._session.infer([x])[0]

    def close(self) -> None:
        free = getattr(self._session, "free_resource", None)  # versions before 0.0.2 have none
        if free is not None:
            free()
