"""From the words of the command line to a run."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NoReturn

from .problem import WrongUse
from .words import Parser, add_items, seconds, the_items, whole

__all__ = ["run"]

_COMMANDS_MORE = """\
commands:
  map         call a function on many items, on all CPUs; JSON lines come out
  top         watch running pools from another terminal
  advise      measure a function: threads, processes or neither?
  bench       measure a function with 2, 4, 8, ... workers
  demo        examples that run as they stand
  doctor      what there is to work with here, and what is wrong
  completion  what bash, zsh and fish need to complete all this

`lightwork COMMAND --help` tells more.

examples:
  lightwork map math:factorial 5 10 20
  lightwork demo
  lightwork doctor
"""

_MAP = """\
Call a function on every item, on all CPUs, and write one JSON object a line for each:
{"index": 0, "item": ..., "result": ...}, or with "error" in the place of "result".
"""

_MAP_MORE = """\
TARGET is module:function or path/file.py:function; module:Class.method works too.

The items come from exactly one of: the command line, --range, --lines, --jsonl, --again. On the
command line, a word that is written just as Python writes an int or a float is that number, and all
else is text (007, 1.10 and 1e3 are text, too); with --star, each word is JSON.

Results are put into JSON where they are computed. Sets become lists, bytes base64, arrays
lists, dataclasses objects, paths and dates text, NaN and infinities "NaN", "Infinity" and
"-Infinity". A result that JSON has no form for is a failure of its item, unless --default says
what to make of such parts. What the function prints goes to standard error while the results go
to standard output.

exit status: 0 all done, 1 some item failed, 2 wrong use (also input that is not JSON),
130 interrupted, 143 terminated; finished results are kept.

examples:
  lightwork map math:factorial 5 10 20
  lightwork map math:sqrt --range 0:1000000 -o roots.jsonl --resume
  find . -name '*.py' | lightwork map tools.py:check --lines - --timeout 30 --retries 2
  lightwork map operator:pow --star --jsonl pairs.jsonl --kind threads
  lightwork map tools.py:check --lines names.txt -o out.jsonl --failed failed.jsonl
  lightwork map tools.py:check --again failed.jsonl --workers 1
  lightwork map tools.py:check --lines names.txt --report run.html --trace run.json
