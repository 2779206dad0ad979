"""Reads a pickle without running anything in it: plain values, and arrays as NumPy pickles them.

An interpreter of its own for the opcodes that lists, texts, bytes and NumPy arrays need (Python 2
and 3, protocols 0 to 5). A global is nothing but a word of GLOBALS and what it stands for is done
here, so neither REDUCE nor BUILD can call anything. Every size is held against the file's size, and
nothing is walked deeper than it is read, so that shared nesting costs what its bytes cost.
"""

import codecs
import os
import struct
from typing import Any, Optional

import numpy as np

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")  # NumPy 1 and NumPy 2
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_BUILTINS = ("builtins", "__builtin__")  # Python 3 and Python 2
GLOBALS = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",  # how Python 3 writes bytes below protocol 3
    **{(module, "_reconstruct"): "reconstruct" for module in _MULTIARRAY},
    **{(module, "scalar"): "scalar" for module in _MULTIARRAY},
    **{(module, "_frombuffer"): "frombuffer" for module in _NUMERIC},
    **{(module, name): name for module in _BUILTINS for name in ("bytes", "bytearray")},
}
DTYPES = ("b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")
# A set of images takes fewer than 45 opcodes and 15 memo entries for every 700 bytes or more.
SPARE_OPCODES, BYTES_PER_OPCODE = 200000, 16
SPARE_MEMOS, BYTES_PER_MEMO = 100000, 48
MAX_DEPTH = 64  # marks open at one time; an evaluation set needs 4
MAX_NUMBER = 64  # characters of a number in text, bytes of a number in binary
MAX_NAME = 256


class PickledArray:
    """An array as its pickle holds it: shape, dtype and bytes, checked only by fault()."""

    __slots__ = ("shape", "dtype", "fortran", "data")

    def __init__(
        self, shape: Any = (), dtype: Any = None, data: Any = None, fortran: bool = False
    ) -> None:
        self.shape, self.dtype, self.data, self.fortran = shape, dtype, data, fortran

    def fault(self) -> Optional[str]:
        """What is wrong with it, as text that follows "an array", or None."""
        if type(self.dtype) is not PickledDtype or type(self.data) is not bytes:
            return "without contents"
        if type(self.shape) is not tuple or len(self.shape) > 4:
            return "without a proper shape"
        if any(type(side) is not int or side < 0 for side in self.shape):
            return "without a proper shape"
        needed = self.size() * int(self.dtype.name[1:])
        if needed != len(self.data):
            return f"whose shape asks for {needed} bytes and that holds {len(self.data)}"
        return None

    def size(self) -> int:
        """Number of elements that the shape claims (a Python int: it cannot overflow)."""
        count = 1
        for side in self.shape:
            count *= side
        return count

    def to_numpy(self) -> np.ndarray:
        """The array; only after fault() returned None."""
        order = "F" if self.fortran is True else "C"
        flat = np.frombuffer(self.data, np.dtype(self.dtype.order + self.dtype.name))
        return flat.reshape(self.shape, order=order)


class PickledDtype:
    """A plain number type: name as in DTYPES, order one of < > | =."""

    __slots__ = ("name", "order")

    def __init__(self, name: str) -> None:
        self.name, self.order = name, "|"


class PickledText:
    """A long text that stays as it was read until its bytes are needed: below protocol 3,
    Python 3 writes bytes as the text of the same code points. Encoded once, so that a text that
    is encoded often costs no more."""

    __slots__ = ("raw", "codec", "latin1")

    def __init__(self, raw: bytes, codec: str) -> None:
        self.raw, self.codec = raw, codec
        self.latin1: Optional[bytes] = None

    def encode(self) -> bytes:
        """bytes, one a character."""
        if self.latin1 is None:
            self.latin1 = self.raw.decode(self.codec).encode("latin1")
            self.raw = b""  # frees it
        return self.latin1


