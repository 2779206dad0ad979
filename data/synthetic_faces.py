"""Draws one photograph of a drawn person: paints the head's skin, turns and lights it, then spoils
the picture as cameras do. uint8 [H, W, 3] RGB out; V x U is the head's grid (synthetic_head.py).

The head is a cloud of points finer than the pixels, painted from far to near, at twice the
picture's size; so a nose hides a cheek by itself, and every feature turns with the head.
"""

import dataclasses

import cv2
import numpy as np

from data import synthetic_head as head
from data.synthetic_head import ANGLES, ARC, COLUMNS, ROWS

TALL, WIDE = 336, 528  # the painted skin's grid
OVERSAMPLING = 2
CAMERA_DISTANCE = 70.0  # centimetres; gives near features their size
CENTRE = (0.5, 0.6)  # where the five landmarks' middle comes to lie, as a share of the picture
PROFILE_SHIFT = 0.3  # of the way from there to the head's axis, so that a profile has an ear
PIXELS_PER_CM = 4.7 / 112  # times the picture's size
PLACES = 16  # cv2 takes polygon corners in sixteenths of a pixel


@dataclasses.dataclass(frozen=True)
class Shot:
    """What one photograph does to a person; angles in degrees, light towards the lamp."""

    yaw: float
    pitch: float
    roll: float
    expression: head.Expression
    light: tuple
    ambient: float
    diffuse: float
    tint: tuple
    occluder: str
    seed: int  # of everything drawn at random: background, clothes, noise


OCCLUDERS = ("nothing", "glasses", "sunglasses", "hat", "scarf", "hand")
OCCLUDER_SHARES = (0.67, 0.13, 0.04, 0.06, 0.05, 0.05)


def draw_shot(rng, view="any"):
    """numpy RandomState -> Shot; view is "frontal", "profile" or "any"."""
    yaw = {
        "frontal": lambda: np.clip(rng.normal(0.0, 11.0), -25.0, 25.0),
        "profile": lambda: rng.uniform(52.0, 82.0) * rng.choice((-1, 1)),
        "any": lambda: rng.uniform(0.0, 82.0) * rng.uniform(0.0, 1.0) * rng.choice((-1, 1)),
    }[view]()
    side, lift = rng.uniform(-1.0, 1.0), rng.uniform(-0.9, 0.25)
    light = np.array([side, lift, rng.uniform(0.35, 1.0)])
    smile = rng.choice((0.0, 1.0)) * rng.uniform(0.2, 1.0)
    expression = head.Expression(
        smile=smile - 0.35 * rng.uniform() * (smile == 0),
        open=max(0.0, rng.uniform(-1.6, 1.0)),
        brows=rng.normal(0.0, 0.25),
        eyes=0.05 if rng.uniform() < 0.04 else rng.uniform(0.65, 1.1),
        gaze=(rng.normal(0.0, 0.25), rng.normal(0.0, 0.12)),
    )
    return Shot(
        yaw=float(yaw),
        pitch=float(np.clip(rng.normal(0.0, 7.0), -16, 16)),
        roll=float(rng.normal(0.0, 3.0)),
        expression=expression,
        light=tuple(light / np.linalg.norm(light)),
        ambient=rng.uniform(0.4, 0.6),
        diffuse=rng.uniform(0.4, 0.85),
        tint=tuple(rng.normal(1.0, 0.06, size=3)),
        occluder=OCCLUDERS[rng.choice(len(OCCLUDERS), p=OCCLUDER_SHARES)],
        seed=int(rng.randint(2**31 - 1)),
    )


