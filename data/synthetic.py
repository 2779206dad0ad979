"""A data set of drawn people, to try the pipeline on: written as InsightFace writes real ones.

`python data/synthetic.py --output_path datasets/demo` makes train.rec, train.idx, property, lfw.bin
(frontal pairs) and cfp_fp.bin (frontal-profile pairs). The pairs' people are not in train.rec.
Every image is a function of (--seed, person, shot), so the workers' number changes no byte.
"""

import os
import sys

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import dataclasses  # noqa: E402
import functools  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import multiprocessing  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import time  # noqa: E402
from typing import Any, Callable, Dict, List, Optional, Tuple  # noqa: E402

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from data.eval_data_reader import write_pairs  # noqa: E402
from data.formats import recordio  # noqa: E402
from data.synthetic_faces.head import draw_identity  # noqa: E402
from data.synthetic_faces.portrait import Portrait, draw_shot  # noqa: E402
from runtime.cli import run  # noqa: E402
from runtime.files import atomic_write  # noqa: E402
from runtime.flags import flag, parse_flags  # noqa: E402

FOLDS = 10
RECIPE = (
    "synthetic.json"  # what the set was made from; written last, so a set without it is not whole
)
DRAWING = 1  # raised when the same flags would draw other faces
LFW, CFP_FP = "lfw.bin", "cfp_fp.bin"
VIEWS = {LFW: ("frontal", "frontal"), CFP_FP: ("frontal", "profile")}
JPEG_QUALITY = (70, 96)
ENROLLED = ("Ada", "Bao", "Chidi", "Dana", "Eun", "Farid", "Greta", "Hugo")  # of --people_path
NOT_ENROLLED = ("unknown_1", "unknown_2")
ENROLLED_SHOTS = 3
FIRST_ENROLLED = 2_000_000  # the number of the first of them
FIRST_UNSEEN = 1_000_000  # the number of the first evaluation person, beyond training's


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
    output_path: str = flag(dataclasses.MISSING, "directory that the data set will be", "output")
    contact_sheet: Optional[str] = flag(
        None, "also write a picture of the first people, a row each (.png or .jpg)", "output"
    )
    people_path: Optional[str] = flag(
        None, "also write photographs for a face bank: enrolled/<name>/ and photos/", "output"
    )
    identities: int = flag(300, "people in train.rec", "data set", low=2, high=10**6)
    images_per_identity: int = flag(20, "images of each of them", "data set", low=1)
    eval_pairs: int = flag(
        600, "pairs in each verification set; a multiple of 20", "data set", low=20
    )
    image_size: int = flag(112, "height and width in pixels", "data set", low=32, high=512)
    seed: int = flag(0, "another seed draws other people", "data set", low=0, high=2**31 - 1)
    workers: Optional[int] = flag(None, "processes; default: one a core", "speed", low=1)


def main(argv: Optional[List[str]] = None) -> None:
    config = parse_flags(SyntheticConfig, argv, description=__doc__.split("\n")[0])
    if config.eval_pairs % (2 * FOLDS):
        raise ValueError(
            f"--eval_pairs {config.eval_pairs} does not split into {FOLDS} folds of as many "
            f"same as different pairs; pass a multiple of {2 * FOLDS}."
        )
    recipe = recipe_of(config)
    if is_finished(config.output_path, recipe):
        print(f"{config.output_path} is already this data set; nothing to do.")
    else:
        write_dataset(config, recipe)
        print(
            f"{config.output_path}: {config.identities} drawn people, "
            f"{config.identities * config.images_per_identity} images; {LFW} and {CFP_FP}: "
            f"{config.eval_pairs} pairs each, of other people."
        )
    if config.people_path:
        write_people(config.people_path, config.seed, config.image_size)
    if config.contact_sheet:
        write_contact_sheet(config.contact_sheet, config.seed, config.image_size)


def recipe_of(config: SyntheticConfig) -> Dict[str, Any]:
    """All that decides the data set's bytes on one platform."""
    names = ("identities", "images_per_identity", "eval_pairs", "image_size", "seed")
    return dict(synthetic=True, drawing=DRAWING, **{name: getattr(config, name) for name in names})