def load(path: str) -> Any:
    """The one value of the pickle in the file: None, bool, int, float, bytes, str, list, tuple or
    PickledArray. Anything else in it is a ValueError that names the file, the byte and the cause.
    """
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size == 0:
            raise ValueError(f"{path} is empty; copy or download it again.")
        machine = _Machine(stream, size)
        try:
            return machine.run()
        except _MalformedError as error:
            raise ValueError(f"{path}: byte {machine.start}: {error}.") from None
        except (ArithmeticError, LookupError, TypeError, ValueError, struct.error):
            raise ValueError(
                f"{path}: byte {machine.start}: the pickle makes no sense here; "
                "the file is damaged or no evaluation set."
            ) from None


class _MalformedError(Exception):
    """What was wrong and what to do, to be put behind the file and the byte."""


class _Global:
    """A word of GLOBALS. It is compared, never called."""

    __slots__ = ("word",)

    def __init__(self, word):
        self.word = word


class _Machine:
    """The pickle machine: a stack, the stacks below open marks, a memo."""

    def __init__(self, stream, size):
        self.stream, self.size = stream, size
        self.stack, self.below, self.memo = [], [], {}
        self.made = 0  # bytes that were copied, not read: bounded, as one text can be encoded often
        self.opcode_limit = SPARE_OPCODES + size // BYTES_PER_OPCODE
        self.memo_limit = SPARE_MEMOS + size // BYTES_PER_MEMO
        self.start = 0  # of the opcode that failed

    def run(self):
        """Opcode after opcode until STOP; the value on top of the stack."""
        read, opcodes = self.stream.read, _OPCODES
        try:
            for _ in range(self.opcode_limit):
                code = read(1)
                if code == b".":
                    return self.stack[-1]
                action = opcodes.get(code)
                if action is None:
                    self.refuse_opcode(code)
                action(self)
        except Exception:
            self.start = min(self.stream.tell(), self.size)
            raise
        self.start = self.stream.tell()
        raise _MalformedError(
            f"more than {self.opcode_limit} opcodes in a file of {self.size} bytes, which no "
            "evaluation set needs; nothing of it is used"
        )

    # reading

    def take(self, count):
        """The next `count` bytes; the claim is held against the file before memory is allocated."""
        if count < 0 or count > self.size:
            raise _MalformedError(
                f"the pickle claims {count} bytes here in a file of {self.size}; "
                "the file is damaged or no evaluation set"
            )
        data = self.stream.read(count)
        if len(data) != count:
            raise _MalformedError(
                "the file ends in the middle of the pickle; copy or download it again"
            )
        return data

    def line(self, limit):
        """The next line without its end; at most `limit` bytes."""
        text = self.stream.readline(limit)
        if text[-1:] != b"\n":
            at_end = self.stream.tell() >= self.size
            raise _MalformedError(
                "the file ends in the middle of the pickle; copy or download it again"
                if at_end
                else "a line is too long here; the file is damaged or no evaluation set"
            )
        return text[:-1]

    def unsigned(self, width):
        return int.from_bytes(self.take(width), "little")

    # the stack

    def open_mark(self):
        if len(self.below) >= MAX_DEPTH:
            raise _MalformedError(
                f"nested deeper than {MAX_DEPTH}, which no evaluation set needs; "
                "nothing of it is used"
            )
        self.below.append(self.stack)
        self.stack = []

    def close_mark(self):
        items = self.stack
        self.stack = self.below.pop()
        return items

    def pop(self):
        return self.stack.pop()

    def push(self, value):
        self.stack.append(value)

    def put(self, key):
        if len(self.memo) >= self.memo_limit:
            raise _MalformedError(
                f"more than {self.memo_limit} values are kept in a file of {self.size} bytes, "
                "which no evaluation set needs; nothing of it is used"
            )
        self.memo[key] = self.stack[-1]

    def get(self, key):
        if key not in self.memo:
            raise _MalformedError(f"value {key} is used before it is there; the file is damaged")
        self.stack.append(self.memo[key])

    def extend(self, items):
        target = self.stack[-1]
        if type(target) is not list:
            raise _MalformedError("items for something that is no list; the file is damaged")
        target.extend(items)

    def pack(self, count):
        """TUPLE1, TUPLE2, TUPLE3."""
        if len(self.stack) < count:
            raise _MalformedError("a tuple of values that are not there; the file is damaged")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    # what globals stand for

    def find_global(self, module, name):
        """Pushes the word for an allowed (module, name); anything else ends the reading."""
        word = GLOBALS.get((module, name))
        if word is None:
            raise _MalformedError(
                f"the pickle asks for the global {_shown(module)}.{_shown(name)}, which no "
                "evaluation set needs; nothing in the file was run, and it should not be trusted"
            )
        self.stack.append(_Global(word))

    def refuse_opcode(self, code):
        if not code:
            raise _MalformedError(
                "the file ends in the middle of the pickle; copy or download it again"
            )
        if code == b"i":  # INST: a global and a call in one
            self.find_global(_text(self.line(MAX_NAME)), _text(self.line(MAX_NAME)))
        raise _MalformedError(
            f"opcode {_opcode_name(code)} has no place in an evaluation set; "
            "nothing in the file was run"
        )

    def reduce(self):
        arguments = self.pop()
        target = self.stack[-1]
        if type(target) is not _Global or type(arguments) is not tuple:
            raise _MalformedError("a call of something that cannot be called; nothing was run")
        make = _MAKERS.get(target.word)
        if make is None:
            raise _MalformedError(f"a call of {target.word}; nothing was run")
        self.stack[-1] = make(self, *arguments)

    def build(self):
        state = self.pop()
        target = self.stack[-1]
        if type(state) is not tuple:
            raise _MalformedError("a state that is no tuple; nothing was run")
        if type(target) is PickledArray and len(state) == 5:
            _, target.shape, target.dtype, target.fortran, target.data = state
        elif type(target) is PickledDtype and len(state) >= 4:
            order, fields = _text(state[1]), state[2:4]
            if order not in ("<", ">", "|", "=") or fields != (None, None):
                raise _MalformedError(
                    "a dtype that is no plain number; the file is no evaluation set"
                )
            target.order = order
        else:
            raise _MalformedError("a state for something that has none; nothing was run")

    def copied(self, data):
        """Counts bytes that are not of the file: a set never holds more of them than its file."""
        self.made += len(data)
        if self.made > self.size:
            raise _MalformedError(
                f"the pickle unfolds to more than its {self.size} bytes, which no evaluation set "
                "does; nothing of it is used"
            )
        return data