class Portrait:
    """A person ready to be photographed: `take(shot)` as often as needed."""

    def __init__(self, person, image_size=112):
        self.person = person
        self.image_size = image_size
        self.y_V, _ = head.heights(person)
        self.hair_thickness_VU, self.hair_share_VU = head.hair(person)
        self.skin_HWC = self._paint_skin()
        x_W, y_H = self._places()
        collar_HW = y_H[:, None] + np.minimum(0.02 * x_W[None] ** 2, 3.0) > 14.6
        self.collar_M = np.flatnonzero(collar_HW)

    def take(self, shot):
        """Shot -> uint8 [image_size, image_size, 3] RGB."""
        rng = np.random.RandomState(shot.seed)
        skin_HWC = self.skin_HWC.copy()
        thickness_VU = self._dress(skin_HWC, shot, rng)
        self._paint_features(skin_HWC, shot.expression)
        points_VU3 = head.surface(self.person, shot.expression, thickness_VU)
        view = _View(self, shot, points_VU3, rng)
        canvas_HWC = _background(view.side, rng)
        view.render(canvas_HWC, skin_HWC)
        if shot.occluder in ("glasses", "sunglasses"):
            _draw_glasses(canvas_HWC, view, self, dark=shot.occluder == "sunglasses", rng=rng)
        if shot.occluder == "hand":
            _draw_hand(canvas_HWC, self.person.skin, rng)
        return _photograph(canvas_HWC, self.image_size, shot, rng)

    # Paint. Places are (x, y) centimetres on the surface.

    def pixels(self, places_N2):
        """Surface places -> (column, row) of the painted skin: float [N, 2]."""
        places_N2 = np.asarray(places_N2, np.float64).reshape(-1, 2)
        column = np.interp(places_N2[:, 0] / ARC, ANGLES, np.arange(COLUMNS))
        row = np.interp(places_N2[:, 1], self.y_V, np.arange(ROWS))
        return np.stack(
            [(column + 0.5) * WIDE / COLUMNS - 0.5, (row + 0.5) * TALL / ROWS - 0.5], axis=1
        )

    def _fill(self, skin_HWC, places, colour, opacity=1.0, soft=0.0):
        _blend_polygon(skin_HWC, self.pixels(places), colour, opacity, soft)

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

    def _paint_features(self, skin_HWC, expression):
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

    def _dress(self, skin_HWC, shot, rng):
        """Paints clothes, hat and scarf; returns what lies upon the head: centimetres [V, U]."""
        thickness_VU = self.hair_thickness_VU
        cloth = _muted(rng)
        skin_HWC.reshape(-1, 3)[self.collar_M] = cloth
        if shot.occluder == "hat":
            line_U = -4.6 - rng.uniform(0, 1.4) + 0.012 * np.abs(ANGLES * ARC) ** 2 * 0.9
            line_U = np.minimum(line_U, 0.0)
            inside_VU = (line_U[None] - self.y_V[:, None]).astype(np.float32)
            under_VU = np.clip(inside_VU / 0.4 + 0.5, 0, 1)
            thickness_VU = thickness_VU * (1 - under_VU) + under_VU * rng.uniform(0.6, 1.2)
            band = 1.0 - 0.25 * (np.abs(inside_VU - 1.2) < 1.1)
            self._cover(skin_HWC, under_VU, cloth, band, rng)
        if shot.occluder == "scarf":
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


