"""One camera before one posed head: which point of the skin each pixel shows, and how bright it is.

The head is a cloud of points finer than the pixels, painted from far to near, so that a nose hides
a cheek by itself. V x U is the geometry's grid, H x W the picture's.
"""

from typing import Any, Optional

import cv2
import numpy as np

from data.synthetic_faces import head as head
from data.synthetic_faces.head import COLUMNS, ROWS
from data.synthetic_faces.skin import TALL, WIDE

OVERSAMPLING = 2
CAMERA_DISTANCE = 70.0  # centimetres; gives near features their size
CENTRE = (0.5, 0.6)  # where the five landmarks' middle comes to lie, as a share of the picture
PROFILE_SHIFT = 0.3  # of the way from there to the head's axis, so that a profile has an ear
PIXELS_PER_CM = 4.7 / 112  # times the picture's size


class View:
    """Projects points of the head, and paints the head on a canvas."""

    def __init__(
        self,
        skin: Any,
        image_size: int,
        shot: Any,
        points_VU3: np.ndarray,
        rng: np.random.RandomState,
    ) -> None:
        self.skin, self.shot, self.points_VU3 = skin, shot, points_VU3
        self.side = image_size * OVERSAMPLING
        self.rotation = rotation_of(shot.yaw, shot.pitch, shot.roll)
        self.scale = self._fitting_scale() * self.side * PIXELS_PER_CM * rng.uniform(0.94, 1.06)
        self.offset = np.zeros(2)
        middle = self.project(self._five_landmarks())[:, :2].mean(axis=0)
        middle[0] += PROFILE_SHIFT * (self.project(np.zeros(3))[0] - middle[0])
        jitter = rng.normal(0.0, 0.014, size=2) * self.side
        self.offset = np.array(CENTRE) * self.side + jitter - middle
        self.depth_HW: Optional[np.ndarray] = None

    def _five_landmarks(self):
        """Eyes, tip of the nose, corners of the mouth, on the surface: [5, 3]."""
        mark = head.landmarks(self.skin.person, self.shot.expression)
        eye, mouth = mark.eye_x, mark.mouth_x
        return self.on_surface(
            [
                (-eye, 0.1),
                (eye, 0.1),
                (0, mark.nose_y),
                (-mouth, mark.mouth_y),
                (mouth, mark.mouth_y),
            ]
        )

    def _fitting_scale(self):
        """Alignment makes faces one size: half of the difference from eyes to mouth goes."""
        mark = head.landmarks(self.skin.person)
        return 0.5 + 0.5 * 7.0 / mark.mouth_y

    def on_surface(self, places: Any) -> np.ndarray:
        at = self.skin.pixels(places)
        column = np.clip(
            ((at[:, 0] + 0.5) * COLUMNS / WIDE - 0.5).round().astype(int), 0, COLUMNS - 1
        )
        row = np.clip(((at[:, 1] + 0.5) * ROWS / TALL - 0.5).round().astype(int), 0, ROWS - 1)
        return self.points_VU3[row, column]

    def project(self, points: np.ndarray) -> np.ndarray:
        """Head-frame points [..., 3] -> pixels x, y and depth [..., 3]; nearer is larger."""
        turned = points @ self.rotation.T
        nearness = self.scale / (1.0 - turned[..., 2:] / CAMERA_DISTANCE)
        flat = turned[..., :2] * nearness + self.offset
        return np.concatenate([flat, turned[..., 2:]], axis=-1).astype(np.float32)

    def render(self, canvas_HWC: np.ndarray, skin_HWC: np.ndarray) -> None:
        """Paints the head over the canvas, and keeps the depth of each pixel."""
        normals_VU3, hollow_VU = _normals(self.points_VU3)
        shade_VU, gloss_VU = self._shade(normals_VU3, hollow_VU)
        source_HW, depth_N = self._splat(normals_VU3 @ self.rotation[2])
        covered_M = np.flatnonzero(source_HW >= 0)
        source_M = source_HW.ravel()[covered_M]
        shade_M = cv2.resize(shade_VU, (WIDE, TALL)).take(source_M)
        gloss_M = cv2.resize(gloss_VU, (WIDE, TALL)).take(source_M)
        colour_M3 = skin_HWC.reshape(-1, 3).take(source_M, axis=0) * shade_M[:, None]
        colour_M3 += gloss_M[:, None]
        np.minimum(colour_M3, 255.0, out=colour_M3)
        canvas_HWC.reshape(-1, 3)[covered_M] = colour_M3.astype(np.uint8)
        depth_HW = self.depth_HW = np.full((self.side, self.side), -99.0, np.float32)
        depth_HW.ravel()[covered_M] = depth_N.take(source_M)

    def _shade(self, normals_VU3, hollow_VU):
        light = np.array(self.shot.light) @ self.rotation  # into the head's frame
        towards_VU = normals_VU3 @ light
        wrapped_VU = np.clip((towards_VU + 0.25) / 1.25, 0.0, 1.0)
        facing_VU = np.clip(normals_VU3 @ self.rotation[2], 0.0, 1.0)
        shade_VU = self.shot.ambient * (0.7 + 0.3 * facing_VU) + self.shot.diffuse * wrapped_VU
        half = self.shot.light + np.array([0.0, 0.0, 1.0])
        half = (half / np.linalg.norm(half)) @ self.rotation
        gloss_VU = 26.0 * self.shot.diffuse * np.clip(normals_VU3 @ half, 0.0, 1.0) ** 24
        shade_VU = shade_VU * (1.0 - np.clip(0.45 * hollow_VU, -0.08, 0.45))
        return shade_VU.astype(np.float32), gloss_VU.astype(np.float32)

    def _splat(self, facing_VU):
        """Which point of the skin each pixel shows, -1 for none: int32 [H, W]; points' depths."""
        fine_HW3 = cv2.resize(self.project(self.points_VU3), (WIDE, TALL))
        towards_HW = cv2.resize(facing_VU.astype(np.float32), (WIDE, TALL))
        x_N, y_N, depth_N = fine_HW3.reshape(-1, 3).T
        column_N, row_N = x_N.astype(np.int32), y_N.astype(np.int32)
        kept_M = np.flatnonzero(
            (towards_HW.ravel() > -0.12)
            & (x_N >= 0)
            & (y_N >= 0)
            & (column_N < self.side)
            & (row_N < self.side)
        )
        levels_M = ((depth_N[kept_M] + 40.0) * 800.0).astype(np.uint16)  # radix sort: 16 bits
        kept_M = kept_M[np.argsort(levels_M, kind="stable")]
        source_HW = np.full(self.side * self.side, -1.0, np.float32)
        source_HW[row_N[kept_M] * self.side + column_N[kept_M]] = kept_M
        return _close_gaps(source_HW.reshape(self.side, self.side)), depth_N


