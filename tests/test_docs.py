"""The documentation: its links lead somewhere, and its commands are ones that the scripts take."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from runtime.cli import ROOT

PAGES = sorted(
    [name for name in os.listdir(ROOT) if name.endswith(".md")]
    + [f"docs/{name}" for name in os.listdir(os.path.join(ROOT, "docs")) if name.endswith(".md")]
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.M)
SCRIPT = re.compile(r"^(?:python3?|\.venv\S*/python) ((?:-m )?\S+)")
# Scripts with verbs: each has its own flags.
VERBS = ("infer.py", "facebank.py")


def text_of(page):
    with open(os.path.join(ROOT, page), encoding="utf-8") as stream:
        return stream.read()


def anchor(heading):
    """What a Markdown renderer makes of a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower().replace("`", ""))
    return kept.strip().replace(" ", "-")


def commands_of(text):
    """The commands of indented blocks, continued lines joined, without comments."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = [line[4:] for line in joined.splitlines() if line.startswith("    ")]
    return [line.split("  #")[0].strip() for line in lines if SCRIPT.match(line)]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    directory = os.path.dirname(os.path.join(ROOT, page))
    for target in LINK.findall(text_of(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, fragment = target.partition("#")
        full = os.path.normpath(os.path.join(directory, path)) if path else os.path.join(ROOT, page)
        assert os.path.exists(full), f"{page}: {target}"
        if fragment and full.endswith(".md"):
            headings = HEADING.findall(text_of(os.path.relpath(full, ROOT)))
            assert fragment in [anchor(each) for each in headings], f"{page}: {target}"


def calls():
    """{script and verb: [(page, flags)]} of every command in the documentation."""
    found = {}
    for page in PAGES:
        for command in commands_of(text_of(page)):
            try:
                words = shlex.split(command.replace("…", ""))
            except ValueError:
                continue  # a quotation over several lines
            rest = words[words.index("-m") + 1 :] if "-m" in words[:2] else words[1:]
            script = rest[0]
            if script in VERBS and len(rest) > 1 and not rest[1].startswith("-"):
                script = f"{rest[0]} {rest[1]}"
            module = "-m " if "-m" in words[:2] else ""
            flags = [word.split("=")[0] for word in rest if re.match(r"--\w", word)]
            found.setdefault(module + script, []).append((page, flags))
    return found


CALLS = calls()


def test_the_documentation_has_commands():
    assert len(CALLS) > 10


@pytest.mark.parametrize("script", sorted(CALLS))
def test_flags_of_documented_commands_exist(script):
    words = script.split()
    if words[0] != "-m":
        if not words[0].endswith(".py") or words[0].startswith(("/", "-")):
            pytest.skip("not a script of this repository")
        assert os.path.exists(os.path.join(ROOT, words[0])), script
    flags = {flag for _, found in CALLS[script] for flag in found}
    if not flags or words[:2] == ["-m", "pytest"] or words[:2] == ["-m", "pip"]:
        return
    every = "--help_all" if words[0].startswith("train_nets") else "--help"
    done = subprocess.run(
        [sys.executable] + words + [every],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    known = {"--help", "--help_all"} | set(re.findall(r"--\w+", done.stdout))
    for page, found in CALLS[script]:
        missing = sorted(set(found) - known)
        assert not missing, f"{page}: {script} has no {missing}"


def test_the_chinese_readme_follows_the_english_one():
    """The same commands, figures, links and number of headings and table rows."""
    pages = [text_of("README.md"), text_of("README.zh-CN.md")]
    for part in (
        lambda text: re.findall(r"^    .*$", text, re.M),
        lambda text: sorted(re.findall(r"\d\.\d{2,}", text)),
        lambda text: sorted(link for link in LINK.findall(text) if "README" not in link),
        lambda text: len(HEADING.findall(text)),
        lambda text: len(re.findall(r"^\|", text, re.M)),
    ):
        english, chinese = map(part, pages)
        assert english == chinese