def _make_array(machine, kind, shape, code):
    if type(kind) is not _Global or kind.word != "ndarray":
        raise _MalformedError("an array that is no numpy.ndarray; nothing was run")
    return PickledArray()


def _make_dtype(machine, name, *flags):
    name = _text(name)
    if name not in DTYPES:
        raise _MalformedError(f"an array of dtype {_shown(name)}; only plain numbers are read")
    return PickledDtype(name)


def _make_scalar(machine, dtype, data):
    return PickledArray((), dtype, data)


def _make_from_buffer(machine, data, dtype, shape, order):
    return PickledArray(shape, dtype, data, fortran=_text(order) == "F")


def _make_encoded(machine, text, encoding="latin1"):
    if _text(encoding) not in ("latin1", "latin-1"):
        raise _MalformedError("bytes in an encoding other than latin1; nothing was run")
    if type(text) is PickledText:
        return text.encode()
    if type(text) is not str:
        raise _MalformedError("bytes encoded from something that is no text; nothing was run")
    return machine.copied(text.encode("latin1"))


def _make_bytes(machine, value=b"", *encoding):
    return machine.copied(value) if type(value) is bytes else _make_encoded(machine, value)


_MAKERS = {
    "reconstruct": _make_array,
    "dtype": _make_dtype,
    "scalar": _make_scalar,
    "frombuffer": _make_from_buffer,
    "encode": _make_encoded,
    "bytes": _make_bytes,
    "bytearray": _make_bytes,
}


def _int_line(machine):
    text = machine.line(MAX_NUMBER)
    machine.push({b"00": False, b"01": True}.get(text) if text in (b"00", b"01") else int(text))


