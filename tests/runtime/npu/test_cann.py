import pytest

from runtime.npu.cann import ASSUMED, AUTO, HOME, cann_version, chosen_cann


def installed(tmp_path, name, text):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return chosen_cann(AUTO, {HOME[0]: str(tmp_path)})


@pytest.mark.parametrize(
    "text, version", [("8", (8, 0)), ("9", (9, 0)), ("6.3.RC1", (6, 3)), ("5.0.2", (5, 0))]
)
def test_a_version_is_its_first_two_numbers(text, version):
    assert cann_version(text) == version


@pytest.mark.parametrize("text", ["4.9", "10", "RC1", "", "7.x", "eight"])
def test_a_version_outside_the_table_is_refused(text):
    with pytest.raises(ValueError, match="is not a version that is known here; pass one from 5.0"):
        cann_version(text)


@pytest.mark.parametrize(
    "name, text",
    [
        ("version.cfg", "# version: 1.0\ntoolkit_running_version=[7.6.0.1.220:8.0.0]\n"),
        ("x86_64-linux/ascend_toolkit_install.info", "package_name=x\nversion=8.0.RC3\n"),
        ("share/info/ascend_toolkit_install.info", "version=8.0.RC3\n"),
        ("version.info", "Version=7.6.0.1.220\nversion_dir=8.0.0\n"),
        ("toolkit/version.info", "Version=7.6.0.1.220\nversion_dir=8.0.0\n"),
        ("compiler/version.info", "Version=7.6.0.1.220\nversion_dir=8.0.0\n"),
    ],
)
def test_auto_reads_the_toolkits_own_file(tmp_path, name, text):
    found = installed(tmp_path, name, text)
    assert found.version == (8, 0)
    assert found.source == f"by {tmp_path / name}"


def test_the_components_number_is_not_taken_for_canns(tmp_path):
    with pytest.raises(ValueError, match="version.info name no version; pass --cann"):
        installed(tmp_path, "toolkit/version.info", "Version=7.6.0.1.220\n")


def test_a_toolkit_without_a_version_file_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=f"{HOME[0]} is {tmp_path}, and .* has no version.cfg"):
        chosen_cann(AUTO, {HOME[0]: str(tmp_path)})


def test_without_a_toolkit_the_version_is_assumed_and_the_log_phrase_says_so():
    found = chosen_cann(AUTO, {})
    assert found.version == ASSUMED
    assert found.source == "as ASCEND_HOME_PATH is not set; --cann names another"


def test_the_flag_stands_above_the_environment(tmp_path):
    found = chosen_cann("9.1", {HOME[0]: str(tmp_path)})
    assert found == ((9, 1), "by --cann")
