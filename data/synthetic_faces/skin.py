"""The painted skin of a drawn person: the head unrolled, coloured with all that turns with it.

uint8 [H, W, 3] RGB, H x W = TALL x WIDE, finer than the geometry's V x U (synthetic_head.py).
Places are (x, y) centimetres on the surface.
"""

from typing import Any

import cv2
import numpy as np

from data.synthetic_faces import head
from data.synthetic_faces.head import ANGLES, ARC, COLUMNS, ROWS

TALL, WIDE = 336, 528
PLACES = 16  # cv2 takes polygon corners in sixteenths of a pixel


class Skin:
    """A person's skin at rest, `bare_HWC`, and what is painted on a copy of it for each image."""

    def __init__(self, person: head.Identity) -> None:
        self.person = person
        self.y_V, _ = head.heights(person)
        self.hair_thickness_VU, self.hair_share_VU = head.hair(person)
        self.bare_HWC = self._paint_skin()
        x_W, y_H = self._places()
        collar_HW = y_H[:, None] + np.minimum(0.02 * x_W[None] ** 2, 3.0) > 14.6
        self.collar_M = np.flatnonzero(collar_HW)

    def pixels(self, places_N2: np.ndarray) -> np.ndarray:
        """Surface places -> (column, row) of the painted skin: float [N, 2]."""
        places_N2 = np.asarray(places_N2, np.float64).reshape(-1, 2)
        column = np.interp(places_N2[:, 0] / ARC, ANGLES, np.arange(COLUMNS))
        row = np.interp(places_N2[:, 1], self.y_V, np.arange(ROWS))
        return np.stack(
            [(column + 0.5) * WIDE / COLUMNS - 0.5, (row + 0.5) * TALL / ROWS - 0.5], axis=1
        )

    def _fill(self, skin_HWC, places, colour, opacity=1.0, soft=0.0):
        blend_polygon(skin_HWC, self.pixels(places), colour, opacity, soft)

    def _paint_skin(self):
        """What stays the same in all of a person's photographs: complexion, marks, beard, hair."""
        person, rng = self.person, np.random.RandomState(self.person.seed)
        skin_HWC = np.empty((TALL, WIDE, 3), np.float32)
        skin_HWC[:] = person.skin
        x_W, y_H = self._places()
        grain = cv2.resize(
            rng.normal(size=(24, 32)).astype(np.float32),
            (WIDE, TALL),
            interpolation=cv2.INTER_CUBIC,
        )
        skin_HWC *= 1.0 + 0.025 * grain[:, :, None]
        skin_HWC = np.clip(skin_HWC, 0, 255).astype(np.uint8)
        red = np.array(person.skin) * (1.02, 0.8, 0.78)
        for side in (-1, 1):
            self._fill(skin_HWC, _oval(side * 4.3, 3.6, 2.2, 1.6), red, 0.45, soft=9)
            self._fill(skin_HWC, _oval(side * 15.4, 1.1, 0.8, 2.0), red * 0.75, 0.7, soft=3)
        for _ in range(int(110 * person.freckles)):
            x, y = rng.normal(0.0, 3.4), rng.normal(2.8, 1.1)
            self._fill(skin_HWC, _oval(x, y, 0.13, 0.13), red * 0.8, 0.6)
        for x, y, radius in person.moles:
            self._fill(skin_HWC, _oval(x, y, radius, radius), np.array(person.skin) * 0.35)
        self._paint_beard(skin_HWC, x_W, y_H, rng)
        self._paint_hair(skin_HWC, rng)
        return skin_HWC

    def _places(self):
        """x of each column [W] and y of each row [H] of the painted skin."""
        columns = (np.arange(WIDE) + 0.5) * COLUMNS / WIDE - 0.5
        rows = (np.arange(TALL) + 0.5) * ROWS / TALL - 0.5
        x_W = np.interp(columns, np.arange(COLUMNS), ANGLES) * ARC
        return x_W.astype(np.float32), np.interp(rows, np.arange(ROWS), self.y_V).astype(np.float32)

    def _paint_beard(self, skin_HWC, x_W, y_H, rng):
        if self.person.beard == "none":
            return
        mark = head.landmarks(self.person)
        side_W, y_H1 = np.abs(x_W)[None], y_H[:, None]
        lip = mark.mouth_y - 0.75
        upper = np.minimum(lip - y_H1 + 0.35, y_H1 - (mark.nose_y + 1.0)) + 0.55 - 0.16 * side_W
        upper = np.minimum(upper, 3.6 - side_W)
        jaw = mark.mouth_y + 1.1 - 0.055 * np.clip(side_W - 3.0, 0, 9) ** 2
        full = np.minimum(np.minimum(y_H1 - jaw, mark.chin_y + 0.9 - y_H1), 13.0 - side_W)
        chin = np.minimum(
            2.3 - side_W, np.minimum(y_H1 - mark.mouth_y - 1.3, mark.chin_y - y_H1 + 1)
        )
        edge = {
            "moustache": upper,
            "goatee": np.maximum(chin, upper),
            "full": np.maximum(full, upper),
            "stubble": np.maximum(full, upper),
        }[self.person.beard]
        strong = 0.42 if self.person.beard == "stubble" else 0.9
        hairs = cv2.GaussianBlur(rng.normal(size=(TALL, WIDE)).astype(np.float32), (0, 0), 1.0)
        share = strong * np.clip(edge / 0.7 + 0.4 + 0.5 * hairs, 0.0, 1.0)
        colour = np.array(self.person.hair) * 0.85
        _mix(skin_HWC, colour * (1.0 + 0.35 * hairs[:, :, None]), share)

    def _paint_hair(self, skin_HWC, rng):
        share = cv2.resize(self.hair_share_VU, (WIDE, TALL))
        knots = TALL // (1 if self.person.style == "curly" else 14)  # along a strand
        noise = rng.normal(size=(knots, WIDE)).astype(np.float32)
        strands = cv2.resize(cv2.GaussianBlur(noise, (0, 0), 1.2), (WIDE, TALL))
        strands = np.clip(strands / strands.std(), -2.5, 2.5)
        share = np.clip(share * 1.25 - 0.12 + 0.25 * strands * share * (1 - share) * 4, 0, 1)
        if self.person.style == "bald":
            share = share * 0.8
        _mix(skin_HWC, np.array(self.person.hair) * (1.0 + 0.17 * strands[:, :, None]), share)

    def paint_features(self, skin_HWC: np.ndarray, expression: Any) -> None:
        mark = head.landmarks(self.person, expression)
        for side in (-1, 1):
            self._paint_eye(skin_HWC, side, mark, expression)
            self._paint_brow(skin_HWC, side, mark, expression)
        self._paint_nose(skin_HWC, mark)
        self._paint_mouth(skin_HWC, mark, expression)
        self._paint_lines(skin_HWC, mark, expression)

    def _paint_eye(self, skin_HWC, side, mark, expression):
        person, dark = self.person, np.array(self.person.skin)
        wide = 1.62 + 0.15 * person["eye_width"]
        tall = (0.74 + 0.14 * person["eye_height"]) * max(0.04, expression.eyes)
        tall -= 0.1 * max(0.0, expression.smile)
        tall = max(tall, 0.03)
        slant = -0.13 - 0.14 * person["eye_slant"]
        along = np.linspace(-1.0, 1.0, 17)
        x = mark.eye_x * side + side * wide * along  # inner corner first
        axis = 0.1 + slant * along
        top = axis - tall * (1.0 - np.abs(along + 0.1) ** 2.3 * 0.98)
        bottom = axis + 0.62 * tall * (1.0 - np.abs(along) ** 2.2)
        lids = np.concatenate([np.stack([x, top], 1), np.stack([x, bottom], 1)[::-1]])
        self._fill(skin_HWC, lids * 1.0 + (0, -0.25), dark * (0.78, 0.68, 0.66), 0.5, soft=5)
        self._fill(skin_HWC, lids, (232, 226, 220))
        iris = 0.7 + 0.05 * person["iris_size"]
        middle = (
            side * mark.eye_x + 0.55 * expression.gaze[0],
            axis[8] - 0.12 * tall + 0.5 * expression.gaze[1],
        )
        for radius, colour in ((iris, person.iris), (0.3, (14, 12, 12))):
            circle = _oval(middle[0], middle[1], radius, radius)
            order = np.argsort(x)
            low = np.interp(circle[:, 0], x[order], top[order])
            high = np.interp(circle[:, 0], x[order], bottom[order])
            circle[:, 1] = np.clip(circle[:, 1], low, np.maximum(low, high))
            self._fill(skin_HWC, circle, colour)
        if tall > 0.25:
            self._fill(skin_HWC, _oval(middle[0] + 0.2, middle[1] - 0.2, 0.13, 0.13), (250,) * 3)
        lash = np.concatenate([np.stack([x, top - 0.13], 1), np.stack([x, top + 0.1], 1)[::-1]])
        self._fill(skin_HWC, lash, dark * 0.2, 0.95)
        fold = top - 0.36 - 0.1 * person["lid_fold"]
        fold_line = np.concatenate([np.stack([x, fold], 1), np.stack([x, fold + 0.12], 1)[::-1]])
        self._fill(skin_HWC, fold_line, dark * 0.5, 0.6)
        under = np.concatenate([np.stack([x, bottom], 1), np.stack([x, bottom + 0.1], 1)[::-1]])
        self._fill(skin_HWC, under, dark * 0.5, 0.55)

    def _paint_brow(self, skin_HWC, side, mark, expression):
        person = self.person
        along = np.linspace(0.0, 1.0, 12)
        inner = 1.35 + 0.3 * (mark.eye_x - 3.15)
        outer = mark.eye_x + 1.75 + 0.28 * person["brow_length"]
        x = side * (inner + (outer - inner) * along)
        y = -1.75 - 0.28 * person["brow_height"] - 0.4 * expression.brows
        y = y - (0.42 + 0.26 * person["brow_arch"]) * np.sin(np.pi * along**1.3)
        y = (
            y
            + (0.12 + 0.22 * person["brow_slant"]) * (0.5 - along)
            - 0.1 * expression.brows * along
        )
        half = (0.3 + 0.09 * person["brow_thickness"]) * (1.0 - 0.75 * along**1.5)
        band = np.concatenate([np.stack([x, y - half], 1), np.stack([x, y + half], 1)[::-1]])
        colour = np.array(person.hair) * min(0.72, 95.0 / max(person.hair))
        self._fill(skin_HWC, band, colour, 0.85, soft=0.8)

    def _paint_nose(self, skin_HWC, mark):
        person, dark = self.person, np.array(self.person.skin)
        wide = 0.78 + 0.14 * person["nose_width"]
        below = mark.nose_y + 0.72 - 0.12 * person["nose_tip"]
        for side in (-1, 1):
            self._fill(skin_HWC, _oval(side * wide, below, 0.42, 0.22), dark * (0.3, 0.2, 0.2), 0.9)
            wing = side * (1.75 + 0.27 * person["nose_width"])
            self._fill(
                skin_HWC, _oval(wing, mark.nose_y + 0.15, 0.16, 0.6), dark * 0.55, 0.5, soft=2
            )
        self._fill(skin_HWC, _oval(0, below + 0.3, 1.5, 0.3), dark * 0.5, 0.35, soft=3)

    def _paint_mouth(self, skin_HWC, mark, expression):
        person, skin = self.person, np.array(self.person.skin)
        lip = skin * (0.86, 0.58, 0.6)
        along = np.linspace(-1.0, 1.0, 21)
        bow = 1.0 - np.abs(along) ** 1.7
        x, y = mark.mouth_x * along, mark.mouth_y - 0.55 * expression.smile * np.abs(along) ** 1.8
        y = y + 0.22 * max(0.0, expression.smile)
        gap = 0.85 * expression.open * bow
        dip = (0.16 + 0.1 * person["cupid"]) * np.exp(-((along / 0.16) ** 2))
        upper = (0.5 + 0.2 * person["upper_lip"]) * np.sqrt(np.maximum(bow, 0)) - dip
        lower = (0.62 + 0.22 * person["lower_lip"]) * np.maximum(bow, 0) ** 0.7
        seam, floor = y - 0.25 * gap, y + 0.75 * gap

        def between(top, bottom, colour, opacity=1.0):
            band = np.concatenate([np.stack([x, top], 1), np.stack([x, bottom], 1)[::-1]])
            self._fill(skin_HWC, band, colour, opacity, soft=0.5)

        between(seam - np.maximum(upper, 0.08), seam + 0.05, lip * 0.88)
        between(floor, floor + np.maximum(lower, 0.1), lip)
        between(floor + 0.3 * lower, floor + 0.6 * lower, np.minimum(lip * 1.2, 255), 0.4)
        between(seam - 0.07, floor + 0.07, (62, 24, 26))
        if expression.open > 0.15:
            between(seam + 0.02, seam + np.minimum(0.55 * gap, 0.45), (226, 220, 208))

    def _paint_lines(self, skin_HWC, mark, expression):
        """Folds of age and of smiling."""
        person, dark = self.person, np.array(self.person.skin) * 0.58
        strength = np.clip(0.16 + 0.16 * person["age"] + 0.3 * max(0.0, expression.smile), 0.0, 0.8)
        along = np.linspace(0.0, 1.0, 8)
        for side in (-1, 1):
            x = side * (1.95 + (mark.mouth_x - 1.2) * along**0.8)
            y = mark.nose_y + 0.1 + (mark.mouth_y - mark.nose_y) * along
            fold = np.concatenate([np.stack([x - 0.1, y], 1), np.stack([x + 0.1, y], 1)[::-1]])
            self._fill(skin_HWC, fold, dark, strength, soft=1.2)
        if person["age"] > 0.6 and person.style != "fringe":
            for y in (-4.1, -5.0):
                x = np.linspace(-3.2, 3.2, 9)
                curve = y + 0.03 * x**2
                line = np.concatenate(
                    [np.stack([x, curve], 1), np.stack([x, curve + 0.13], 1)[::-1]]
                )
                self._fill(skin_HWC, line, dark, 0.3 * person["age"], soft=1)

    def dress(self, skin_HWC: np.ndarray, occluder: Any, rng: np.random.RandomState) -> np.ndarray:
        """Paints clothes, hat and scarf; returns what lies upon the head: centimetres [V, U]."""
        thickness_VU = self.hair_thickness_VU
        cloth = muted(rng)
        skin_HWC.reshape(-1, 3)[self.collar_M] = cloth
        if occluder == "hat":
            line_U = -4.6 - rng.uniform(0, 1.4) + 0.012 * np.abs(ANGLES * ARC) ** 2 * 0.9
            line_U = np.minimum(line_U, 0.0)
            inside_VU = (line_U[None] - self.y_V[:, None]).astype(np.float32)
            under_VU = np.clip(inside_VU / 0.4 + 0.5, 0, 1)
            thickness_VU = thickness_VU * (1 - under_VU) + under_VU * rng.uniform(0.6, 1.2)
            band = 1.0 - 0.25 * (np.abs(inside_VU - 1.2) < 1.1)
            self._cover(skin_HWC, under_VU, cloth, band, rng)
        if occluder == "scarf":
            line_U = rng.uniform(8.2, 10.4) - 0.02 * np.abs(ANGLES * ARC) ** 1.6
            inside_VU = (self.y_V[:, None] - line_U[None]).astype(np.float32)
            under_VU = np.clip(inside_VU / 0.4 + 0.5, 0, 1)
            folds = 1.0 + 0.14 * np.sin(self.y_V[:, None] * 2.4 + 2 * np.sin(ANGLES[None] * 2))
            thickness_VU = thickness_VU * (1 - under_VU) + under_VU * 0.9 * folds
            self._cover(skin_HWC, under_VU, cloth, folds, rng)
        return thickness_VU

    def _cover(self, skin_HWC, share_VU, colour, pattern_VU, rng):
        shade = cv2.resize(pattern_VU.astype(np.float32), (WIDE, TALL))
        stripes = 1.0 + rng.uniform(0, 0.25) * np.sin(np.arange(WIDE) * rng.uniform(0.1, 0.5))
        painted = colour * (shade * stripes[None])[:, :, None]
        _mix(skin_HWC, painted, cv2.resize(share_VU.astype(np.float32), (WIDE, TALL)))


