"""The documentation: its links lead somewhere, and its commands are ones that the scripts take."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from runtime.cli import ROOT

FOLDERS = ("", "docs/", "docs/zh/")
PAGES = sorted(
    folder + name
    for folder in FOLDERS
    for name in os.listdir(os.path.join(ROOT, folder))
    if name.endswith(".md")
)
# English page -> its translation
CHINESE = {page.replace("/zh/", "/"): page for page in PAGES if page.startswith("docs/zh/")}
CHINESE["README.md"] = "README.zh-CN.md"
GENERATED = re.compile(r"<!-- (\w+) -->.*?<!-- /\1 -->", re.S)  # tables that a translation links to
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
            if script == "-":
                continue  # a program on the standard input
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


def code_lines(text):
    """The lines of indented and of fenced blocks."""
    fenced = re.findall(r"^ *```.*?\n(.*?)^ *```$", text, re.M | re.S)
    return [re.findall(r"^    .*$", text, re.M), fenced]


def figures(text):
    """Numbers outside code with a fraction, a thousands separator or an exponent."""
    return sorted(re.findall(r"\d[\d,]*\.\d{2,}|\d+(?:,\d{3})+|\d+e-\d+", text))


def linked_files(page, text):
    """Files and sites that a page links to, except for the page itself and its translation."""
    same = {each for pair in CHINESE.items() if page in pair for each in pair}
    found = []
    for target in LINK.findall(text):
        path = target.partition("#")[0]
        if path and not re.match(r"\w+:", path):
            path = os.path.normpath(os.path.join(os.path.dirname(page), path))
        if path and path not in same:
            found.append(path.replace("docs/zh/", "docs/"))
    return sorted(found)


@pytest.mark.parametrize("english", sorted(CHINESE))
def test_a_chinese_page_has_the_content_of_the_english_one(english):
    """The same commands, figures, links, and number of headings and table rows."""
    chinese = CHINESE[english]
    pages = [GENERATED.sub("", text_of(english)), text_of(chinese)]
    for part in (
        code_lines,
        figures,
        lambda text: len(HEADING.findall(text)),
        lambda text: len(re.findall(r"^\|", text, re.M)),
    ):
        original, translated = map(part, pages)
        assert original == translated, chinese
    assert linked_files(english, pages[0]) == linked_files(chinese, pages[1]), chinese


@pytest.mark.parametrize("english", sorted(CHINESE))
def test_pages_in_two_languages_link_to_each_other(english):
    chinese = CHINESE[english]
    for page, other in ((english, chinese), (chinese, english)):
        first = LINK.search(text_of(page))
        assert first, page
        target = os.path.normpath(os.path.join(os.path.dirname(page), first.group(1)))
        assert target == os.path.normpath(other), page
