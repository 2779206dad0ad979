"""The rules of the tree that no single file can keep; read by ast, nothing is imported."""

import ast
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Each room and the rooms it may use; a script at the top and tools/ may use any.
BASE = {"runtime", "verification"}
READ = BASE | {"data", "faces", "nets", "losses"}
EVALUATE = READ | {"checkpoint", "inference"}
FLOORS = {
    "runtime": set(),
    "verification": {"runtime"},  # its flags; not TensorFlow, see below
    "data": BASE | {"faces"},
    "faces": BASE,
    "nets": BASE,
    "losses": BASE,
    "checkpoint": READ,
    "inference": READ | {"checkpoint"},
    "evaluation": EVALUATE,
    "training": EVALUATE | {"evaluation"},
    "export": EVALUATE | {"evaluation"},
    "serving": EVALUATE | {"evaluation"},
    "tools": READ | EVALUATE | {"evaluation", "training", "export", "serving"},
}
ROOMS = set(FLOORS)
DOORS = {"tensorflow": "runtime/tf1.py", "npu_bridge": "runtime/npu/adapter.py"}
GROUPS = ("cluster", "npu")  # fields of configs that are groups of flags themselves
BACKENDS = os.path.join("inference", "backends", "")  # each imports its runtime when it is chosen
WITHOUT_TENSORFLOW = (
    "verification",
    "data.eval_data_reader",
    "data.image_folder",
    "data/formats",
    "data/convert",
    "faces",
    "inference",
    "evaluation",
    "serving",
    "demo",
    "facebank",
)


def sources():
    """Paths of our Python files, relative to the root, tests and benchmarks apart."""
    found = [name for name in os.listdir(ROOT) if name.endswith(".py")]
    for room in sorted(ROOMS):
        for folder, _, names in os.walk(os.path.join(ROOT, room)):
            paths = (os.path.join(folder, name) for name in names if name.endswith(".py"))
            found += [os.path.relpath(path, ROOT) for path in paths]
    return sorted(found)


def tree(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as stream:
        return ast.parse(stream.read(), path)


def imports(path):
    """First names of what a file imports, and the full names."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


def room(path):
    return path.split(os.sep)[0] if os.sep in path else path[: -len(".py")]


@pytest.mark.parametrize("path", [path for path in sources() if room(path) in ROOMS])
def test_imports_point_one_way(path):
    allowed = FLOORS[room(path)] | {room(path)}
    used = {name.split(".")[0] for name in imports(path)} & ROOMS
    assert used <= allowed, f"{path} imports {sorted(used - allowed)}"


@pytest.mark.parametrize("path", sources())
def test_tensorflow_and_its_adapter_come_in_by_one_door_each(path):
    used = {name.split(".")[0] for name in imports(path)}
    assert not [name for name, door in DOORS.items() if name in used and path != door]


def modules_without_tensorflow():
    for name in WITHOUT_TENSORFLOW:
        if "/" not in name and os.path.exists(
            os.path.join(ROOT, name.replace(".", os.sep) + ".py")
        ):
            yield name
        else:
            for path in sources():
                if path.startswith(name + os.sep) and not path.endswith("__init__.py"):
                    if not path.startswith(BACKENDS):
                        yield path[: -len(".py")].replace(os.sep, ".")


def test_verification_and_readers_need_no_tensorflow():
    code = (
        "import sys; sys.modules['tensorflow'] = None; sys.modules['scipy'] = None\n"
        f"import {', '.join(modules_without_tensorflow())}"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def calls(node):
    return [item for item in ast.walk(node) if isinstance(item, ast.Call)]


def config_classes():
    """(path, class name, fields) of each dataclass whose fields are flags."""
    for path in sources():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                fields = [
                    item.target.id
                    for item in node.body
                    if isinstance(item, ast.AnnAssign) and isinstance(item.value, ast.Call)
                ]
                if any(getattr(n.func, "id", "") == "flag" for n in calls(node)):
                    yield path, node.name, fields


def literal(node):
    """The value of a text constant, "" of anything else; Python 3.7 has ast.Str."""
    value = getattr(node, "value", getattr(node, "s", None))
    return value if isinstance(value, str) else ""


def is_config(node):
    """Whether an expression is a config: `config`, `self.config`, `train_config`, the `flags` of
    an NPU, or a group of flags in one of these (`config.cluster`)."""
    name = getattr(node, "id", "") or getattr(node, "attr", "")
    return name.split("_")[-1] in ("config", "flags") or name in GROUPS


def fields_read(path, class_name):
    """The fields of configs that a file reads: `config.field`, `getattr(config, "field")`, and
    `self.field` inside the class. A composed name ends in "*". A name that is a variable stands
    for every text in the file's tuples and calls."""
    nodes = list(ast.walk(tree(path)))
    own = [node for node in nodes if isinstance(node, ast.ClassDef) and node.name == class_name]
    own = {id(item) for node in own for item in ast.walk(node)}
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            if is_config(node.value) or id(node) in own and is_self(node.value):
                yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
            base, name = node.args[:2]
            if is_config(base) or id(node) in own and is_self(base):
                if isinstance(name, ast.JoinedStr):
                    yield literal(name.values[0]) + "*"
                elif isinstance(name, ast.Name):
                    yield from named_in_lists(nodes)
                else:
                    yield literal(name)


def is_self(node):
    return getattr(node, "id", "") == "self"


def named_in_lists(nodes):
    for node in nodes:
        if isinstance(node, (ast.Tuple, ast.List, ast.Call)):
            yield from map(literal, node.args[:1] if isinstance(node, ast.Call) else node.elts)


@pytest.mark.parametrize("path, name, fields", list(config_classes()))
def test_every_flag_is_read(path, name, fields):
    """A flag that is not read changes nothing."""
    readers = [path]
    if room(path) in ROOMS:  # a script at the root hands its flags to the room
        readers = [p for p in sources() if room(p) == room(path) or os.sep not in p]
    read = {"config"}  # --config itself is read by runtime/flags.py
    for reader in readers:
        read.update(fields_read(reader, name))
    families = tuple(prefix[:-1] for prefix in read if prefix.endswith("*"))
    unread = [field for field in fields if field not in read and not field.startswith(families)]
    assert not unread, f"{path}: nothing reads {unread} of {name}"


def test_scripts_of_training_stay_short():
    for name in ("train_nets.py", "train_nets_mgpu.py"):
        path = os.path.join(ROOT, name)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                assert len(stream.readlines()) < 45, name
