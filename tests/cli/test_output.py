"""Lines in order, and files that are not destroyed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightwork.cli.output import Lines, Output, to_file
from lightwork.cli.problem import WrongUse


class Paper(Output):
    """Keeps what is written."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, text: str) -> None:
        self.lines.append(text)


@given(st.permutations(range(12)), st.sets(st.integers(0, 11)))
def test_lines_come_in_order_as_early_as_can_be(order: list[int], silent: set[int]) -> None:
    paper = Paper()
    lines = Lines(paper, ordered=True)
    seen: set[int] = set()
    for index in order:
        lines.put(index, None if index in silent else str(index))
        seen.add(index)
        first_gap = next(one for one in range(13) if one not in seen)
        assert paper.lines == [str(one) for one in range(first_gap) if one not in silent]
        assert lines.held == len(seen) - first_gap


def test_unordered_lines_come_at_once() -> None:
    paper = Paper()
    lines = Lines(paper, ordered=False)
    for index in (2, 0, 1):
        lines.put(index, str(index))
    assert paper.lines == ["2", "0", "1"]


def test_at_the_end_gaps_are_skipped() -> None:
    paper = Paper()
    lines = Lines(paper, ordered=True)
    for index in (5, 0, 3, 2):
        lines.put(index, str(index))
    assert paper.lines == ["0"]
    lines.write_rest()
    lines.write_rest()
    assert paper.lines == ["0", "2", "3", "5"]


def test_a_file_is_emptied_by_the_first_line_only(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old\nold\n")
    output = to_file(str(path), [])
    assert path.read_text() == "old\nold\n"
    output.write("new \udcff")
    output.close(started=True)
    assert path.read_text() == "new \\udcff\n"


def test_a_run_that_never_started_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "out"
    to_file(str(path), []).close(started=False)
    assert not path.exists()
    path.write_text("old")
    to_file(str(path), []).close(started=False)
    assert path.read_text() == "old"
    to_file(str(path), []).close(started=True)  # a run without results is a result
    assert path.read_text() == ""


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="cannot write .*: Is a directory"):
        to_file(str(tmp_path), [])
    with pytest.raises(WrongUse, match="cannot write .*: No such file"):
        to_file(str(tmp_path / "nosuch" / "out"), [])
    path = tmp_path / "in"
    path.write_text("1\n")
    os.link(path, tmp_path / "same")
    with pytest.raises(WrongUse, match="is the file that the items are read from"):
        to_file(str(tmp_path / "same"), ["", str(path)])
    if os.geteuid():
        path.chmod(stat.S_IRUSR)
        with pytest.raises(WrongUse, match="cannot write .*: Permission denied"):
            to_file(str(path), [])


def test_what_is_no_file_is_not_emptied() -> None:
    output = to_file("/dev/null", [])
    output.write("x")
    output.close(started=True)