def is_finished(path: str, recipe: Dict[str, Any]) -> bool:
    """Whether path holds the data set of this recipe; a ValueError if it holds anything else."""
    if not os.path.exists(path) or (os.path.isdir(path) and not os.listdir(path)):
        return False
    try:
        with open(os.path.join(path, RECIPE), encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError):
        raise ValueError(
            f"{path} exists and is not a data set that this script made; choose another "
            "--output_path or move it away."
        ) from None
    if found != recipe:
        other = [f"{name} {found.get(name)}" for name in recipe if found.get(name) != recipe[name]]
        raise ValueError(
            f"{path} holds another synthetic data set ({', '.join(other)}); choose another "
            "--output_path or remove it."
        )
    return True


def write_dataset(config: SyntheticConfig, recipe: Dict[str, Any]) -> None:
    """Draws into a directory of another name, and moves it there when it is whole."""
    partial = config.output_path.rstrip("/\\") + ".incomplete"
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial)
    try:
        with _pool(config.workers) as draw_all:
            write_train(partial, config, draw_all)
            write_evaluation(partial, config, draw_all)
        with open(os.path.join(partial, RECIPE), "w", encoding="utf-8") as stream:
            json.dump(recipe, stream, indent=1)
        if os.path.isdir(config.output_path):
            os.rmdir(config.output_path)  # is_finished found it empty
        os.rename(partial, config.output_path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


class _pool:  # noqa: N801
    """`with _pool(workers) as draw_all`: draw_all(function, jobs) yields results in order."""

    def __init__(self, workers):
        self.workers = workers or os.cpu_count() or 1
        self.pool = None

    def __enter__(self):
        if self.workers == 1:
            return map
        fresh = multiprocessing.get_context("spawn")  # a fork would hang in OpenCV's threads
        self.pool = fresh.Pool(self.workers, initializer=_start_worker)
        return self.pool.imap

    def __exit__(self, *error):
        if self.pool:
            self.pool.terminate()
            self.pool.join()


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this one
    cv2.setNumThreads(1)


def write_train(path: str, config: SyntheticConfig, draw_all: Callable[..., Any]) -> None:
    """train.rec, train.idx and property, in the order of InsightFace's own: the header last."""
    people, each = config.identities, config.images_per_identity
    jobs = [(config.seed, person, ("any",) * each, config.image_size) for person in range(people)]
    rec, idx = os.path.join(path, "train.rec"), os.path.join(path, "train.idx")
    images = people * each
    with recordio.RecordWriter(rec, idx) as writer, _bar("train.rec", images) as bar:
        for person, encoded in enumerate(draw_all(draw_person, jobs)):
            for i, image in enumerate(encoded):
                key = 1 + person * each + i
                writer.write(key, recordio.pack_image(person, image, key))
            bar.update(each)
        for person in range(people):
            key = images + 1 + person
            start = 1 + person * each
            writer.write(key, recordio.pack_header((start, start + each), key))
        writer.write(0, recordio.pack_header((images + 1, images + 1 + people), 0, id2=1))
    recordio.write_property(os.path.join(path, "property"), people, (config.image_size,) * 2)


def write_evaluation(path: str, config: SyntheticConfig, draw_all: Callable[..., Any]) -> None:
    """lfw.bin and cfp_fp.bin: the same new people, other photographs."""
    pairs, issame = plan_pairs(config.eval_pairs)
    views = {}  # of each person, in the order in which the pairs take them
    for name, (left, right) in itertools.product(VIEWS, pairs):
        views.setdefault(left, []).append(VIEWS[name][0])
        views.setdefault(right, []).append(VIEWS[name][1])
    jobs = [
        (config.seed, FIRST_UNSEEN + person, tuple(views[person]), config.image_size)
        for person in sorted(views)
    ]
    drawn = {}
    with _bar(" + ".join(VIEWS), 4 * len(pairs)) as bar:
        for person, encoded in zip(sorted(views), draw_all(draw_person, jobs)):
            drawn[person] = iter(encoded)
            bar.update(len(encoded))
    for name in VIEWS:
        encoded = [next(drawn[person]) for pair in pairs for person in pair]
        write_pairs(os.path.join(path, name), encoded, issame)


def write_people(path: str, seed: int, image_size: int) -> None:
    """Photographs of people who are in no other file of the set: `enrolled/<name>/` has three of
    each of ENROLLED; `photos/` has another of each, and one of each of NOT_ENROLLED."""
    for number, name in enumerate(ENROLLED + NOT_ENROLLED):
        job = (seed, FIRST_ENROLLED + number, ("frontal",) * (ENROLLED_SHOTS + 1), image_size)
        *enrolled, photo = draw_person(job)
        files = {os.path.join("photos", f"{name}.jpg"): photo}
        if name in ENROLLED:
            for shot, image in enumerate(enrolled):
                files[os.path.join("enrolled", name, f"{shot}.jpg")] = image
        for file, image in files.items():
            file = os.path.join(path, file)
            os.makedirs(os.path.dirname(file), exist_ok=True)
            with atomic_write(file, "wb") as stream:
                stream.write(image)


def plan_pairs(count: int) -> Tuple[List[Tuple[int, int]], List[bool]]:
    """[(person, person)] and [same?]; each tenth has people of its own, half of its pairs same."""
    pairs, issame = [], []
    half = count // FOLDS // 2
    people = max(2, half)
    for fold in range(FOLDS):
        first = fold * people
        pairs += [(first + i, first + i) for i in range(half)]
        pairs += [(first + i, first + (i + 1 + fold % (people - 1)) % people) for i in range(half)]
        issame += [True] * half + [False] * half
    return pairs, issame


def draw_person(job: Tuple[int, int, Tuple[str, ...], int]) -> List[bytes]:
    """(seed, person, a view per image, image size) -> the JPEG bytes of each image."""
    seed, person, views, image_size = job
    portrait = Portrait(draw_identity(np.random.RandomState([seed, person])), image_size)
    encoded = []
    for number, view in enumerate(views):
        rng = np.random.RandomState([seed, person, number])
        image = portrait.take(draw_shot(rng, view))
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.randint(*JPEG_QUALITY))]
        encoded.append(cv2.imencode(".jpg", image[:, :, ::-1], quality)[1].tobytes())
    return encoded


