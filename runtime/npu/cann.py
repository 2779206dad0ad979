"""Which version of CANN is installed, by `--cann` or by the toolkit's own files."""

import glob
import os
import re
from typing import List, Mapping, NamedTuple, Optional, Tuple

from runtime.npu.option_table import Version, spelled, table

AUTO = "auto"
HOME = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")  # set by the toolkit's set_env.sh
ASSUMED = (7, 0)  # where the environment does not show one: the default before --cann auto

# The toolkit's files, and the expression for CANN's version in each. "Version=7.6.0.1.220" is
# the component's; CANN's is version_dir, and in version.cfg what follows the colon.
_FILES = (
    ("version.cfg", r"^toolkit_running_version=\[[^:\]]*:([^\]]+)\]"),
    ("*-linux/ascend_toolkit_install.info", r"^version=(\S+)"),
    ("share/info/ascend_toolkit_install.info", r"^version=(\S+)"),
    ("version.info", r"^version_dir=(\S+)"),
    ("toolkit/version.info", r"^version_dir=(\S+)"),
    ("compiler/version.info", r"^version_dir=(\S+)"),
)


class Installed(NamedTuple):
    """A version of CANN, and where it is known from."""

    version: Version  # major and minor
    source: str  # a phrase for the log


def chosen_cann(text: str, environ: Mapping[str, str]) -> Installed:
    """--cann -> the version: "8" or "6.3.RC1" as it is given, "auto" from the environment."""
    if text != AUTO:
        return Installed(cann_version(text), "by --cann")
    for name in HOME:
        root = environ.get(name)
        if root:
            return _installed(name, root)
    return Installed(ASSUMED, f"as {HOME[0]} is not set; --cann names another")


def cann_version(text: str) -> Version:
    """ "6.3.RC1" -> (6, 3), "9" -> (9, 0); a version outside the table is an error."""
    version, columns = _parsed(text), table().columns
    if version is None or not columns[0] <= version <= (columns[-1][0], 99):
        raise ValueError(
            f"--cann {text} is not a version that is known here; pass one from "
            f"{spelled(columns[0])} to {spelled(columns[-1])}, as the installation's version.cfg "
            f"has it, or {AUTO}."
        )
    return version


def _installed(name: str, root: str) -> Installed:
    looked: List[str] = []
    for pattern, expression in _FILES:
        for path in sorted(glob.glob(os.path.join(root, pattern))):
            looked.append(path)
            found = _search(path, expression)
            if found and _parsed(found):
                return Installed(cann_version(found), f"by {path}")
    where = f"{', '.join(looked)} name no version" if looked else f"{root} has no version.cfg"
    raise ValueError(
        f"--cann auto: {name} is {root}, and {where}; pass --cann with the version that is "
        "installed."
    )


def _search(path: str, expression: str) -> Optional[str]:
    with open(path, encoding="utf-8", errors="replace") as stream:
        found = re.search(expression, stream.read(), re.MULTILINE)
    return found.group(1) if found else None


def _parsed(text: str) -> Optional[Tuple[int, int]]:
    found = re.match(r"^(\d+)(?:\.(\d+)(?:[.-].*)?)?$", text)
    return (int(found.group(1)), int(found.group(2) or 0)) if found else None
