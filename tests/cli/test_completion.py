"""Shell completion, and examples of ``--help`` that work."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lightwork import Pool
from lightwork.cli import completion
from lightwork.cli.entry import PARSERS
from tests.scripts import environment, run_command

TOOLS = """
def check(path):
    return len(path)

async def checked(x): ...

class Tool:
    def inner(self): ...
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tools.py").write_text(TOOLS)
    (tmp_path / "names.txt").write_text("a\nbb\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(*given: str) -> list[str]:
    return list(completion.candidates(given, PARSERS))


def test_words(here: Path) -> None:
    assert words("ma") == ["map"]
    assert "--resume" in words("map", "--re")
    assert "--range" in words("map", "--r")
    assert words("map", "x:y", "--kind", "th") == ["threads"]
    assert words("map", "x:y", "--on-error", "") == ["raise", "return", "skip"]
    assert words("map", "x:y", "--lines", "na") == [completion.FILES]
    assert words("map", "x:y", "--workers", "") == []
    assert words("map", "too") == [completion.FILES]
    assert words("map", "mat")[0] == completion.FILES
    assert "math:" in words("map", "mat")
    assert words("map", "tools.py:") == ["tools.py:check", "tools.py:checked"]
    assert words("map", "tools:checked") == ["tools:checked"]
    assert words("map", "json:dum") == ["json:dump", "json:dumps"]
    assert words("map", "nosuch.py:x") == []
    assert words("map", "tools.py:check", "") == []  # an item: anything
    assert words("completion", "") == ["bash", "fish", "zsh"]
    assert words("nosuch", "") == []
    assert {*words("")} >= {"map", "top", "completion", "advise", "bench", "demo", "doctor"}
    assert words("demo", "prim") == ["primes"]
    assert "--verify" in words("advise", "--")


def test_names_of_pools_that_can_be_looked_at(here: Path) -> None:
    with Pool("threads", 1, name="thumbnails", monitor=True):
        assert "thumbnails" in words("top", "thumb")


def test_every_option_is_completed() -> None:
    for name, make in PARSERS.items():
        known = words(name, "--")
        for action in make()._actions:
            assert set(known) >= {one for one in action.option_strings if one.startswith("--")}


def complete_in_bash(here: Path, line: str) -> list[str]:
    """What bash offers for the last word of a line."""
    script = f"""
        lightwork() {{ {sys.executable} -m lightwork "$@"; }}
        source <(lightwork completion bash)
        COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}
        _lightwork
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=here,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert not done.stderr, done.stderr
    return done.stdout.split()


def test_bash(here: Path) -> None:
    assert complete_in_bash(here, "lightwork to") == ["top"]
    assert complete_in_bash(here, "lightwork map --resu") == ["--resume"]
    assert complete_in_bash(here, "lightwork map x:y --lines na") == ["names.txt"]
    assert complete_in_bash(here, "lightwork map tools.p") == ["tools.py"]
    # A colon begins a word of its own: what is before it stands.
    assert complete_in_bash(here, "lightwork map tools.py:che") == ["check", "checked"]
    assert complete_in_bash(here, "lightwork map x:y --kind s") == ["serial"]


def complete_in_zsh(here: Path, line: str) -> list[str]:
    """What zsh is told to offer; its own completion of files is a word here."""
    script = f"""
        lightwork() {{ {sys.executable} -m lightwork "$@"; }}
        compdef() {{ completer=$1 }}
        _files() {{ print FILES }}
        compadd() {{ shift; print -l -- "$@" }}
        source <(lightwork completion zsh)
        line={line!r}
        words=(${{=line}})
        [[ $line == *" " ]] && words+=("")
        CURRENT=${{#words}}
        $completer
    """
    return offered(["zsh", "-f", "-c", script], here)


def complete_in_fish(here: Path, line: str) -> list[str]:
    """What fish offers."""
    script = f"""
        function lightwork; {sys.executable} -m lightwork $argv; end
        lightwork completion fish | source
        complete -C {line!r}
    """
    return offered(["fish", "--no-config", "-c", script], here)


def offered(command: list[str], here: Path) -> list[str]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    ran = run_command(command, cwd=here, env={"HOME": str(here)})
    assert (ran.status, ran.err) == (0, "")
    return [word for word in ran.out.splitlines() if word]


@pytest.mark.parametrize("complete", (complete_in_zsh, complete_in_fish))
def test_other_shells(complete: Callable[[Path, str], list[str]], here: Path) -> None:
    files = complete is complete_in_fish  # they are completed by it, too, and not only named
    assert complete(here, "lightwork to") == ["top"]
    assert complete(here, "lightwork map --resu") == ["--resume"]
    assert complete(here, "lightwork map x:y --lines na") == ["names.txt" if files else "FILES"]
    assert complete(here, "lightwork map tools.py:chec") == ["tools.py:check", "tools.py:checked"]
    assert complete(here, "lightwork map x:y --kind s") == ["serial"]
    assert sorted(complete(here, "lightwork completion ")) == ["bash", "fish", "zsh"]
    assert complete(here, "lightwork map x:y --workers ") == []


def test_scripts_are_printed() -> None:
    for shell in ("bash", "zsh", "fish"):
        ran = run_command([sys.executable, "-m", "lightwork", "completion", shell])
        assert ran.out == completion.SCRIPTS[shell]
        assert completion.FILES in ran.out
    wrong = run_command([sys.executable, "-m", "lightwork", "completion", "tcsh"])
    assert wrong.status == 2


def examples(command: str) -> list[str]:
    """What ``--help`` shows under its examples."""
    ran = run_command([sys.executable, "-m", "lightwork", *command.split(), "--help"])
    assert ran.status == 0
    _, _, found = ran.out.partition("examples:\n")
    return [line.strip() for line in found.splitlines() if line.strip()]


def test_examples_of_map(here: Path) -> None:
    """Each runs as it stands, in order, with the files that it names; but with fewer numbers."""
    (here / "pairs.jsonl").write_text("[2, 3]\n[3, 2]\n")
    (here / "names.txt").write_text("a\n")
    found = examples("map")
    assert len(found) >= 7
    for line in found:
        line = line.replace("0:1000000", "0:10000")
        script = f'lightwork() {{ {sys.executable} -m lightwork "$@"; }}\n{line}'
        ran = run_command(["bash", "-c", script], cwd=here)
        assert ran.status == 0, (line, ran.err)
        for file in re.findall(r"(?:-o|--failed|--report|--trace) (\S+)", line):
            assert (here / file).exists(), line
    assert (here / "roots.jsonl").read_text().count("\n") == 10_000


MORE_TOOLS = """
def square(x): return x * x
def fetch(url): return len(url)
def render(path): return path.upper()
"""


@pytest.mark.parametrize("command", ("advise", "bench", "demo", ""))
def test_examples_of_others(command: str, here: Path) -> None:
    (here / "tools.py").write_text(MORE_TOOLS)
    (here / "urls.txt").write_text("a\nb\n")
    (here / "scenes.txt").write_text("a\nb\n")
    found = examples(command)
    assert found
    for line in found:
        if "--plot" in line:
            pytest.importorskip("matplotlib")
        ran = run_command([sys.executable, "-m", *line.split()], cwd=here)
        assert ran.status == 0 or "doctor" in line, (line, ran)  # who may have found something
        assert ran.out, line


def test_all_commands_are_told() -> None:
    ran = run_command([sys.executable, "-m", "lightwork", "--help"])
    told = re.findall(r"^  (\w+)  ", ran.out.partition("commands:\n")[2], re.MULTILINE)
    assert sorted(told) == sorted(PARSERS)


def test_examples_of_top_are_understood() -> None:
    for line in examples("top"):
        if "--stacks" in line:
            continue  # needs py-spy
        ran = run_command([sys.executable, "-m", *line.split()])
        assert ran.status == 2, (line, ran)
        assert "can be seen" in ran.err
