"""Where items come from, and what is wrong with them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightwork.cli.items import END, PAUSE, Source, from_file, from_range, from_words
from lightwork.cli.problem import WrongUse


def everything(source: Source) -> list[Any]:
    return list(_each(source))


def _each(source: Source) -> Iterator[Any]:
    while (item := source.get(5.0)) is not END:
        assert item is not PAUSE
        yield item


@pytest.mark.parametrize(
    ("word", "item"),
    [
        ("5", 5),
        ("-3", -3),
        ("1.5", 1.5),
        ("1e+20", 1e20),
        ("007", "007"),
        ("1.10", "1.10"),
        ("1e3", "1e3"),
        ("1_000", "1_000"),
        ("+1", "+1"),
        (" 1", " 1"),
        ("٣", "٣"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("-0", "-0"),
        ("", ""),
        ("true", "true"),
    ],
)
def test_words(word: str, item: object) -> None:
    (found,) = everything(from_words([word], star=False))
    assert found == item
    assert type(found) is type(item)


@given(st.text() | st.integers().map(str) | st.floats().map(str))
def test_no_word_loses_anything(word: str) -> None:
    (found,) = everything(from_words([word], star=False))
    assert str(found) == word


def test_words_with_star() -> None:
    assert everything(from_words(["[1, 2]", '{"a": 1}'], star=True)) == [[1, 2], {"a": 1}]
    with pytest.raises(WrongUse, match="item 2: --star takes a list or an object, not 5"):
        from_words(["[1]", "5"], star=True)
    with pytest.raises(WrongUse, match="item 1: not JSON at column 1"):
        from_words(["x"], star=True)


def test_ranges() -> None:
    assert everything(from_range("2:5")) == [2, 3, 4]
    assert everything(from_range("5:-5:-5")) == [5, 0]
    assert everything(from_range("3:3")) == []
    assert from_range("0:10:3").total == 4
    endless = from_range("0:" + "9" * 30)
    assert endless.total is None
    assert endless.get(None) == 0


@pytest.mark.parametrize("text", ["", "5", "a:b", "1:2:3:4", "0:5:0", "0.5:2", ":5", "1:"])
def test_bad_ranges_are_shown(text: str) -> None:
    with pytest.raises(WrongUse, match="A:B") as caught:
        from_range(text)
    assert repr(text) in str(caught.value)


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def test_lines(tmp_path: Path) -> None:
    name = write(tmp_path / "x", b"\xef\xbb\xbfone\r\n\ntwo \n\xff\nlast")
    found = everything(from_file(name, jsonl=False, star=False))
    assert found == ["one", "", "two ", "\udcff", "last"]
    assert os.fsencode(found[3]) == b"\xff"


@given(st.lists(st.binary(max_size=40).filter(lambda one: b"\n" not in one), max_size=20))
def test_lines_of_any_bytes_come_back(lines: list[bytes]) -> None:
    lines = [b"first", *lines]  # a mark of byte order may stand before the first
    pipe = Pipe()
    pipe.say(b"".join(line + b"\n" for line in lines))
    pipe.close()
    found = [os.fsencode(one) for one in everything(pipe.source)]
    assert found == [line.removesuffix(b"\r") for line in lines]


def test_a_line_longer_than_any_buffer(tmp_path: Path) -> None:
    name = write(tmp_path / "x", b"a" * 1_000_000 + b"\nb")
    assert everything(from_file(name, jsonl=False, star=False)) == ["a" * 1_000_000, "b"]


def test_jsonl(tmp_path: Path) -> None:
    name = write(tmp_path / "x", '1\n\n  {"ä": [null]}\r\n"x"'.encode())
    assert everything(from_file(name, jsonl=True, star=False)) == [1, {"ä": [None]}, "x"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"{", "line 3: not JSON at column 2"),
        (b"nope", "line 3: not JSON at column 1"),
        (b'"\xff"', "line 3: not UTF-8 at byte 2"),
        (b"[" * 100_000, "line 3: not JSON"),
    ],
)
def test_a_bad_line_is_named_behind_the_good_ones(tmp_path: Path, bad: bytes, message: str) -> None:
    source = from_file(write(tmp_path / "x", b"1\n\n" + bad + b"\n5"), jsonl=True, star=False)
    assert source.get(None) == 1
    with pytest.raises(WrongUse, match=message):
        source.get(None)


def test_star_wants_lists_or_objects(tmp_path: Path) -> None:
    source = from_file(write(tmp_path / "x", b"[1]\n5"), jsonl=True, star=True)
    assert source.get(None) == [1]
    with pytest.raises(WrongUse, match="line 2: --star takes a list or an object, not 5"):
        source.get(None)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="cannot read .*nosuch': No such file"):
        from_file(str(tmp_path / "nosuch"), jsonl=False, star=False)
    with pytest.raises(WrongUse, match="it is a folder"):
        from_file(str(tmp_path), jsonl=False, star=False)


class Pipe:
    """A source whose other end the test writes."""

    def __init__(self) -> None:
        read, self.end = os.pipe()
        self.source = from_file(f"/dev/fd/{read}", jsonl=False, star=False)
        os.close(read)

    def say(self, data: bytes) -> None:
        os.write(self.end, data)

    def close(self) -> None:
        os.close(self.end)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    one = Pipe()
    yield one
    one.close()  # the reader sees the end of the pipe
    one.source.close()


def test_a_pipe_is_waited_for_only_so_long(pipe: Pipe) -> None:
    assert pipe.source.live
    assert pipe.source.get(0.01) is PAUSE
    pipe.say(b"a\nb\nc")
    assert [pipe.source.get(5.0), pipe.source.get(5.0)] == ["a", "b"]
    assert pipe.source.get(0.01) is PAUSE  # c may go on
    pipe.say(b"d\n")
    assert pipe.source.get(5.0) == "cd"


def test_closing_ends_a_wait(pipe: Pipe) -> None:
    threading.Timer(0.05, pipe.source.close).start()
    assert pipe.source.get(3600.0) is END


def test_a_pipe_is_not_read_far_ahead(pipe: Pipe) -> None:
    done = threading.Event()

    def fill() -> None:
        for _ in range(100):
            pipe.say(b"x\n" * 2048)
        done.set()

    thread = threading.Thread(target=fill)
    thread.start()
    assert not done.wait(0.1)  # 400 KB: more than what the pipe and the reader hold
    for _ in range(204_800):
        assert pipe.source.get(5.0) == "x"
    thread.join()