def _close_gaps(source_HW):
    """Fills pixels between points that the cloud was too thin to reach."""
    square = np.ones((3, 3), np.uint8)
    solid_HW = (source_HW >= 0).astype(np.uint8)
    closed_HW = cv2.morphologyEx(solid_HW, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    for _ in range(3):
        gaps_HW = (source_HW < 0) & (closed_HW > 0)
        source_HW[gaps_HW] = cv2.dilate(source_HW, square)[gaps_HW]
    return source_HW.astype(np.int32)


def _normals(points_VU3):
    """Outward unit normals [V, U, 3], and how deep in a hollow each point lies, in cm [V, U]."""
    along_U = np.gradient(points_VU3, axis=1)
    along_V = np.gradient(points_VU3, axis=0)
    normals_VU3 = np.cross(along_U, along_V)
    normals_VU3 /= np.linalg.norm(normals_VU3, axis=-1, keepdims=True) + 1e-6
    radius_VU = np.hypot(points_VU3[..., 0], points_VU3[..., 2])
    hollow_VU = cv2.GaussianBlur(radius_VU, (0, 0), 4.0) - radius_VU
    return normals_VU3, hollow_VU


def rotation_of(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Degrees -> the matrix from the head's frame to the camera's (x right, y down, z nearer)."""
    (sy, cy), (sp, cp), (sr, cr) = ((np.sin(a), np.cos(a)) for a in np.radians([yaw, pitch, roll]))
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (tilt @ nod @ turn).astype(np.float32)
