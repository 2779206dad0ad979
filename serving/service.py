"""What the REST API does, without HTTP: bytes and numbers in, dictionaries out."""

import threading
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from faces.cropping import crop_face, detect_faces
from faces.photo import PhotoError, read_photo
from serving.face_bank import NewSample, Person
from serving.identification import identify
from serving.index import Index
from serving.person_names import checked_name
from serving.recognizer import EmbeddedPhoto, Recognizer
from serving.thresholds import Calibration, Threshold

MAX_TOP = 100


class RequestError(Exception):
    """A request that is refused, with HTTP's status and a fixed word for programs."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Service:
    """A bank, a model and a threshold. Every method may be called from several threads."""

    def __init__(
        self,
        index: Index,
        recognizer: Recognizer,
        threshold: Threshold,
        calibration: Optional[Calibration],
        runs: int = 2,
    ) -> None:
        """runs: photos that are decoded and embedded at the same time, which bounds memory."""
        self._bank, self._index, self._recognizer = index.bank, index, recognizer
        self._threshold, self._calibration = threshold, calibration
        self._runs = threading.BoundedSemaphore(runs)
        self._enrolment = threading.Lock()  # between the check for similar people and the insert

    def health(self) -> Dict[str, Any]:
        """State of the server."""
        people, samples = self._bank.counts()
        height, width = self._recognizer.image_size
        return {
            "status": "ok",
            "people": people,
            "samples": samples,
            "model": self._bank.contract._asdict(),
            "image_size": [height, width],
            "detector": self._recognizer.detector is not None,
            "threshold": self._threshold.describe(max(1, samples)),
        }

    def calibration(self) -> Dict[str, Any]:
        """Histogram of the calibration's pairs, for the page."""
        threshold = self._threshold.describe(max(1, self._index.samples))
        if self._calibration is None:
            return {"name": None, "histogram": None, "threshold": threshold}
        return {
            "name": self._calibration.name,
            "histogram": self._calibration.histogram(),
            "threshold": threshold,
        }

    def detect(self, encoded: bytes) -> Dict[str, Any]:
        """The faces of a photo."""
        with self._runs:
            image_HWC = read_photo(encoded)
            recognizer = self._recognizer
            faces = detect_faces(image_HWC, recognizer.detector, recognizer.image_size)
            return {
                "width": image_HWC.shape[1],
                "height": image_HWC.shape[0],
                "faces": [
                    {
                        "box": [face.x, face.y, face.width, face.height],
                        "landmarks": face.points_52.tolist(),
                        "score": face.score,
                        "problem": _problem(image_HWC, face, recognizer.image_size),
                    }
                    for face in faces
                ],
            }

    def embed(self, encoded: bytes) -> Dict[str, Any]:
        """The unit embedding of a photo's face."""
        photo = self._embed(encoded)
        return {"embedding": [float(x) for x in photo.unit_D], "quality": photo.crop.quality}

    def verify(self, first: bytes, second: bytes) -> Dict[str, Any]:
        """Whether two photos show one person."""
        photos = [
            self._embed(encoded, f"the {which} photo ")
            for encoded, which in ((first, "first"), (second, "second"))
        ]
        cosine = float(np.clip(photos[0].unit_D @ photos[1].unit_D, -1, 1))
        return {
            "same": cosine >= self._threshold.cosine,
            "cosine": cosine,
            "squared_l2": 2 - 2 * cosine,
            "threshold": self._threshold.describe(1),
        }

    def identify(self, encoded: bytes, top: int = 5) -> Dict[str, Any]:
        """Who of the bank is on a photo, or "unknown"."""
        photo = self._embed(encoded)
        (answer,) = identify(self._index, photo.unit_D[None], self._threshold, top)
        return dict(answer.to_dict(), quality=photo.crop.quality)

    def persons(self) -> Dict[str, Any]:
        """Everyone in the bank."""
        return {"persons": [person._asdict() for person in self._bank.persons()]}

    def enrol(self, name: str, photos: Sequence[bytes], confirm: bool = False) -> Dict[str, Any]:
        """Adds photos to the person of a name, who is created where there is none.

        Without `confirm`, refuses photos that resemble another person, or do not resemble the
        person who has the name already."""
        try:
            name = checked_name(name)
        except ValueError as error:
            raise RequestError(400, "bad_name", str(error)) from None
        if not photos:
            raise RequestError(400, "no_photo", "Give at least one photo.")
        embedded = [self._embed(photo, f"photo {i + 1} ") for i, photo in enumerate(photos)]
        with self._enrolment:
            if not confirm:
                self._check_resemblance(name, embedded)
            added = self._bank.add(
                [
                    NewSample(name, photo.unit_D, photo.source_digest, photo.crop.quality)
                    for photo in embedded
                ]
            )
        person = self._bank.person(name)
        return {"person": person and person._asdict(), "added": added}

    def samples(self, person_id: int) -> Dict[str, Any]:
        """A person's samples."""
        person = self._person(person_id)
        samples = [sample._asdict() for sample in self._bank.samples(person.id)]
        return {"person": person._asdict(), "samples": samples}

    def add_sample(self, person_id: int, encoded: bytes, confirm: bool = False) -> Dict[str, Any]:
        """Adds one photo to a person."""
        return self.enrol(self._person(person_id).name, [encoded], confirm)

    def erase(self, person_id: int) -> Dict[str, Any]:
        """Erases a person from every file of the bank."""
        person = self._bank.erase(self._person(person_id).name)
        return {"erased": person._asdict()}

    def remove_sample(self, person_id: int, sample_id: int) -> Dict[str, Any]:
        """Takes one sample out of the bank."""
        if not self._bank.remove_sample(self._person(person_id).id, sample_id):
            raise RequestError(404, "no_sample", f"There is no sample {sample_id}.")
        return {"removed": sample_id}

    def _embed(self, encoded: bytes, which: str = "The photo ") -> EmbeddedPhoto:
        with self._runs:
            try:
                return self._recognizer.embed_photo(encoded)
            except PhotoError as error:
                raise PhotoError(error.code, f"{which}{error}") from None

    def _person(self, person_id: int) -> Person:
        person = self._bank.person_by_id(person_id)
        if person is None:
            raise RequestError(404, "no_person", f"There is no person {person_id}.")
        return person

    def _check_resemblance(self, name: str, embedded: List[EmbeddedPhoto]) -> None:
        known = self._bank.person(name)
        units_BD = np.stack([photo.unit_D for photo in embedded])
        for candidates in self._index.top(units_BD, MAX_TOP):
            for match in candidates:
                if match.name != name and match.cosine >= self._threshold.cosine:
                    raise RequestError(
                        409,
                        "similar_person",
                        f"A photo resembles {match.name} (cosine {match.cosine:.3f}). Confirm that "
                        f"{name} is another person.",
                    )
        if known is None:
            return
        rows = [row for _, person_id, row in self._bank.embeddings() if person_id == known.id]
        cosine = float((np.stack(rows) @ units_BD.T).max(axis=0).min())
        if cosine < self._threshold.cosine:
            raise RequestError(
                409,
                "different_person",
                f"A photo does not resemble the enrolled {name} (cosine {cosine:.3f}). Give "
                "another person another name, or confirm that it is the same person.",
            )


def _problem(image_HWC, face, image_size):
    """Code of what keeps a face from being embedded, or None."""
    try:
        crop_face(image_HWC, face, image_size)
    except PhotoError as error:
        return error.code
    return None
