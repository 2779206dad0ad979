"""Stands in for Ascend's package where there is no card: the "om" is an .npz of one matrix."""

import collections

import numpy as np

Tensor = collections.namedtuple("Tensor", "name shape datatype")


class InferSession:
    """The part of ais_bench's interface that the backend uses."""

    def __init__(self, device_id, model_path):
        with open(model_path, "rb") as stream:
            content = np.load(stream)
            self._weights, self._shape = content["weights"], tuple(content["shape"].tolist())

    def get_inputs(self):
        return [Tensor("image", self._shape, "float32")]

    def get_outputs(self):
        return [Tensor("features", (self._shape[0], self._weights.shape[1]), "float32")]

    def infer(self, feeds):
        assert feeds[0].shape == self._shape and feeds[0].flags.c_contiguous
        return [feeds[0].reshape(len(feeds[0]), -1) @ self._weights]