class _View:
    """One camera before one posed head: projects points, and paints the head on a canvas."""

    def __init__(self, portrait, shot, points_VU3, rng):
        self.portrait, self.shot, self.points_VU3 = portrait, shot, points_VU3
        self.side = portrait.image_size * OVERSAMPLING
        self.rotation = _rotation(shot.yaw, shot.pitch, shot.roll)
        self.scale = self._fitting_scale() * self.side * PIXELS_PER_CM * rng.uniform(0.94, 1.06)
        self.offset = np.zeros(2)
        middle = self.project(self._five_landmarks())[:, :2].mean(axis=0)
        middle[0] += PROFILE_SHIFT * (self.project(np.zeros(3))[0] - middle[0])
        jitter = rng.normal(0.0, 0.014, size=2) * self.side
        self.offset = np.array(CENTRE) * self.side + jitter - middle
        self.depth_HW = None

    def _five_landmarks(self):
        """Eyes, tip of the nose, corners of the mouth, on the surface: [5, 3]."""
        mark = head.landmarks(self.portrait.person, self.shot.expression)
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
        mark = head.landmarks(self.portrait.person)
        return 0.5 + 0.5 * 7.0 / mark.mouth_y

    def on_surface(self, places):
        at = self.portrait.pixels(places)
        column = np.clip(
            ((at[:, 0] + 0.5) * COLUMNS / WIDE - 0.5).round().astype(int), 0, COLUMNS - 1
        )
        row = np.clip(((at[:, 1] + 0.5) * ROWS / TALL - 0.5).round().astype(int), 0, ROWS - 1)
        return self.points_VU3[row, column]

    def project(self, points):
        """Head-frame points [..., 3] -> pixels x, y and depth [..., 3]; nearer is larger."""
        turned = points @ self.rotation.T
        nearness = self.scale / (1.0 - turned[..., 2:] / CAMERA_DISTANCE)
        flat = turned[..., :2] * nearness + self.offset
        return np.concatenate([flat, turned[..., 2:]], axis=-1).astype(np.float32)

    def render(self, canvas_HWC, skin_HWC):
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
        self.depth_HW = np.full((self.side, self.side), -99.0, np.float32)
        self.depth_HW.ravel()[covered_M] = depth_N.take(source_M)

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


def _rotation(yaw, pitch, roll):
    """Degrees -> the matrix from the head's frame to the camera's (x right, y down, z nearer)."""
    (sy, cy), (sp, cp), (sr, cr) = ((np.sin(a), np.cos(a)) for a in np.radians([yaw, pitch, roll]))
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (tilt @ nod @ turn).astype(np.float32)


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


def _blend_polygon(image_HWC, corners_N2, colour, opacity=1.0, soft=0.0):
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


def _muted(rng):
    """Some colour of walls, trees and cloth: float [3]."""
    return np.clip(rng.uniform(35, 215) + rng.normal(0.0, 22.0, size=3), 10, 245)


def _background(side, rng):
    """Blurred patches of muted colours: uint8 [side, side, 3]."""
    small = 28
    patch = np.empty((small, small, 3), np.float32)
    patch[:] = _muted(rng)
    ramp = np.linspace(-1, 1, small)
    patch += (rng.uniform(-40, 40) * ramp[:, None] + rng.uniform(-40, 40) * ramp[None])[..., None]
    for _ in range(rng.randint(0, 7)):
        (x, y), (w, h) = rng.randint(0, small, size=2), rng.randint(3, 16, size=2)
        patch[y : y + h, x : x + w] = _muted(rng)
    patch = cv2.GaussianBlur(patch, (0, 0), rng.uniform(0.6, 2.5))
    return np.clip(cv2.resize(patch, (side, side)), 0, 255).astype(np.uint8)


def _draw_glasses(canvas_HWC, view, portrait, dark, rng):
    mark = head.landmarks(portrait.person)
    wide, tall = rng.uniform(2.1, 2.6), rng.uniform(1.5, 2.2)
    power = rng.uniform(0.45, 1.0)  # 1 = round, less = square
    colour = rng.uniform(10, 90, size=3)
    front = view.on_surface([(0, -0.3)])[0, 2] + 0.35
    turn = np.linspace(0, 2 * np.pi, 29)
    round_x = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** power
    round_y = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** power
    lines = []
    for side in (-1, 1):
        x = side * (mark.eye_x + 0.1) + wide * round_x
        rim = np.stack([x, 0.25 + tall * round_y, front - 0.03 * x**2], axis=1)
        edge = side * (mark.eye_x + 0.1 + wide)
        steps = np.linspace(0, 1, 9)[:, None]
        start, end = (
            np.array([edge, -0.4, front - 0.03 * edge**2]),
            np.array([side * 8.3, -0.3, -0.5]),
        )
        lines += [rim, start + steps * (end - start)]
        if view.shot.yaw * side < 55:  # the far lens is behind the nose
            pixels = view.project(rim)[:, :2]
            shade, opacity = ((24, 24, 28), 0.9) if dark else ((235, 240, 245), 0.1)
            _blend_polygon(canvas_HWC, pixels, shade, opacity)
    inner = mark.eye_x + 0.1 - wide
    bridge = np.linspace(-inner, inner, 7)
    lines.append(np.stack([bridge, -0.35 - 0.1 * np.cos(bridge), np.full(7, front + 0.1)], axis=1))
    thick = rng.randint(2, 5) * view.side // 224
    for line in lines:
        _draw_visible(canvas_HWC, view, line, colour, max(1, thick))


