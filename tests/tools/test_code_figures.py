"""tools/code_figures.py against small trees whose figures are counted by eye."""

import json

import pytest

from tools import code_figures
from tools.code_figures import measure, module_offences, read_modules, worse


def tree(tmp_path, **files):
    """A root with these files; `data__x` is data/x.py and `README_md` is README.md."""
    for name, text in files.items():
        path = name.replace("__", "/") + ".py"
        path = tmp_path / (path if name != "README_md" else "README.md")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(tmp_path)


def figure(root, start):
    (value,) = [item.value for item in measure(root) if item.name.startswith(start)]
    return value


def words(tmp_path, text):
    (module,) = read_modules(tree(tmp_path, data__x=text))
    return [(found.line, found.word) for found in module_offences(module)]


def test_a_function_counts_its_lines_and_parameters(tmp_path):
    text = "def f(a, b, c, d, e, *, g, h=1):\n    x = a\n    return x\n\n\nclass A:\n"
    text += "    def m(self, a, b, c, d, e, f):\n        return 1\n"
    root = tree(tmp_path, data__x=text)
    assert figure(root, "functions: longest") == 3
    assert figure(root, "functions with more than 6") == 1  # self is no parameter


@pytest.mark.parametrize(
    "text, share",
    [
        ("def f(a: int) -> int:\n    return a\n\n\ndef g(a):\n    return a\n", 50),
        ("def f(a: int):\n    return a\n", 0),
        ("class A:\n    def __init__(self, a: int):\n        self.a = a\n", 100),
        ("def f(*a, **b) -> int:\n    return 1\n", 0),
        ("def f() -> None:\n    pass\n\n\ndef _g(a):\n    def h(b):\n        return b\n", 100),
    ],
)
def test_public_functions_need_types_for_all_arguments_and_the_result(tmp_path, text, share):
    assert figure(tree(tmp_path, data__x=text), "annotated") == share


def test_a_module_needs_a_test_of_its_name_in_the_same_place(tmp_path):
    files = dict(data__x="A = 1\n", data__deep__y="B = 1\n", data____init__="", script="C = 1\n")
    assert figure(tree(tmp_path, **files), "modules without") == 3
    more = dict(tests__data__test_x="", tests__data__deep__test_y="", tests__test_script="")
    assert figure(tree(tmp_path, **more), "modules without") == 0


def test_a_cycle_of_imports_is_found_inside_functions_too(tmp_path):
    files = dict(data__x="import data.y\n", data__z="import data.x\n")
    root = tree(tmp_path, data__y="def f():\n    from data import x\n    return x\n", **files)
    assert figure(root, "import cycles") == 1
    assert figure(tree(tmp_path, data__y="A = 1\n"), "import cycles") == 0


def test_branches_on_npu_count_outside_runtime_alone(tmp_path):
    text = "def f(device):\n    return device == 'npu' or for_npu() or device in ('a', 'b')\n"
    assert figure(tree(tmp_path, training__x=text), "branches on NPU") == 2
    (tmp_path / "training" / "x.py").unlink()
    assert figure(tree(tmp_path, runtime__x=text), "branches on NPU") == 0


@pytest.mark.parametrize(
    "text, found",
    [
        ("is_told = 1\n", [(1, "told")]),
        ('"""It goes on."""\n', [(1, "goes on")]),
        ('A = (\n    "there is no "\n    "number"\n)\n', [(2, "no number")]),
        ("# records are passed\n# over\n", [(1, "passed over")]),
        ("untold = method = judgement = 1\n", []),
        ('A = flag(1, "whose faces")\n', [(1, "whose")]),
        ('"""A net whose faces."""\nmoved = 1\n', [(2, "moved")]),
        ('"""The file is moved."""\n', []),
        ("told = 1  # word-ok: the protocol's name\n", []),
    ],
)
def test_words_of_the_list_are_found_by_line(tmp_path, text, found):
    assert words(tmp_path, text) == found


def test_documents_are_searched_for_words(tmp_path):
    root = tree(tmp_path, README_md="It was told.\nAnd told. <!-- word-ok -->\n", data__x="A = 1\n")
    assert figure(root, "words of the list") == round(1000 / 3, 1)


def test_a_figure_that_gets_worse_is_named(tmp_path):
    figures = measure(tree(tmp_path, data__x="def f(a):\n    return a\n"))
    same = {item.name: item.value for item in figures}
    assert worse(figures, same) == []
    same["modules without a sibling test"] = 0
    same["annotated public functions, percent"] = 12.5
    assert worse(figures, same) == [
        "annotated public functions, percent: 0, but 12.5 are committed.",
        "modules without a sibling test: 1, but 0 are committed.",
    ]


def test_check_fails_after_the_figures_are_better_than_the_tree(tmp_path, monkeypatch, capsys):
    path = tmp_path / "figures.json"
    monkeypatch.setattr(code_figures, "FIGURES", str(path))
    assert code_figures.main(["--update"]) == 0 and code_figures.main(["--check"]) == 0
    figures = json.loads(path.read_text())
    figures["functions: longest"] = 1
    path.write_text(json.dumps(figures))
    assert code_figures.main(["--check"]) == code_figures.WORSE
    assert "error: functions: longest:" in capsys.readouterr().err
