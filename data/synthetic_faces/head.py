"""Who a drawn person is: a seeded set of proportions, and the head they make in three dimensions.

Units are centimetres in the head's own frame: the origin lies on the head's axis at eye height,
x to the viewer's right, y down, z towards the viewer when the head looks straight ahead. The
surface is a tube around the y axis, r(row, column): V rows from crown to collar, U columns of
angle, 0 = the tip of the nose. Places on it are (x, y) with x an arc length at radius ARC.
"""

import dataclasses
from typing import Any, Tuple

import cv2
import numpy as np

ROWS, COLUMNS = 144, 128  # the geometry's grid, V x U
ARC = 9.3  # x = ARC * angle
CAP_ROWS = 48  # rows above EQUATOR; there the tube closes like a sphere
EQUATOR, COLLAR = -3.5, 17.0  # y of the widest row, and of the last

_turn = np.linspace(-1.12, 1.12, COLUMNS)
ANGLES = (np.pi * (0.55 * _turn + 0.45 * _turn**3)).astype(np.float32)  # denser towards the face

SKINS = ((244, 212, 190), (228, 184, 154), (206, 156, 122), (172, 120, 88), (124, 82, 60))
HAIRS = ((28, 24, 24), (58, 40, 30), (96, 64, 42), (146, 102, 62), (196, 158, 104), (150, 146, 142))
IRISES = ((70, 44, 28), (104, 70, 38), (96, 104, 62), (76, 104, 128), (104, 120, 124))
STYLES = ("bald", "cropped", "short", "parted", "fringe", "bob", "long", "curly", "bun")
STYLE_SHARES = (0.06, 0.12, 0.16, 0.14, 0.12, 0.12, 0.12, 0.08, 0.08)
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
BEARD_SHARES = (0.56, 0.12, 0.12, 0.08, 0.12)


@dataclasses.dataclass(frozen=True)
class Identity:
    """Proportions of one drawn person; a shape is 0 +- 1, so 0 everywhere is the mean face."""

    shape: dict
    skin: tuple
    hair: tuple
    iris: tuple
    style: str
    beard: str
    moles: tuple  # (x, y, radius) each
    freckles: float
    seed: int  # of the strands of the hair and the grain of the skin

    def __getitem__(self, name):
        return self.shape[name]


SPREAD = 1.25  # of the proportions; more makes caricatures, less makes siblings
SHAPES = (
    "head_width head_height head_depth squareness cheek_width cheek_bone jaw_width jaw_drop "
    "chin_length chin_width chin_forward brow_ridge eye_spacing eye_width eye_height eye_slant "
    "eye_depth lid_fold iris_size brow_height brow_thickness brow_arch brow_slant brow_length "
    "nose_length nose_width nose_bridge nose_forward nose_tip nose_hump mouth_width upper_lip "
    "lower_lip mouth_height cupid ear_size ear_angle hairline temple hair_volume parting age"
).split()


def draw_identity(rng: np.random.RandomState) -> Identity:
    """numpy RandomState -> Identity. Colours come from natural ranges, shared by many people."""
    shape = {name: SPREAD * float(np.clip(rng.normal(), -2.0, 2.0)) for name in SHAPES}
    style, beard = rng.choice(STYLES, p=STYLE_SHARES), rng.choice(BEARDS, p=BEARD_SHARES)
    if style in ("bob", "long", "bun"):
        beard = "none"
    moles = tuple(
        (rng.uniform(-5.0, 5.0), rng.uniform(1.5, 10.0), rng.uniform(0.16, 0.3))
        for _ in range(rng.choice(4, p=(0.45, 0.3, 0.15, 0.1)))
    )
    dark = rng.uniform(0.15, 0.9)
    return Identity(
        shape=shape,
        skin=_between(SKINS, dark),
        hair=_between(HAIRS, rng.beta(1.0, 1.6) * (1.0 - 0.8 * max(0.0, dark - 0.35))),
        iris=_between(IRISES, rng.beta(1.0, 1.5) * (1.0 - 0.8 * max(0.0, dark - 0.35))),
        style=str(style),
        beard=str(beard),
        moles=moles,
        freckles=float(max(0.0, rng.uniform(-1.0, 1.0))),
        seed=int(rng.randint(2**31 - 1)),
    )


def _between(colours, place):
    """The colour at `place` in [0, 1] along a list of colours."""
    at = place * (len(colours) - 1)
    return tuple(np.interp(at, range(len(colours)), channel) for channel in zip(*colours))