def _draw_visible(canvas_HWC, view, line_N3, colour, thick):
    """A line in the head's frame, without the parts that lie behind the head."""
    pixels_N3 = view.project(line_N3)
    inside = np.clip(pixels_N3[:, :2].astype(int), 0, view.side - 1)
    shown_N = pixels_N3[:, 2] > view.depth_HW[inside[:, 1], inside[:, 0]] - 0.4
    corners_N = [tuple(int(v) for v in row) for row in np.round(pixels_N3[:, :2] * PLACES)]
    for i in range(len(line_N3) - 1):
        if shown_N[i] and shown_N[i + 1]:
            cv2.line(canvas_HWC, corners_N[i], corners_N[i + 1], colour, thick, cv2.LINE_AA, 4)


def _draw_hand(canvas_HWC, skin, rng):
    """Fingers that reach into the picture from below, at one cheek or before the chin."""
    side = len(canvas_HWC)
    skin = np.array(skin) * rng.uniform(0.75, 1.0)
    thick = int(side * rng.uniform(0.06, 0.085))
    root = np.array([rng.choice((0.12, 0.2, 0.5, 0.8, 0.88)), 1.05]) * side
    lean = rng.uniform(-0.5, 0.5)
    for finger in range(4):
        start = root + np.array([(finger - 1.5) * thick * 1.02, 0.0])
        length = side * rng.uniform(0.26, 0.3) * (1.0, 1.15, 1.1, 0.85)[finger]
        end = start + length * np.array([lean, -1.0])
        ends = [tuple(int(v) for v in start), tuple(int(v) for v in end)]
        cv2.line(canvas_HWC, ends[0], ends[1], skin * 0.55, thick + 2, cv2.LINE_AA)
        cv2.line(canvas_HWC, ends[0], ends[1], skin, thick - 1, cv2.LINE_AA)
        nail = end - (0, 0.01 * side)
        cv2.circle(canvas_HWC, tuple(int(v) for v in nail), thick // 4, skin * 1.1, -1, cv2.LINE_AA)


def _photograph(canvas_HWC, image_size, shot, rng):
    """What the camera adds: exposure, colour cast, blur, few pixels, noise."""
    image = cv2.resize(canvas_HWC, (image_size,) * 2, interpolation=cv2.INTER_AREA)
    image = image.astype(np.float32)
    if rng.uniform() < 0.12:
        small = int(image_size * rng.uniform(0.35, 0.7))
        image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (image_size,) * 2, interpolation=cv2.INTER_LINEAR)
    image = cv2.GaussianBlur(image, (0, 0), 0.25 + 0.9 * rng.uniform() ** 2 * image_size / 112)
    if rng.uniform() < 0.06:
        image[:] = image.mean(axis=2, keepdims=True)
    gain, bend = rng.uniform(0.8, 1.25), rng.uniform(0.8, 1.25)
    image = 255.0 * np.clip(image / 255.0 * gain * np.array(shot.tint), 0, 1) ** bend
    noise = rng.normal(0.0, rng.uniform(0.5, 5.5), size=image.shape[:2])[:, :, None]
    return np.clip(np.round(image + noise), 0, 255).astype(np.uint8)