def write_contact_sheet(
    path: str, seed: int, image_size: int, rows: int = 8, columns: int = 10
) -> None:
    """A picture of the first people of the training set: a row each."""
    draw = functools.partial(cv2.imdecode, flags=cv2.IMREAD_COLOR)
    grid = []
    for person in range(rows):
        encoded = draw_person((seed, person, ("any",) * columns, image_size))
        grid.append(np.hstack([draw(np.frombuffer(image, np.uint8)) for image in encoded]))
    try:
        written = cv2.imwrite(path, np.vstack(grid), [cv2.IMWRITE_JPEG_QUALITY, 85])
    except cv2.error:
        written = False
    if not written:
        raise ValueError(
            f"--contact_sheet {path} cannot be written; give a name that ends in .png or .jpg, in "
            "a directory that exists."
        )


def _bar(name: str, images: int) -> Any:
    """A progress bar on a terminal, a log line per tenth elsewhere: drawing takes minutes."""
    if sys.stderr.isatty():
        return tqdm(total=images, desc=name, unit=" images")
    return _LoggedProgress(name, images)


class _LoggedProgress:
    def __init__(self, name, images):
        self.name, self.images, self.done, self.began = name, images, 0, time.time()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, count):
        tenth = 10 * self.done // self.images
        self.done += count
        if 10 * self.done // self.images > tenth:
            seconds = time.time() - self.began
            logging.info("%s: %d/%d images, %.0f s", self.name, self.done, self.images, seconds)


if __name__ == "__main__":
    run(main)
