"""Shell completion: a few lines for each shell, which ask this command for the words.

So what is completed is what the options are, whatever they become; it costs the start of an
interpreter for each press of the key.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["FILES", "SCRIPTS", "candidates"]

FILES = ":files:"
"""Stands for what the shell itself completes."""

MORE = """\
To have it in every shell:
  echo 'source <(lightwork completion bash)' >> ~/.bashrc
  echo 'source <(lightwork completion zsh)' >> ~/.zshrc
  lightwork completion fish > ~/.config/fish/completions/lightwork.fish
"""

SCRIPTS = {
    "bash": f"""\
_lightwork() {{
    local line=${{COMP_LINE:0:COMP_POINT}} words word found
    # Not COMP_WORDS: a colon begins a word of its own there; to us module:function is one.
    read -a words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word=${{words[${{#words[@]}} - 1]}}
    local IFS=$'\n'
    found=$(lightwork completion --words "${{words[@]:1}}" 2> /dev/null)
    COMPREPLY=()
    if [[ $found == *{FILES}* ]]; then
        compopt -o filenames 2> /dev/null
        COMPREPLY=($(compgen -f -- "$word"))
    fi
    COMPREPLY+=($(compgen -W "${{found//{FILES}/}}" -- "$word"))
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${{COMPREPLY[@]#"${{word%"${{word##*:}}"}}"}}")  # what is before it stands
    fi
}}
complete -F _lightwork lightwork
""",
    "zsh": f"""\
#compdef lightwork
_lightwork() {{
    local -a found
    found=("${{(@f)$(lightwork completion --words "${{(@)words[2,CURRENT]}}" 2> /dev/null)}}")
    if (( ${{found[(Ie){FILES}]}} )); then
        _files
        found=("${{(@)found:#{FILES}}}")
    fi
    compadd -- "${{(@)found}}"
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _lightwork "$@"
else
    compdef _lightwork lightwork
fi
""",
    "fish": f"""\
function __lightwork_words
    set -l words (commandline -opc) (commandline -ct)
    for one in (lightwork completion --words $words[2..-1] 2> /dev/null)
        if test $one = {FILES}
            __fish_complete_path (commandline -ct)
        else
            echo $one
        end
    end
end
complete -c lightwork -f -a '(__lightwork_words)'
""",
}

_FILE_VALUES = frozenset({"FILE", "OUT.jsonl"})
_KINDS = ("auto", "processes", "threads", "serial")


def candidates(
    words: Sequence[str], parsers: Mapping[str, Callable[[], argparse.ArgumentParser]]
) -> Iterator[str]:
    """What the last of `words` may become; `FILES` for files. `words`: all behind ``lightwork``."""
    *before, word = words or [""]
    if not before:
        yield from _matching(word, [*parsers, "--help", "--version"])
        return
    if before[0] not in parsers:
        return
    parser = parsers[before[0]]()
    options = {name: one for one in parser._actions for name in one.option_strings}
    wanted = options.get(before[-1])
    if wanted is not None and wanted.nargs != 0:
        yield from _values(wanted, word)
    elif word.startswith("-"):
        yield from _matching(word, [name for name in options if name.startswith("--")])
    else:
        given = [
            one
            for at, one in enumerate(before[1:], 1)
            if not one.startswith("-") and not _takes_value(options.get(before[at - 1]))
        ]
        places = [one for one in parser._actions if not one.option_strings]
        if places:
            yield from _values(places[min(len(given), len(places) - 1)], word)


def _takes_value(option: argparse.Action | None) -> bool:
    return option is not None and option.nargs != 0


def _values(action: argparse.Action, word: str) -> Iterator[str]:
    if action.choices:
        yield from _matching(word, map(str, action.choices))
    elif action.metavar == "TARGET":
        yield from _targets(word)
    elif action.metavar in _FILE_VALUES:
        yield FILES
    elif action.dest == "kind":
        yield from _matching(word, _KINDS)
    elif action.metavar == "PID|NAME":
        yield from _matching(word, _running())
    elif action.metavar == "NAME" and not action.option_strings:
        from lightwork.demos import DEMOS

        yield from _matching(word, DEMOS)


def _running() -> Iterator[str]:
    """The names of the pools that can be looked at now."""
    from lightwork.observe.monitor import pools

    with contextlib.suppress(PermissionError):
        for _, pool in pools():
            yield str(pool.get("name") or pool.get("pid"))


def _matching(word: str, words: Iterable[str]) -> Iterator[str]:
    return (one for one in words if one.startswith(word))


def _targets(word: str) -> Iterator[str]:
    """``file.py:function`` and ``module:function``. What a file has is read, not run."""
    where, colon, name = word.rpartition(":")
    if not colon:
        yield FILES
        yield from _modules(word)
        return
    path: str | None = where
    if not where.endswith(".py"):
        try:
            sys.path.insert(0, os.getcwd())
            spec = importlib.util.find_spec(where) if "." not in where else None
        except (ImportError, ValueError):
            spec = None
        path = spec.origin if spec is not None else None
    try:
        with open(path or "", encoding="utf-8") as file:
            text = file.read()
    except (OSError, ValueError):
        return
    for function in re.findall(r"^(?:async )?def ([A-Za-z]\w*)", text, re.MULTILINE):
        if function.startswith(name):
            yield f"{where}:{function}"


def _modules(word: str) -> Iterator[str]:
    if not word:
        return  # there are hundreds
    for module in pkgutil.iter_modules():
        if module.name.startswith(word) and not module.name.startswith("_"):
            yield f"{module.name}:"