@dataclasses.dataclass(frozen=True)
class Expression:
    """What a face does for one image; 0 = at rest. eyes: 1 = open, 0 = closed."""

    smile: float = 0.0
    open: float = 0.0
    brows: float = 0.0
    eyes: float = 1.0
    gaze: tuple = (0.0, 0.0)


AT_REST = Expression()


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """Where a person's features sit, in surface places (centimetres)."""

    eye_x: float
    nose_y: float  # the tip
    mouth_y: float
    mouth_x: float  # half the width
    chin_y: float


def landmarks(person: Identity, expression: Any = AT_REST) -> Any:
    return Landmarks(
        eye_x=3.15 + 0.24 * person["eye_spacing"],
        nose_y=4.1 + 0.38 * person["nose_length"],
        mouth_y=7.0 + 0.3 * person["mouth_height"] + 0.2 * person["nose_length"],
        mouth_x=2.45 + 0.3 * person["mouth_width"] + 0.45 * expression.smile,
        chin_y=11.4 + 0.55 * person["chin_length"] + 0.7 * expression.open,
    )


def heights(person: Identity) -> Tuple[np.ndarray, np.ndarray]:
    """y of each row [V], and its share of the full radius [V]: 0 at the crown, 1 below the cap."""
    turn = np.linspace(0.04, np.pi / 2, CAP_ROWS)
    crown = 9.2 + 0.55 * person["head_height"]
    cap = EQUATOR - crown * np.cos(turn)
    tube = np.linspace(EQUATOR, COLLAR, ROWS - CAP_ROWS + 1)[1:]
    sines = np.concatenate([np.sin(turn), np.ones(len(tube))])
    return np.concatenate([cap, tube]).astype(np.float32), sines.astype(np.float32)


def surface(person: Identity, expression: Any, thickness_VU: np.ndarray) -> np.ndarray:
    """The head of one image: float32 [V, U, 3] points. thickness_VU: hair and cloth upon it."""
    y_V, sine_V = heights(person)
    mark = landmarks(person, expression)
    radius_VU = _skull(person, mark, y_V, sine_V) + _features(person, expression, mark, y_V)
    cosine_V = np.sqrt(np.maximum(0.0, 1.0 - sine_V**2))
    radius_VU = radius_VU + thickness_VU * sine_V[:, None]
    y_VU = y_V[:, None] - thickness_VU * cosine_V[:, None]
    x_VU, z_VU = radius_VU * np.sin(ANGLES), radius_VU * np.cos(ANGLES)
    return np.stack([x_VU, y_VU, z_VU], axis=-1).astype(np.float32)


def _skull(person, mark, y_V, sine_V):
    """Radius of skull, jaw and neck, without the face's features: [V, U]."""
    chin, jaw = mark.chin_y, mark.chin_y - 4.6 + 0.5 * person["jaw_drop"]
    wide = 7.5 + 0.32 * person["head_width"]
    knots = (EQUATOR, 0.0, 3.0, jaw, chin - 1.6, chin, chin + 1.2)
    width_V = _smooth_curve(
        y_V,
        knots,
        (
            wide,
            wide - 0.1,
            wide - 0.25 + 0.35 * person["cheek_width"],
            wide - 1.1 + 0.5 * person["jaw_width"],
            4.3 + 0.45 * person["chin_width"] + 0.3 * person["jaw_width"],
            2.6 + 0.4 * person["chin_width"],
            0.6,
        ),
    )
    front_V = _smooth_curve(
        y_V,
        knots,
        (9.6, 9.2, 9.0, 8.9, 8.8, 8.3 + 0.35 * person["chin_forward"], 1.0),
    )
    back_V = _smooth_curve(
        y_V, knots, (10.0 + 0.4 * person["head_depth"], 9.8, 8.6, 6.5, 5.0, 3.0, 1.0)
    )
    power = 2.25 + 0.13 * person["squareness"]
    head_VU = _oval(width_V * sine_V, front_V * sine_V, back_V * sine_V, power)
    flare_V = np.maximum(0.0, y_V - 14.2) ** 1.3 * 2.2
    below_V = np.clip((y_V - 3.0) / 2.0, 0.0, 1.0)
    neck_VU = _oval(5.0 * below_V + flare_V + 0.01, 3.6 * below_V + 0.3 * flare_V + 0.01, 6.5, 2.0)
    return np.maximum(head_VU, neck_VU)


