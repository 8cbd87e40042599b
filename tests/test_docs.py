"""The documentation is true: its examples run, and its links lead somewhere.

In README.md and docs/*.md:

* each ``python`` block runs in a fresh interpreter; one whose first line is ``# name.py`` is also
  kept under this name. An ``output`` block right behind it is what it must print;
* each ``console`` block is run by bash, command by command (``$ ...``), and must print what
  follows each: times may differ, a line that ends in
  ``...`` may go on, and a line ``...`` stands for any lines.

The blocks of a page share a folder, and run in order.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.scripts import ROOT, run_command

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


class Block(NamedTuple):
    """A fenced block, and the output block behind it."""

    kind: str
    line: int
    text: str
    output: str | None


def blocks(page: Path) -> Iterator[Block]:
    fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    found = list(fence.finditer(page.read_text(encoding="utf-8")))
    for at, match in enumerate(found):
        output = None
        if at + 1 < len(found):
            behind = found[at + 1]
            if behind[1] == "output" and not match.string[match.end() : behind.start()].strip():
                output = behind[2]
        line = match.string.count("\n", 0, match.start()) + 2
        yield Block(match[1], line, match[2], output)


def run_python(block: Block, page: Path, folder: Path) -> None:
    name = re.match(r"# (\w+\.py)\n", block.text)
    path = folder / (name[1] if name else f"line_{block.line}.py")
    path.write_text(block.text, encoding="utf-8")
    ran = run_command([sys.executable, str(path)], cwd=folder)
    where = f"{page.name}, line {block.line}"
    assert ran.status == 0, f"{where}:\n{ran.err}"
    if block.output is not None:
        assert like(ran.out, block.output), f"{where} printed:\n{ran.out}"


def run_console(block: Block, page: Path, folder: Path) -> None:
    parts = re.split(r"^\$ (.*(?:\\\n.*)*)\n", block.text, flags=re.MULTILINE)
    assert not parts[0].strip(), f"{page.name}, line {block.line}: no command first"
    for command, expected in zip(parts[1::2], parts[2::2], strict=True):
        if command.startswith("pip install"):
            continue
        python = f'python() {{ {sys.executable} "$@"; }}'
        script = f'exec 2>&1\n{python}\nlightwork() {{ python -m lightwork "$@"; }}\n{command}'
        ran = run_command(["bash", "-c", script], cwd=folder)
        where = f"{page.name}, line {block.line}, $ {command}"
        assert like(ran.out, expected), f"{where} printed:\n{ran.out}"


def like(found: str, expected: str) -> bool:
    """Whether texts are the same but for times, and lines where ``...`` allows any."""
    pattern = ""
    for line in expected.strip().splitlines():
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
            continue
        exact = re.escape(line.removesuffix("..."))
        exact += ".*" * line.endswith("...")
        pattern += re.sub(r"\d+\\\.\d+\\ s\b", r"\\d+\\.\\d+ s", exact) + r"\n"
    return re.fullmatch(pattern, found.strip() + "\n" if found.strip() else "") is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.kind == "python":
            run_python(block, page, tmp_path)
        elif block.kind == "console":
            run_console(block, page, tmp_path)


def anchors(page: Path) -> set[str]:
    """The names by which the headings of a page are linked to."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", one.lower()) for one in headings)
    return {one.strip().replace(" ", "-") for one in kept}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page.name}: {target}"
