"""TARGET: what it names, and what is said when it names nothing."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightwork.cli.problem import WrongUse
from lightwork.cli.target import load


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Modules and paths that a test brings in are gone behind it."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def refused(target: str) -> str:
    with pytest.raises(WrongUse) as caught:
        load(target)
    message = str(caught.value)
    assert "lightwork/cli" not in message, "frames of ours"
    assert "importlib" not in message, "frames of the import system"
    return message


def test_modules() -> None:
    assert load("math:factorial") is math.factorial
    assert load("pathlib:Path.exists") == Path.exists
    assert load("xml.dom.minidom:parseString").__name__ == "parseString"
    assert load("builtins:len") is len


def test_a_module_in_the_current_folder(tmp_path: Path) -> None:
    Path("here_it_is.py").write_text("def f(x): return x + 1")
    assert load("here_it_is:f")(1) == 2


def test_files(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "my_tools.py").write_text("import beside\nclass C:\n    def m(self): return beside.X")
    (folder / "beside.py").write_text("X = 5")
    found = load("a folder/my_tools.py:C.m")
    assert found.__module__ == "my_tools"
    assert str(folder) in sys.path
    (tmp_path / "with-hyphen.py").write_text("f = len")
    assert load("./with-hyphen.py:f") is len


def test_a_file_of_a_package(tmp_path: Path) -> None:
    inner = tmp_path / "outer_package" / "inner"
    inner.mkdir(parents=True)
    (inner.parent / "__init__.py").write_text("Y = 7")
    (inner / "__init__.py").write_text("")
    (inner / "deep.py").write_text("from .. import Y\ndef f(): return Y")
    found = load("outer_package/inner/deep.py:f")
    assert found.__module__ == "outer_package.inner.deep"
    assert found() == 7


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("math.factorial", ["module:function", "did you mean 'math:factorial'?"]),
        ("math", ["module:function"]),
        (":f", ["module:function"]),
        ("math:", ["module:function"]),
        ("tools.py", ["which function of it?"]),
        ("math:factorail", ["'math' has no 'factorail'", "did you mean 'factorial'?"]),
        ("math:pi.x", ["has no 'pi.x'"]),
        ("math:pi", ["is of type float, which cannot be called"]),
        ("no_such_module:f", ["there is no module 'no_such_module'"]),
        ("xml.nosuch:f", ["there is no module 'xml.nosuch'"]),
        ("nosuch.py:f", ["the file 'nosuch.py' does not exist"]),
        ("a/b/:f", ["the file 'a/b/' does not exist"]),
        ("/tmp:f", ["is a folder"]),
    ],
)
def test_wrong_targets(target: str, words: list[str]) -> None:
    message = refused(target)
    for word in words:
        assert word in message


def test_files_that_cannot_be_modules(tmp_path: Path) -> None:
    Path("a.b.py").write_text("")
    assert "dot in its name" in refused("a.b.py:f")
    Path("text.txt").write_text("")
    assert "must end in .py" in refused("./text.txt:f")
    Path("json.py").write_text("def f(): pass")
    assert "rename the file" in refused("json.py:f")


def test_a_failing_import_shows_the_users_frames_only(tmp_path: Path) -> None:
    Path("breaks.py").write_text("def g():\n    return 1 / 0\n\ng()\n")
    message = refused("breaks.py:g")
    assert "importing 'breaks' failed" in message
    assert "line 4, in <module>" in message
    assert "line 2, in g" in message
    assert message.endswith("ZeroDivisionError: division by zero")
    Path("lacks.py").write_text("import no_such_thing_at_all")
    message = refused("lacks:f")
    assert "line 1, in <module>" in message
    assert "No module named 'no_such_thing_at_all'" in message
    Path("garbled.py").write_text("def f(:\n")
    assert "SyntaxError" in refused("garbled.py:f")
    Path("leaves.py").write_text("import sys; sys.exit(3)")
    assert "SystemExit(3)" in refused("leaves.py:f")
