"""Measures the code with ast and compares it with the committed figures.

    python -m tools.code_figures            # prints the figures beside the committed ones
    python -m tools.code_figures --check    # exit code 1 where a figure is worse than committed
    python -m tools.code_figures --update   # writes tools/code_figures.json
    python -m tools.code_figures --words    # lists each line with a word of the list

Words are searched in Python files and documentation. A line that needs one carries `# word-ok`, or
`<!-- word-ok -->` in Markdown. Identifiers count by their parts: `is_told` contains "told".
"""

import argparse
import ast
import glob
import json
import os
import re
import statistics
import sys
from typing import Dict, Iterator, List, NamedTuple, Optional, Set, Tuple, Union

from runtime.files import atomic_write

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FIGURES = os.path.join(ROOT, "tools", "code_figures.json")
ROOMS = (
    *("runtime", "data", "faces", "nets", "losses", "checkpoint", "inference", "evaluation"),
    *("training", "export", "serving", "tools"),
)
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/*.md")

MANY_PARAMETERS = 6  # more than this and a record is missing
LONG_FILE = 400  # lines
WORSE = 1  # exit code of --check

# Words that are not the field's, as they stand in the redesign's language rules.
WORDS = (
    *("said", "told", r"(?<!\.)tells?", "asked", "beside", "aloud", "strangers?", "heeds?"),
    *("reckon(?:s|ed)?", "pass(?:es|ed|ing)? over", "go(?:es|ing)? on", "leaves? away"),
    *("leaves out", "no numbers?", "that of all", "at a time", "in words", "judges?"),
    *("speaks? for", "dogs?", "talks", "met"),
)
IN_HELP = ("whose",)  # in help texts of flags
IN_NAMES = ("moved",)  # as an identifier: an operation that updates a variable
EXCEPTION = "word-ok"

Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]


class Figure(NamedTuple):
    """One measured property of the code."""

    name: str  # as it is printed and stored
    value: float
    more_is_better: bool = False


class Offence(NamedTuple):
    """A word of the list and where it is."""

    path: str  # relative to the root
    line: int  # from 1
    word: str


class Module(NamedTuple):
    """A parsed Python file."""

    path: str  # relative to the root, with forward slashes
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """Its dotted name; a package's name for an __init__.py."""
        name = self.path[: -len(".py")].replace("/", ".")
        return name[: -len(".__init__")] if name.endswith(".__init__") else name


def measure(root: str = ROOT) -> List[Figure]:
    """All figures of the tree under root."""
    modules = read_modules(root)
    functions = [node for module in modules for node in functions_of(module.tree)]
    lengths = sorted(_length(node) for node in functions)
    public = [node for module in modules for node in public_functions(module.tree)]
    annotated = sum(map(is_annotated, public))
    lines = sum(module.text.count("\n") for module in modules)
    lines += sum(_read(path).count("\n") for path in _documents(root))
    words = 1000 * len(list(offences(root))) / max(1, lines)
    return [
        Figure("functions: median lines", statistics.median(lengths) if lengths else 0),
        Figure("functions: 90th percentile of lines", _percentile(lengths, 0.9)),
        Figure("functions: longest", lengths[-1] if lengths else 0),
        Figure(
            f"functions with more than {MANY_PARAMETERS} parameters",
            sum(parameters(node) > MANY_PARAMETERS for node in functions),
        ),
        Figure(
            "annotated public functions, percent",
            round(100 * annotated / max(1, len(public)), 1),
            more_is_better=True,
        ),
        Figure("modules without a sibling test", len(untested(root))),
        Figure("words of the list per 1000 lines", round(words, 1)),
        Figure(f"files over {LONG_FILE} lines", len(long_files(root))),
        Figure("import cycles", len(import_cycles(modules))),
        Figure("branches on NPU outside runtime/", len(npu_branches(modules))),
    ]


def read_modules(root: str) -> List[Module]:
    """The Python files of the rooms and the scripts at the root; no tests, no benchmarks."""
    paths = glob.glob(os.path.join(root, "*.py"))
    for room in ROOMS:
        paths += glob.glob(os.path.join(root, room, "**", "*.py"), recursive=True)
    modules = []
    for path in sorted(paths):
        text = _read(path)
        modules.append(Module(_relative(path, root), text, ast.parse(text, path)))
    return modules


def functions_of(tree: ast.AST) -> Iterator[Function]:
    """All functions and methods, nested ones included."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def public_functions(tree: ast.Module) -> Iterator[Function]:
    """Functions of the module and methods of its public classes without a leading underscore."""
    for node in tree.body:
        public_class = isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        for item in node.body if isinstance(node, ast.ClassDef) and public_class else [node]:
            if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
                if not item.name.startswith("_") or item.name == "__init__":
                    yield item


def is_annotated(function: Function) -> bool:
    """Whether each parameter and the result have a type; an __init__ needs none for its result."""
    arguments = [argument for argument in _arguments(function) if argument.arg not in SELF]
    arguments += [item for item in (function.args.vararg, function.args.kwarg) if item]
    known = all(argument.annotation is not None for argument in arguments)
    return known and (function.returns is not None or function.name == "__init__")


def parameters(function: Function) -> int:
    """How many parameters a call may give; self and cls do not count."""
    return sum(argument.arg not in SELF for argument in _arguments(function))


SELF = ("self", "cls")


def untested(root: str) -> List[str]:
    """Modules that have no tests/<room>/test_<module>.py; empty files need none."""
    found = []
    for module in read_modules(root):
        room, name = os.path.split(module.path)
        if not module.tree.body or _only_docstring(module.tree):
            continue
        sibling = os.path.join(root, "tests", room, f"test_{name.strip('_')}")
        if name == "__main__.py":
            sibling = os.path.join(root, "tests", room, "test_main.py")
        if not os.path.exists(sibling):
            found.append(module.path)
    return found


def long_files(root: str) -> List[str]:
    """Python files over LONG_FILE lines, tests and benchmarks included."""
    paths = [os.path.join(root, module.path) for module in read_modules(root)]
    for folder in ("tests", "benchmarks", "scripts"):
        paths += glob.glob(os.path.join(root, folder, "**", "*.py"), recursive=True)
    return [_relative(path, root) for path in paths if _read(path).count("\n") > LONG_FILE]


def import_cycles(modules: List[Module]) -> List[List[str]]:
    """Groups of modules that import each other, at the top or inside a function."""
    known = {module.name for module in modules}
    uses = {module.name: _imported(module, known) for module in modules}
    reach = {name: _reachable(name, uses) for name in known}
    found, seen = [], set()  # type: Tuple[List[List[str]], Set[str]]
    for name in sorted(known):
        if name in reach[name] and name not in seen:
            group = sorted(other for other in reach[name] if name in reach[other])
            seen.update(group)
            found.append(group)
    return found


def npu_branches(modules: List[Module]) -> List[Tuple[str, int]]:
    """(path, line) of for_npu() and of comparisons with "npu" outside runtime/."""
    found = []
    for module in modules:
        if module.path.startswith("runtime/"):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and _called(node) in ("for_npu", "on_npu", "is_npu"):
                found.append((module.path, node.lineno))
            elif isinstance(node, ast.Compare):
                sides = [_constant(side) for side in [node.left] + node.comparators]
                if any(isinstance(side, str) and side.lower() in ("npu",) for side in sides):
                    found.append((module.path, node.lineno))
    return found


def offences(root: str = ROOT) -> Iterator[Offence]:
    """Each word of the list in the modules and the documents."""
    for module in read_modules(root):
        if module.path != "tools/code_figures.py":  # the list itself
            yield from module_offences(module)
    for path in _documents(root):
        yield from _text_offences(_relative(path, root), _read(path), WORDS)


def module_offences(module: Module) -> Iterator[Offence]:
    """Words of the list in one Python file."""
    yield from _text_offences(module.path, module.text, WORDS)
    lines = module.text.split("\n")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and _called(node) == "flag":
            for argument in node.args[1:2] + [k.value for k in node.keywords if k.arg == "help"]:
                for part in ast.walk(argument):
                    yield from _node_offences(module.path, lines, part, _constant(part), IN_HELP)
        name = _stored_name(node)
        if name is not None:
            yield from _node_offences(module.path, lines, node, name, IN_NAMES)


def _text_offences(path: str, text: str, words: Tuple[str, ...]) -> Iterator[Offence]:
    """A phrase may run over the end of a line, also from one string literal to the next."""
    marked = {i for i, line in enumerate(text.split("\n"), 1) if EXCEPTION in line}
    spread = text.replace("_", " ")  # the parts of identifiers are words, positions stay
    for found in _pattern(words).finditer(spread):
        line = text.count("\n", 0, found.start()) + 1
        if line not in marked:
            yield Offence(path, line, _plain(found.group()))


def _node_offences(
    path: str, lines: List[str], node: ast.AST, text: object, words: Tuple[str, ...]
) -> Iterator[Offence]:
    line = getattr(node, "lineno", 0)
    if isinstance(text, str) and line and EXCEPTION not in lines[line - 1]:
        for found in _pattern(words).finditer(text.replace("_", " ")):
            yield Offence(path, line, _plain(found.group()))


def _pattern(words: Tuple[str, ...]) -> "re.Pattern[str]":
    gap = r"[\s\"'#]+f?[\"']?"
    return re.compile(r"\b(?:%s)\b" % "|".join(w.replace(" ", gap) for w in words), re.IGNORECASE)


def _plain(found: str) -> str:
    return " ".join(re.findall(r"[A-Za-z]{2,}|\ba\b", found)).lower()


def _stored_name(node: ast.AST) -> Optional[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return node.name
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return node.attr
    return node.arg if isinstance(node, ast.arg) else None


def _called(node: ast.Call) -> str:
    return str(getattr(node.func, "attr", None) or getattr(node.func, "id", ""))


def _constant(node: ast.AST) -> object:
    """The value of a literal; Python 3.7 has ast.Str where later ones have ast.Constant."""
    return getattr(node, "value", getattr(node, "s", None)) if _is_literal(node) else None


def _is_literal(node: ast.AST) -> bool:
    return type(node).__name__ in ("Constant", "Str")


def _only_docstring(tree: ast.Module) -> bool:
    return len(tree.body) == 1 and ast.get_docstring(tree) is not None


def _imported(module: Module, known: Set[str]) -> Set[str]:
    """Names of our modules that a module imports."""
    names = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names += [name if name in known else str(node.module) for name in inner]
    return {name for name in names if name in known}


def _reachable(start: str, uses: Dict[str, Set[str]]) -> Set[str]:
    found, ahead = set(), [start]  # type: Tuple[Set[str], List[str]]
    while ahead:
        for name in uses[ahead.pop()] - found:
            found.add(name)
            ahead.append(name)
    return found


def _arguments(function: Function) -> List[ast.arg]:
    first = getattr(function.args, "posonlyargs", [])
    return first + function.args.args + function.args.kwonlyargs


def _length(function: Function) -> int:
    """Lines from `def` to the end; Python 3.7 knows the begin of each node alone."""
    end = getattr(function, "end_lineno", None)
    end = end or max(getattr(node, "lineno", 0) for node in ast.walk(function))
    return end - function.lineno + 1


def _percentile(values: List[int], share: float) -> int:
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0


def _documents(root: str) -> List[str]:
    found = []
    for pattern in DOCUMENTS:
        found += sorted(glob.glob(os.path.join(root, pattern)))
    return found


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as stream:
        return stream.read()


def _relative(path: str, root: str) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")


def worse(figures: List[Figure], committed: Dict[str, float]) -> List[str]:
    """One sentence for each figure that is worse than the committed one."""
    found = []
    for figure in figures:
        limit = committed.get(figure.name, figure.value)
        if figure.value < limit if figure.more_is_better else figure.value > limit:
            found.append(f"{figure.name}: {figure.value:g}, but {limit:g} are committed.")
    return found


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="Measures the code.")
    parser.add_argument("--check", action="store_true", help="fail where a figure gets worse")
    parser.add_argument("--update", action="store_true", help="write the committed figures")
    parser.add_argument("--words", action="store_true", help="list the lines with such words")
    parser.add_argument("--list", action="store_true", help="list what the other counts consist of")
    options = parser.parse_args(argv)
    if options.words:
        for offence in offences():
            print(f"{offence.path}:{offence.line}: {offence.word}")
        return 0
    if options.list:
        _print_details(ROOT)
        return 0
    figures = measure()
    if options.update:
        with atomic_write(FIGURES) as stream:
            json.dump({figure.name: figure.value for figure in figures}, stream, indent=1)
            stream.write("\n")
    committed = json.loads(_read(FIGURES)) if os.path.exists(FIGURES) else {}
    for figure in figures:
        shown = f"{committed[figure.name]:g}" if figure.name in committed else "-"
        print(f"{figure.name:44} {figure.value:8g}   committed {shown}")
    found = worse(figures, committed) if options.check else []
    for sentence in found:
        print(f"error: {sentence}", file=sys.stderr)
    return WORSE if found else 0


def _print_details(root: str) -> None:
    """What to mend: functions, modules and branches by name."""
    modules = read_modules(root)
    for module in modules:
        for node in functions_of(module.tree):
            if parameters(node) > MANY_PARAMETERS:
                print(f"{module.path}:{node.lineno}: {node.name} has {parameters(node)} parameters")
            if _length(node) > 40:
                print(f"{module.path}:{node.lineno}: {node.name} has {_length(node)} lines")
        for node in public_functions(module.tree):
            if not is_annotated(node):
                print(f"{module.path}:{node.lineno}: {node.name} is not annotated")
    for path in untested(root):
        print(f"{path}: has no sibling test")
    for path in long_files(root):
        print(f"{path}: has over {LONG_FILE} lines")
    for group in import_cycles(modules):
        print(f"import cycle: {', '.join(group)}")
    for path, line in npu_branches(modules):
        print(f"{path}:{line}: branches on NPU")


if __name__ == "__main__":
    sys.exit(main())
