"""The table from an adapter's source; the sources are written here, in the adapter's form."""

import json

import pytest

from runtime.npu.option_table import PATH, load, option_at, spelled, table
from tools.npu_options_table import ATTRIBUTES, CHANGED, READS, Found, dumped, main, read_checkout

GETTERS = {bool: "b", int: "i", str: "s"}
DECLARED = {bool: "bool", int: "int64_t", str: "std::string"}


def source(version, without=(), **added):
    """A source that reads what the table has for a version, and {name: (type, default)}."""
    lines = [f"Status NpuAttrs::{READS} &options, Node *node) {{"]
    options = {name: option_at(name, version) for name in table().options}
    wanted = {
        name: (option.kind, option.default, option.choices)
        for name, option in options.items()
        if option.read[version] and name not in without
    }
    wanted.update({name: (kind, default, ()) for name, (kind, default) in added.items()})
    for name, (kind, default, _) in wanted.items():
        value = {True: "true", False: "false"}.get(default, default) if kind is bool else default
        value = f'"{value}"' if kind is str else f"{value}L" if kind is int else value
        lines.append(
            f"  {DECLARED[kind]} {name}" + (f" = {value};" if default is not None else ";")
        )
    for name, (kind, _, choices) in wanted.items():
        lines.append(f'      if (params.count("{name}") > 0) {{')
        lines.append(f'        {name} = params.at("{name}").{GETTERS[kind]}();')
        if choices and kind is str:
            items = ",\n".join(f'"{choice}"' for choice in choices)
            lines.append(f"        const static std::vector<std::string> k{name} = {{{items}}};")
            lines.append(
                f'NPU_REQUIRES_OK(CheckValueAllowed<std::string>("{name}", {name}, k{name}));'
            )
        lines.append("      }")
    return "\n".join(lines + ["}"])


def checkout(tmp_path, name, text):
    path = tmp_path / name / ATTRIBUTES
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return str(tmp_path / name)


@pytest.fixture
def copy(tmp_path):
    path = tmp_path / "options.json"
    with open(PATH, encoding="utf-8") as stream:
        path.write_text(stream.read())
    return str(path)


@pytest.mark.parametrize("version", [(7, 0), (9, 0)], ids=spelled)  # with no unknown option
def test_a_checkout_with_the_tables_options_changes_none_of_them(tmp_path, copy, version):
    directory = checkout(tmp_path, "same", source(version))
    main([f"{spelled(version)}={directory}", "--table", copy])
    found = load(copy)
    assert found.options == table().options and found.variants == table().variants
    assert found.adapters[version] == "same"


def test_an_option_that_a_checkout_lacks_is_gone_in_that_version(tmp_path, copy):
    directory = checkout(tmp_path, "main", source((9, 0), without=["aicore_num"]))
    main([f"9.0={directory}", "--table", copy])
    assert load(copy).options["aicore_num"].read[9, 0] is False


def test_an_unknown_version_becomes_known(tmp_path, copy, capsys):
    directory = checkout(tmp_path, "v8", source((9, 0), without=["aicore_num"]))
    main([f"8.0={directory}", "--table", copy])
    read = load(copy).options
    assert read["input_fusion_size"].read[8, 0] is True
    assert read["aicore_num"].read[8, 0] is False
    assert "  input_fusion_size: unknown -> read" in capsys.readouterr().out


def test_a_new_option_is_added_with_its_type_and_default(tmp_path, copy):
    directory = checkout(tmp_path, "next", source((9, 0), new_number=(int, 7)))
    main([f"9.1={directory}", "--table", copy])
    found = load(copy)
    assert found.columns[-1] == (9, 1)
    option = found.options["new_number"]
    assert (option.kind, option.default) == (int, 7)
    assert option.read[9, 1] is True and option.read[9, 0] is None


def test_another_default_of_an_older_version_is_a_variant(tmp_path, copy):
    text = source((7, 0)).replace("bool hcom_parallel = true;", "bool hcom_parallel = false;")
    main([f"7.0={checkout(tmp_path, 'old', text)}", "--table", copy])
    found = load(copy)
    assert found.variants["hcom_parallel", (7, 0)].default is False
    assert found.options["hcom_parallel"].default is True


def test_allowed_values_are_read_from_the_list_that_the_source_checks(tmp_path):
    found = read_checkout(checkout(tmp_path, "main", source((9, 0))))
    choices = table().options["precision_mode"].choices
    assert found["precision_mode"].values == choices
    assert found["input_fusion_size"] == Found("int", 131072, ())


FORMS = """
bool switched = false;
Status NpuAttrs::SetNpuOptimizerAttr(const GraphOptimizationPassOptions &options, Node *node) {
  std::string seconds;
  bool switched = true;
  std::string policy = "0";
  int64_t number = -1L;  // none
      if ((params.count("switched") > 0) && (params.at("switched").value_case() == kB)) {
        switched = params.at("switched").b();
      }
      if (params.count("seconds") > 0) {
        seconds = std::to_string(params.at("seconds").i());
      }
      if (params.count("policy") > 0) {
        policy = std::to_string(params.at("policy").i());
        const static std::vector<int32_t> kAllowList = {0, 1, 2};
        NPU_REQUIRES_OK(CheckValueAllowed<int32_t>("policy",
                                                   params.at("policy").i(), kAllowList));
      }
      if (params.count("number") > 0) {
        number = params.at("number").i();
      }
      if (params.count("named") > 0) {
        int64_t named = params.at("named").i();
      }
"""


def test_the_forms_of_the_adapters_source_are_read(tmp_path):
    assert read_checkout(checkout(tmp_path, "forms", FORMS)) == {
        "switched": Found("bool", True, ()),
        "seconds": Found("int", None, ()),
        "policy": Found("int", 0, (0, 1, 2)),
        "number": Found("int", -1, ()),
        "named": Found("int", None, ()),
    }


def test_check_writes_nothing_and_reports_by_its_exit_code(tmp_path, copy):
    before = open(copy).read()
    directory = checkout(tmp_path, "main", source((9, 0), without=["oo_level"]))
    assert main([f"9.0={directory}", "--table", copy, "--check"]) == CHANGED
    assert open(copy).read() == before


def test_check_ends_with_0_where_the_table_is_that_of_the_checkout(tmp_path, copy):
    word = f"9.0={checkout(tmp_path, 'main', source((9, 0)))}"
    main([word, "--table", copy])
    assert main([word, "--table", copy, "--check"]) == 0


@pytest.mark.parametrize(
    "word, words", [("9.0", "is not VERSION=DIRECTORY"), ("9.0=/no/such", "has no tf_adapter")]
)
def test_a_checkout_that_is_none_is_refused(copy, word, words):
    with pytest.raises(ValueError, match=words):
        main([word, "--table", copy])


def test_a_source_without_options_is_refused(tmp_path, copy):
    with pytest.raises(ValueError, match="reads no option"):
        main([f"9.0={checkout(tmp_path, 'empty', '')}", "--table", copy])


def test_the_committed_table_is_in_the_tools_own_format():
    with open(PATH, encoding="utf-8") as stream:
        text = stream.read()
    assert dumped(json.loads(text)) == text