def _oval(width_V, front_V, back_V, power):
    sine_U, cosine_U = np.sin(ANGLES), np.cos(ANGLES)
    width_V, front_V, back_V = (
        np.atleast_1d(v).astype(np.float32)[:, None] for v in (width_V, front_V, back_V)
    )
    depth_VU = np.where(cosine_U > 0, front_V, back_V)
    return (np.abs(sine_U / width_V) ** power + np.abs(cosine_U / depth_VU) ** power) ** (
        -1.0 / power
    )


def _smooth_curve(y_V, knots, values):
    """A curve through (knots, values) with rounded corners, at each row."""
    fine = np.linspace(EQUATOR - 3.0, COLLAR + 3.0, 300)
    line = np.interp(fine, knots, values).astype(np.float32)
    return np.interp(y_V, fine, cv2.GaussianBlur(line[None], (0, 0), 6.0)[0])


def _features(person, expression, mark, y_V):
    """What brow, eyes, nose, cheeks, lips, chin and ears add to the radius: [V, U]."""
    x_U = ANGLES * ARC
    rows_BV, sides_BU = [], []  # a bump is one row profile times one profile around the head

    def bump(x, y, wide, tall, height, power=2.0):
        rows_BV.append(height * np.exp(-(np.abs((y_V - y) / tall) ** power)))
        both_U = np.exp(-(np.abs((x_U - x) / wide) ** power))
        if x:
            both_U = both_U + np.exp(-(np.abs((x_U + x) / wide) ** power))
        sides_BU.append(both_U)

    lips_y, smile = mark.mouth_y, expression.smile
    bump(3.0, -1.9, 2.4, 0.9, 0.3 + 0.14 * person["brow_ridge"])
    bump(mark.eye_x, 0.1, 1.7, 1.1, -0.75 - 0.15 * person["eye_depth"])
    bump(mark.eye_x, 0.1, 0.95, 0.7, 0.4)
    bump(4.6, 3.1 - 0.3 * smile, 1.7, 1.5, 0.35 + 0.22 * person["cheek_bone"] + 0.25 * smile)
    bump(0.0, lips_y, 2.8, 1.9, 0.6)
    bump(0.0, lips_y - 0.45, 1.9, 0.4, 0.32 + 0.1 * person["upper_lip"])
    bump(0.0, lips_y + 0.65, 1.7, 0.45, 0.36 + 0.1 * person["lower_lip"])
    bump(0.0, lips_y + 0.05, mark.mouth_x, 0.2, -0.3)
    bump(0.0, lips_y + 1.75, 1.8, 0.5, -0.35)
    bump(0.0, mark.chin_y - 1.2, 1.5 + 0.2 * person["chin_width"], 0.9, 0.5)
    bump(mark.eye_x + 0.2, -3.4, 3.0, 1.8, 0.12)
    ear = 1.0 + 0.14 * person["ear_size"]
    bump(ARC * 1.68, 1.2, 0.95, 2.7 * ear, (1.35 + 0.4 * person["ear_angle"]) * ear, power=3.5)
    bump(ARC * 1.66, 0.9, 0.4, 1.5 * ear, -0.8)
    bumps_VU = np.array(rows_BV, np.float32).T @ np.array(sides_BU, np.float32)
    return bumps_VU + _nose(person, mark, y_V, x_U)


def _nose(person, mark, y_V, x_U):
    tip, length = mark.nose_y, mark.nose_y + 0.8
    along_V = np.clip((y_V + 0.8) / length, 0.0, 1.0)  # 0 at the root, 1 at the tip
    rise = 2.3 + 0.35 * person["nose_forward"]
    ridge_V = 0.25 + (rise - 0.25) * along_V ** (1.15 + 0.12 * person["nose_tip"])
    ridge_V += 0.32 * (0.4 + person["nose_hump"]) * np.exp(-(((along_V - 0.45) / 0.22) ** 2))
    drop = 0.75 - 0.15 * person["nose_tip"]
    under_V = 1.0 / (1.0 + np.exp((y_V - tip - drop) / 0.16))
    above_V = 1.0 / (1.0 + np.exp((-1.3 - y_V) / 0.35))
    width_V = (
        0.62 + 0.14 * person["nose_bridge"] + (0.42 + 0.14 * person["nose_width"]) * along_V**2
    )
    nose_VU = (ridge_V * under_V * above_V)[:, None] * np.exp(
        -((x_U[None] / width_V[:, None]) ** 2)
    )
    wing = 1.32 + 0.26 * person["nose_width"]
    wings_VU = np.exp(-(((y_V - tip - 0.15) / 0.62) ** 2))[:, None] * (
        np.exp(-(((x_U - wing) / 0.55) ** 2)) + np.exp(-(((x_U + wing) / 0.55) ** 2))
    )
    return nose_VU + (0.75 + 0.12 * person["nose_width"]) * wings_VU


