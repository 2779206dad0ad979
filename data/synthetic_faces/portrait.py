"""Draws one photograph of a drawn person: poses and dresses them, puts things before the face,
and spoils the picture as cameras do. uint8 [H, W, 3] RGB out, at twice the size until the end.
"""

import dataclasses

import cv2
import numpy as np

from data.synthetic_faces import head
from data.synthetic_faces.skin import PLACES, Skin, blend_polygon, muted
from data.synthetic_faces.view import View


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


def draw_shot(rng: np.random.RandomState, view: str = "any") -> Shot:
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

    def __init__(self, person: head.Identity, image_size: int = 112) -> None:
        self.person, self.image_size = person, image_size
        self.skin = Skin(person)

    def take(self, shot: Shot) -> np.ndarray:
        """Shot -> uint8 [image_size, image_size, 3] RGB."""
        rng = np.random.RandomState(shot.seed)
        skin_HWC = self.skin.bare_HWC.copy()
        thickness_VU = self.skin.dress(skin_HWC, shot.occluder, rng)
        self.skin.paint_features(skin_HWC, shot.expression)
        points_VU3 = head.surface(self.person, shot.expression, thickness_VU)
        view = View(self.skin, self.image_size, shot, points_VU3, rng)
        canvas_HWC = _background(view.side, rng)
        view.render(canvas_HWC, skin_HWC)
        if shot.occluder in ("glasses", "sunglasses"):
            _draw_glasses(canvas_HWC, view, dark=shot.occluder == "sunglasses", rng=rng)
        if shot.occluder == "hand":
            _draw_hand(canvas_HWC, self.person.skin, rng)
        return _photograph(canvas_HWC, self.image_size, shot, rng)


def _background(side, rng):
    """Blurred patches of muted colours: uint8 [side, side, 3]."""
    small = 28
    patch = np.empty((small, small, 3), np.float32)
    patch[:] = muted(rng)
    ramp = np.linspace(-1, 1, small)
    patch += (rng.uniform(-40, 40) * ramp[:, None] + rng.uniform(-40, 40) * ramp[None])[..., None]
    for _ in range(rng.randint(0, 7)):
        (x, y), (w, h) = rng.randint(0, small, size=2), rng.randint(3, 16, size=2)
        patch[y : y + h, x : x + w] = muted(rng)
    patch = cv2.GaussianBlur(patch, (0, 0), rng.uniform(0.6, 2.5))
    return np.clip(cv2.resize(patch, (side, side)), 0, 255).astype(np.uint8)


def _draw_glasses(canvas_HWC, view, dark, rng):
    mark = head.landmarks(view.skin.person)
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
            blend_polygon(canvas_HWC, pixels, shade, opacity)
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