def _oval(x, y, wide, tall, corners=18):
    turn = np.linspace(0.0, 2.0 * np.pi, corners, endpoint=False)
    return np.stack([x + wide * np.cos(turn), y + tall * np.sin(turn)], axis=1)


def _mix(image_HWC, colour, share_HW):
    """image += share * (colour - image), in place; colour broadcasts to [H, W, 3]."""
    rows = np.flatnonzero(share_HW.max(axis=1) > 0)
    if len(rows):
        part = slice(rows[0], rows[-1] + 1)
        colour = np.asarray(colour, np.float32)
        colour = colour[part] if colour.ndim == 3 else colour
        old = image_HWC[part].astype(np.float32)
        image_HWC[part] = np.clip(old + share_HW[part, :, None] * (colour - old), 0, 255)


def blend_polygon(
    image_HWC: np.ndarray,
    corners_N2: np.ndarray,
    colour: Any,
    opacity: float = 1.0,
    soft: float = 0.0,
) -> None:
    """Fills an anti-aliased polygon in place; `soft` blurs its edge by so many pixels."""
    tall, wide = image_HWC.shape[:2]
    margin = int(3 * soft) + 2
    left, top = np.maximum(np.floor(corners_N2.min(axis=0)).astype(int) - margin, 0)
    right, bottom = np.minimum(
        np.ceil(corners_N2.max(axis=0)).astype(int) + margin + 1, (wide, tall)
    )
    if right <= left or bottom <= top:
        return
    mask = np.zeros((bottom - top, right - left), np.uint8)
    corners = np.round((corners_N2 - (left, top)) * PLACES).astype(np.int32)
    cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, shift=4)
    if soft:
        mask = cv2.GaussianBlur(mask, (0, 0), soft)
    part = image_HWC[top:bottom, left:right].astype(np.float32)
    share = mask[:, :, None] * np.float32(opacity / 255.0)
    part += share * (np.asarray(colour, np.float32) - part)
    image_HWC[top:bottom, left:right] = np.minimum(part, 255.0, out=part)


def muted(rng: np.random.RandomState) -> np.ndarray:
    """Some colour of walls, trees and cloth: float [3]."""
    return np.clip(rng.uniform(35, 215) + rng.normal(0.0, 22.0, size=3), 10, 245)