def _long(machine, count):
    if count > MAX_NUMBER:
        raise _MalformedError(f"a number of {count} bytes, which no evaluation set needs")
    machine.push(int.from_bytes(machine.take(count), "little", signed=True))


def _string_line(machine):
    text = machine.line(machine.size).strip()
    if len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
        raise _MalformedError("a text without its quotes; the file is damaged")
    machine.push(codecs.escape_decode(text[1:-1])[0])


def _unicode(machine, raw, codec="utf-8"):
    long = len(raw) > MAX_NAME
    machine.push(PickledText(raw, codec) if long else raw.decode(codec, "surrogatepass"))


def _stack_global(machine):
    name, module = machine.pop(), machine.pop()
    machine.find_global(_text(module), _text(name))


def _list(machine):
    items = machine.close_mark()
    machine.push(items)


def _text(value):
    """A name that Python 2 wrote as bytes and Python 3 as text."""
    if type(value) is bytes:
        return value[:MAX_NAME].decode("latin1")
    if type(value) is not str:
        raise _MalformedError("a name that is no text; the file is damaged")
    return value


def _shown(name):
    return ascii(name[:80])[1:-1]


def _opcode_name(code):
    import pickletools  # 3,000 lines, for a file that is refused anyway

    known = pickletools.code2op.get(code.decode("latin1"))
    return known.name if known else f"0x{code.hex()} (no pickle at all?)"


_OPCODES = {
    b"\x80": lambda m: m.take(1),  # PROTO: what a protocol may hold is held by the opcodes
    b"\x95": lambda m: m.take(8),  # FRAME: a hint for buffered readers
    b"(": _Machine.open_mark,
    b"0": _Machine.pop,
    b"1": _Machine.close_mark,
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": _int_line,
    b"L": lambda m: m.push(int(m.line(MAX_NUMBER).rstrip(b"L"))),
    b"J": lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True)),
    b"K": lambda m: m.push(m.unsigned(1)),
    b"M": lambda m: m.push(m.unsigned(2)),
    b"\x8a": lambda m: _long(m, m.unsigned(1)),
    b"\x8b": lambda m: _long(m, m.unsigned(4)),
    b"F": lambda m: m.push(float(m.line(MAX_NUMBER))),
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    b"S": _string_line,
    b"T": lambda m: m.push(m.take(m.unsigned(4))),
    b"U": lambda m: m.push(m.take(m.unsigned(1))),
    b"B": lambda m: m.push(m.take(m.unsigned(4))),
    b"C": lambda m: m.push(m.take(m.unsigned(1))),
    b"\x8e": lambda m: m.push(m.take(m.unsigned(8))),
    b"\x96": lambda m: m.push(m.take(m.unsigned(8))),
    b"V": lambda m: _unicode(m, m.line(m.size), "raw-unicode-escape"),
    b"X": lambda m: _unicode(m, m.take(m.unsigned(4))),
    b"\x8c": lambda m: _unicode(m, m.take(m.unsigned(1))),
    b"\x8d": lambda m: _unicode(m, m.take(m.unsigned(8))),
    b"]": lambda m: m.push([]),
    b"l": _list,
    b"a": lambda m: m.extend((m.pop(),)),
    b"e": lambda m: m.extend(m.close_mark()),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.close_mark())),
    b"\x85": lambda m: m.pack(1),
    b"\x86": lambda m: m.pack(2),
    b"\x87": lambda m: m.pack(3),
    b"g": lambda m: m.get(int(m.line(MAX_NUMBER))),
    b"h": lambda m: m.get(m.unsigned(1)),
    b"j": lambda m: m.get(m.unsigned(4)),
    b"p": lambda m: m.put(int(m.line(MAX_NUMBER))),
    b"q": lambda m: m.put(m.unsigned(1)),
    b"r": lambda m: m.put(m.unsigned(4)),
    b"\x94": lambda m: m.put(len(m.memo)),
    b"c": lambda m: m.find_global(_text(m.line(MAX_NAME)), _text(m.line(MAX_NAME))),
    b"\x93": _stack_global,
    b"R": _Machine.reduce,
    b"b": _Machine.build,
}