def hairline(person: Identity, x_U: np.ndarray) -> np.ndarray:
    """y above which there is hair, at each place around the head: [U]; above the crown = none."""
    side_U = np.abs(x_U)
    style = person.style
    front = -6.3 - 0.7 * person["hairline"]
    nape = {"cropped": 6.0, "short": 7.0, "bob": 11.0, "long": 18.0}.get(style, 8.0)
    temple = -5.6 - 1.1 * max(0.0, person["temple"])
    edge = {"bob": 10.5 + 0.8 * person["hair_volume"], "long": 18.0}.get(style)
    knots: Tuple[float, ...]
    values: Tuple[float, ...]
    if style == "bald":
        knots, values = (0, 9, 12.5, 16, 19), (-30, -30, -2, 3, nape)
    elif edge is not None:
        opening = 6.4 + 0.5 * person["temple"]
        knots, values = (0, 4.0, opening, opening + 1.6, 19), (front, front + 0.4, -1, edge, edge)
    else:
        knots = (0, 3.2, 5.6, 8.0, 11.5, 13.5, 14.2, 17.5, 19)
        values = (front, front + 0.3, temple, -3.0, -1.5, 2.6, -0.5, 4.0, nape)
    line_U = np.interp(side_U, knots, values)
    if style == "fringe":
        line_U = np.where(side_U < 6.8, np.maximum(line_U, -2.9 - 0.5 * person["hairline"]), line_U)
    if style == "parted":
        away_U = (x_U - 3.0 * np.sign(person["parting"])) * -np.sign(person["parting"])
        line_U = line_U + np.where(side_U < 7, 0.32 * np.clip(away_U, 0, 6) - 0.5, 0.0)
    if style in ("short", "cropped") and person["cupid"] > 0:
        line_U = line_U + 1.1 * np.exp(-((x_U / 1.1) ** 2))
    return line_U


def hair(person: Identity) -> Tuple[np.ndarray, np.ndarray]:
    """(thickness in centimetres, hair's share of the colour): float32 [V, U] each."""
    y_V, _ = heights(person)
    x_U = ANGLES * ARC
    inside_VU = hairline(person, x_U)[None] - y_V[:, None]
    share_VU = np.clip(inside_VU / 0.5 + 0.5, 0.0, 1.0)
    volume = {"bald": 0.1, "cropped": 0.3, "curly": 1.7, "long": 1.0, "bob": 1.2}.get(
        person.style, 0.75
    ) * (1.0 + 0.22 * person["hair_volume"])
    rise_VU = np.clip(inside_VU / 1.6, 0.0, 1.0) ** 0.6
    if person.style in ("bob", "long"):  # it hangs from the head's widest place
        hang_V = np.clip(y_V - 2.0, 0.0, 5.0) * 0.42
        volume = volume + hang_V[:, None]
    thickness_VU = volume * rise_VU * share_VU
    thickness_VU = cv2.GaussianBlur(thickness_VU, (0, 0), sigmaX=2.0, sigmaY=0.5)
    grain = np.random.RandomState(person.seed).normal(size=(ROWS, COLUMNS)).astype(np.float32)
    if person.style == "curly":
        lumps_VU = cv2.GaussianBlur(grain, (0, 0), 2.2)
        thickness_VU = thickness_VU * (1.0 + 0.28 * np.clip(lumps_VU / lumps_VU.std(), -2, 2))
    if person.style == "bun":
        thickness_VU = thickness_VU + 2.6 * np.exp(-(((y_V + 12.6) / 1.2) ** 2))[:, None]
    if person.style in ("bob", "long"):  # the curtain's edge is hair too
        share_VU = np.maximum(share_VU, np.clip(thickness_VU / 0.4, 0.0, 1.0))
    return thickness_VU.astype(np.float32), share_VU.astype(np.float32)
