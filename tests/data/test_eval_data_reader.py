import os
import pickle
import struct
import sys

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.eval_data_reader import decode_images, read_pairs, write_pairs
from data.formats.safe_pickle import PickledArray, load

IMAGES = [b"first", b"", b"third image", b"\xff\xd8 4th" * 60]
IMAGES[1] = b"2"
SAME = [True, False]
PROTOCOLS = range(6 if sys.version_info >= (3, 8) else 5)


def saved(tmp_path, content):
    path = str(tmp_path / "set.bin")
    with open(path, "wb") as stream:
        stream.write(content)
    return path


def read_bytes(tmp_path, content):
    return read_pairs(saved(tmp_path, content))


def arrays(shape):
    return [np.frombuffer(image, np.uint8).reshape(shape).copy() for image in IMAGES]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "images,issame",
    [
        (IMAGES, SAME),
        (tuple(IMAGES), (1, 0)),
        ([bytearray(image) for image in IMAGES], [1.0, 0.0]),
        (arrays((-1,)), np.array(SAME)),
        (arrays((-1, 1)), list(np.array(SAME))),
        (arrays((-1, 1)), np.array([1, 0], ">i8")),
        (arrays((-1,)), [np.int64(1), np.int64(0)]),
    ],
)
@pytest.mark.parametrize("outer", [tuple, list])
def test_every_form_that_python_3_pickles_is_read(tmp_path, protocol, images, issame, outer):
    encoded, issame_P = read_bytes(tmp_path, pickle.dumps(outer([images, issame]), protocol))
    assert encoded == IMAGES and all(type(image) is bytes for image in encoded)
    assert issame_P.dtype == bool and issame_P.tolist() == SAME


def test_python_2_strings_of_protocol_2_are_bytes(tmp_path):
    strings = b"".join(
        b"U" + bytes([len(image)]) + image + b"q\x05"
        if len(image) < 256
        else b"T" + struct.pack("<i", len(image)) + image + b"q\x05"
        for image in IMAGES
    )
    content = b"\x80\x02]q\x01(" + strings + b"e]q\x02(\x88\x89e\x86q\x03."
    assert read_bytes(tmp_path, content)[0] == IMAGES
    assert read_bytes(tmp_path, content)[1].tolist() == SAME


def test_python_2_strings_of_protocol_0_are_bytes(tmp_path):
    strings = b"".join(b"S" + repr(image)[1:].encode() + b"\np5\na" for image in IMAGES)
    content = b"((lp1\n" + strings + b"(lp2\nI01\naI00\natp3\n."
    assert read_bytes(tmp_path, content)[0] == IMAGES
    assert read_bytes(tmp_path, content)[1].tolist() == SAME


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_arrays_of_numpy_1_and_2_are_read(tmp_path, module):
    content = pickle.dumps((arrays((-1, 1)), SAME), 3)
    content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    content = content.replace(b"numpy.core.multiarray", module)
    assert read_bytes(tmp_path, content)[0] == IMAGES


def test_write_pairs_writes_what_read_pairs_and_pickle_read(tmp_path):
    path = str(tmp_path / "written.bin")
    write_pairs(path, IMAGES, np.array(SAME))
    assert read_pairs(path)[0] == IMAGES and read_pairs(path)[1].tolist() == SAME
    with open(path, "rb") as stream:
        assert pickle.load(stream) == (IMAGES, SAME)
    assert os.listdir(str(tmp_path)) == ["written.bin"]


def test_write_pairs_refuses_an_odd_number_of_images(tmp_path):
    with pytest.raises(ValueError, match="3 images for 2 pairs"):
        write_pairs(str(tmp_path / "set.bin"), IMAGES[:3], SAME)
    assert not os.listdir(str(tmp_path))