"""


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from lightwork import __version__

        print(f"lightwork {__version__}")
        parser.exit()


def run(argv: Sequence[str] | None) -> int:
    """Run the command; see ``cli.main``."""
    try:
        return _run(argv)
    except WrongUse as error:
        print(f"lightwork: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lightwork: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Of --help or --version. What is still in the buffer must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


def _run(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words and words[0] in _COMMANDS:
            return _COMMANDS[words[0]](words[1:])
        parser = Parser(
            prog="lightwork",
            description="Do many things at once.",
            epilog=_COMMANDS_MORE,
        )
        parser.add_argument("--version", action=_Version, nargs=0, help="show the version")
        parser.add_argument("command", metavar="COMMAND", help="see below")
        wanted = parser.parse_args(words[:1])
        known = ", ".join(_COMMANDS)
        raise WrongUse(f"there is no command {wanted.command!r}; there is: {known}")
    except SystemExit as done:  # --help and --version
        sys.stdout.flush()
        return int(done.code or 0)


def _map_parser() -> Parser:
    parser = Parser(
        prog="lightwork map",
        description=_MAP,
        epilog=_MAP_MORE,
    )
    add = parser.add_argument
    add_items(parser)
    add("--again", metavar="FILE", help="the items that failed in FILE, a file of results")
    add("-o", "--output", metavar="OUT.jsonl", help="write the results there, not to stdout")
    add("--kind", default="auto", help="auto (default), threads, processes or serial")
    add("--workers", metavar="N", type=whole(1), help="how many at once at most")
    add("--timeout", metavar="S", type=seconds, help="end a call that takes longer (seconds)")
    add(
        "--retries",
        metavar="N",
        type=whole(0),
        default=0,
        help="try a failed item up to N more times",
    )
    add("--unordered", action="store_true", help="write results as they finish")
    add(
        "--on-error",
        choices=("raise", "return", "skip"),
        default="return",
        help="a failed item: `return` writes its error in its place and goes on (default); "
        "`skip` writes nothing for it and goes on; `raise` ends the run",
    )
    add(
        "--default",
        choices=("str", "repr"),
        help="make text of parts of results that JSON has no form for, by str() or repr()",
    )
    add("--failed", metavar="FILE", help="write failures there, too; --again takes that file")
    add("--checkpoint", metavar="FILE", help="keep results there, and go on from what is there")
    add("--resume", action="store_true", help="the same, with OUT.jsonl.checkpoint as the file")
    add("--restart", action="store_true", help="forget what the checkpoint has, and begin anew")
    add("--report", metavar="FILE", help="write a page (HTML) about the run: where its time went")
    add("--trace", metavar="FILE", help="write its timeline, for https://ui.perfetto.dev")
    add("--name", metavar="NAME", help="what to call the run, in reports and for `lightwork top`")
    add("--monitor", action="store_true", help="let `lightwork top` look at it while it runs")
    add("--dry-run", action="store_true", help="say what would be done, and do nothing")
    add("--quiet", action="store_true", help="no progress bar, no summary, no list of failures")
    return parser


def _map(words: Sequence[str]) -> int:
    # Options may stand between TARGET and the items.
    wanted = _map_parser().parse_intermixed_args(words)
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)  # results of one run are the items of the next, of any size
    from . import planning

    planning.check_files(wanted)
    with ExitStack() as stack:
        started = complete = False
        source = the_items(wanted)
        stack.callback(source.close)
        if wanted.dry_run:
            from .target import load

            function = load(wanted.target)
            planning.tell(wanted, function, source, _pool)
            return 0
        output, failed = planning.outputs(wanted, stack)
        stack.callback(lambda: output.close(started=started, complete=complete))
        if failed is not None:
            stack.callback(lambda: failed.close(started=started))
        from .job import Job
        from .run import Run, Wishes
        from .target import load

        job = Job(load(wanted.target), star=wanted.star, default=wanted.default)
        checkpoint = planning.checkpoint(wanted, job, stack)
        pool = _pool(wanted)
        wishes = Wishes(
            not wanted.unordered,
            wanted.on_error,
            wanted.quiet,
            checkpoint,
            failed,
            partial(planning.write_reports, wanted, pool),
        )
        task = Run(pool, job, source, output, wishes)
        started = True
        try:
            return task.run()
        finally:
            complete = task.complete


def _pool(wanted: argparse.Namespace) -> Any:
    from lightwork import Backoff, LightworkError, Pool, Retry

    from .progress import shows_a_bar

    # What the function prints must not tear the bar.
    capture = "lines" if shows_a_bar() and not wanted.quiet else None
    try:
        pool = Pool(
            wanted.kind,
            wanted.workers,
            capture=capture,
            name=wanted.name or f"lightwork map {wanted.target}",
            trace=bool(wanted.report or wanted.trace),
            monitor=wanted.monitor,
        )
    except OSError as error:
        raise WrongUse(f"--monitor: {error}") from None
    except (ValueError, TypeError, LightworkError) as error:
        raise WrongUse(f"--kind {wanted.kind}: {error}") from None
    retry = Retry(wanted.retries + 1, backoff=Backoff()) if wanted.retries else None
    return pool.options(timeout=wanted.timeout, retry=retry)


def _top_parser() -> Parser:
    from . import top

    parser = Parser(
        prog="lightwork top",
        description="Show what monitored pools are doing, from another terminal.",
        epilog=top.MORE,
    )
    top.fill_parser(parser)
    return parser


def _top(words: Sequence[str]) -> int:
    from . import top

    return top.run(_top_parser().parse_args(words))


def _completion_parser() -> Parser:
    from . import completion

    parser = Parser(
        prog="lightwork completion",
        description="Print what a shell needs to complete the words of this command.",
        epilog=completion.MORE,
    )
    parser.add_argument("shell", choices=sorted(completion.SCRIPTS), help="which shell")
    return parser


def _completion(words: Sequence[str]) -> int:
    from . import completion

    if words and words[0] == "--words":  # asked by the script itself
        for one in completion.candidates(words[1:], PARSERS):
            print(one)
        return 0
    print(completion.SCRIPTS[_completion_parser().parse_args(words).shell], end="")
    return 0


def _other(name: str) -> Callable[[Sequence[str]], int]:
    """A command that is in a file of its own, which is loaded when it is asked for."""

    def run(words: Sequence[str]) -> int:
        found: int = importlib.import_module(f"lightwork.cli.{name}").run(words)
        return found

    return run


def _other_parser(name: str) -> Callable[[], argparse.ArgumentParser]:
    def make() -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = importlib.import_module(
            f"lightwork.cli.{name}"
        ).make_parser()
        return made

    return make


_OTHERS = ("advise", "bench", "demo", "doctor")

_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "map": _map,
    "top": _top,
    "completion": _completion,
    **{name: _other(name) for name in _OTHERS},
}

PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "map": _map_parser,
    "top": _top_parser,
    "completion": _completion_parser,
    **{name: _other_parser(name) for name in _OTHERS},
}
"""What each command takes; completion asks them."""