class Call:
    """Pickles as a call of any function with any arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


WITNESS = "ran_by_the_pickle"


def malicious():
    touch = f"import os; os.environ['{WITNESS}'] = '1'"
    yield "system", pickle.dumps((Call(os.system, "true"), SAME)), r"(posix|nt)\.system"
    yield "eval", pickle.dumps((Call(eval, touch), SAME)), r"builtins\.eval"
    yield "python 2 eval", b"c__builtin__\neval\n(S'1'\ntR.", r"__builtin__\.eval"
    yield "inst", b"(S'true'\nios\nsystem\n.", r"os\.system"
    yield "object", b"(cos\nsystem\nS'true'\no.", r"os\.system"
    yield "newobj", b"\x80\x02csubprocess\nPopen\n)\x81.", r"subprocess\.Popen"
    got = b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'__class__'\ntR."
    yield "getattr", got, r"builtins\.getattr"
    yield "numpy's own eval", b"cnumpy.testing\nrunstring\n.", r"numpy\.testing\.runstring"
    yield "dotted", b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.", r"ndarray\.__new__"
    yield "extension", b"\x80\x02\x82\x01.", "opcode EXT1"
    yield "persistent", b"Pname\n.", "opcode PERSID"
    yield "call of a type", b"cnumpy\nndarray\n(K\x05tR.", "call of ndarray"
    yield "call of bytes", b"\x80\x03C\x03abc)R.", "cannot be called"
    yield "state of a list", b"\x80\x02]}b.", "opcode EMPTY_DICT"
    yield "state of bytes", b"\x80\x03C\x03abc(K\x01tb.", "nothing was run"
    yield (
        "object array",
        (b"\x80\x03cnumpy\ndtype\nC\x02O8K\x00K\x01\x87R."),
        "dtype O8; only plain numbers",
    )


@pytest.mark.parametrize("name,content,wanted", list(malicious()), ids=[m[0] for m in malicious()])
def test_nothing_malicious_runs_and_the_message_names_it(tmp_path, name, content, wanted):
    os.environ.pop(WITNESS, None)
    with pytest.raises(ValueError, match=r"set\.bin: byte \d+: .*" + wanted):
        read_bytes(tmp_path, content)
    assert WITNESS not in os.environ


BROKEN = {
    "empty": (b"", "is empty"),
    "no pickle": (b"\xff\xd8\xff\xe0 a JPEG", "no pickle at all"),
    "truncated": (pickle.dumps((IMAGES, SAME), 3)[:-30], "ends in the middle"),
    "8 GiB in 14 bytes": (
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 33) + b"ab.",
        "claims 8589934592",
    ),
    "negative size": (b"\x80\x02T\xff\xff\xff\xff.", "claims 4294967295"),
    "long number": (b"\x80\x02\x8b\xff\xff\xff\x7f.", "a number of 2147483647 bytes"),
    "deep": (b"(" * 1000 + b".", "nested deeper than 64"),
    "not a pair": (pickle.dumps([1, 2, 3]), "holds a list of 3, but an evaluation set is a pair"),
    "no images": (pickle.dumps(([], [])), "must be a list of images"),
    "mismatch": (pickle.dumps((IMAGES, [True])), "4 images for 1 pairs"),
    "text": (pickle.dumps((["text"] * 4, SAME)), "image 0 is text"),
    "empty image": (pickle.dumps(([b""] * 4, SAME)), "image 0 is empty"),
    "pixels": (pickle.dumps(([np.zeros((4, 5), "u1")] * 4, SAME)), r"u1 \(4, 5\); encoded"),
    "floats": (pickle.dumps(([np.zeros(4, "f4")] * 4, SAME)), "image 0 is an array of f4"),
    "issame of 2": (pickle.dumps((IMAGES, [2, 0])), "issame of pair 0"),
    "issame text": (pickle.dumps((IMAGES, ["yes", "no"])), "issame of pair 0 is text"),
    "memo": (b"\x80\x02h\x07.", "value 7 is used before"),
    "nothing on the stack": (b".", "makes no sense"),
    "negative shape": (
        pickle.dumps(([np.zeros(7, "u1")] * 4, SAME), 3).replace(
            b"K\x07\x85", b"J\xf9\xff\xff\xff\x85"
        ),
        "without a proper shape",
    ),
    "huge shape": (
        pickle.dumps(([np.zeros(7, "u1")] * 4, SAME), 3).replace(
            b"K\x07\x85", b"J\xff\xff\xff\x7f\x85"
        ),
        "asks for 2147483647 bytes and that holds 7",
    ),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_set_is_refused_in_one_sentence(tmp_path, name):
    content, wanted = BROKEN[name]
    with pytest.raises(ValueError, match=wanted) as caught:
        read_bytes(tmp_path, content)
    assert "set.bin" in str(caught.value) and "\n" not in str(caught.value)


def test_exponential_nesting_costs_what_its_bytes_cost(tmp_path):
    content = b"\x80\x02N" + b"q\x00h\x00\x86" * 50000 + b"."
    with pytest.raises(ValueError, match="image 0 is a tuple of 2"):
        read_bytes(tmp_path, content)


def test_one_text_encoded_a_thousand_times_is_refused(tmp_path):
    text = b"X" + struct.pack("<I", 200) + b"a" * 200
    encode = b"c_codecs\nencode\nq\x01" + text + b"q\x02X\x06\x00\x00\x00latin1q\x03"
    content = b"\x80\x02" + encode + b"(h\x01h\x02h\x03\x86R" * 60 + b"."
    with pytest.raises(ValueError, match="unfolds to more than its"):
        read_bytes(tmp_path, content)


def test_more_opcodes_than_any_set_needs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="more than .* opcodes"):
        read_bytes(tmp_path, b"\x80\x02" + b"N0" * 150000 + b"N.")


def test_a_missing_file_is_the_system_s_error(tmp_path):
    with pytest.raises(OSError):
        read_pairs(str(tmp_path / "none.bin"))


SEEDS = [
    pickle.dumps(content, protocol)
    for protocol in PROTOCOLS
    for content in [
        (IMAGES[:2] + [b"x"] * 2, SAME),
        (arrays((-1, 1)), np.array(SAME)),
        (arrays((-1,)), list(np.array(SAME))),
    ]
]


@settings(
    max_examples=4000,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    seed=st.integers(0, len(SEEDS) - 1),
    cut=st.integers(0, 1 << 16),
    edits=st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(max_size=6)), max_size=4),
)
def test_a_mutated_set_is_read_or_refused(fuzzed_file, seed, cut, edits):
    """Whatever the bytes: pairs, or one sentence; never another exception."""
    content = bytearray(SEEDS[seed])
    for at, piece in edits:
        at %= len(content) + 1
        content[at : at + len(piece)] = piece
    if cut % 4 == 0:
        del content[cut % (len(content) + 1) :]
    with open(fuzzed_file, "wb") as stream:
        stream.write(content)
    try:
        encoded, issame_P = read_pairs(fuzzed_file)
    except ValueError as error:
        assert str(error).startswith(fuzzed_file) and "\n" not in str(error)
    else:
        assert len(encoded) == 2 * len(issame_P) and all(type(e) is bytes for e in encoded)


@pytest.fixture(scope="module")
def fuzzed_file(tmp_path_factory):
    return str(tmp_path_factory.mktemp("fuzz") / "set.bin")


def test_load_keeps_numbers_texts_and_arrays(tmp_path):
    content = [None, True, -3, 1 << 40, 2.5, "text", b"bytes", (), np.arange(6, dtype="<i2")]
    for protocol in PROTOCOLS:
        found = load(saved(tmp_path, pickle.dumps(content, protocol)))
        assert found[:8] == content[:8] and type(found[8]) is PickledArray
        assert (found[8].to_numpy() == content[8]).all()


def test_decode_images_gives_rgb_of_opencv():
    image = np.random.RandomState(0).randint(0, 256, (20, 30, 3)).astype(np.uint8)
    coded = cv2.imencode(".png", image)[1].tobytes()
    assert (decode_images([coded, coded], (20, 30))[1] == image[..., ::-1]).all()


def test_decode_images_brings_other_sizes_to_size_by_the_short_side():
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 20:60] = (10, 20, 200)  # blue, green, red
    found = decode_images([cv2.imencode(".png", image)[1].tobytes()], (20, 20))
    assert found.shape == (1, 20, 20, 3) and (found == (200, 20, 10)).all()


def test_decode_images_names_the_image_that_does_not_decode():
    with pytest.raises(ValueError, match="lfw image 41 is no image that can be decoded"):
        decode_images([b"not an image"], (20, 20), where="lfw image", first=41)


@pytest.mark.parametrize(
    "value", [b"C\x01a", b"K\x07", b"]", b"N"], ids=["bytes", "int", "list", "none"]
)
def test_an_encoding_of_no_text_is_refused(tmp_path, value):
    path = tmp_path / "x.bin"
    pickled = b"\x80\x03c_codecs\nencode\n" + value + b"X\x06\x00\x00\x00latin1\x86R."
    path.write_bytes(pickled)
    with pytest.raises(ValueError, match="nothing was run"):
        read_pairs(str(path))
