"""SHA-256 and line counts of all source files of the installed Python, with ``lightwork map``.

``describe`` is what the workers run, as anybody's function would be::

    lightwork map lightwork.demos.source_files:describe --lines files.txt -o files.jsonl

``main`` does that for every ``.py`` file of the standard library, once in place and once with
worker processes, checks that both say the same, and prints the total and the rates.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import tokenize
from pathlib import Path
from typing import Any

__all__ = ["describe", "main"]

_NO_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


def describe(path: str) -> dict[str, Any]:
    """Return the SHA-256, the bytes, the lines and the lines with code of a Python source file.

    `code` is None for a file that is no valid Python (the standard library tests itself with
    some). Raises OSError if the file cannot be read.
    """
    data = Path(path).read_bytes()
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "lines": data.count(b"\n"),
        "code": _code_lines(data),
    }


def _code_lines(data: bytes) -> int | None:
    lines: set[int] = set()
    try:
        for token in tokenize.tokenize(io.BytesIO(data).readline):
            if token.type not in _NO_CODE:
                lines.update(range(token.start[0], token.end[0] + 1))
    except (tokenize.TokenError, SyntaxError, UnicodeDecodeError):
        return None
    return len(lines)


def _files() -> list[Path]:
    root = Path(sysconfig.get_path("stdlib"))
    others = {"site-packages", "dist-packages"}  # not part of Python
    return sorted(path for path in root.rglob("*.py") if others.isdisjoint(path.parts))


def _run(kind: str, names: Path, out: Path) -> float:
    """Run the command; return the seconds it took."""
    words = ["map", f"{__spec__.name}:describe", "--lines", str(names), "-o", str(out)]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "lightwork", *words, "--kind", kind], check=True)
    return time.perf_counter() - start


def _results(out: Path) -> list[dict[str, Any]]:
    with out.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _check(results: list[dict[str, Any]], files: list[Path]) -> None:
    """Compare the results with what can be known otherwise. Raises SystemExit."""
    if [one["index"] for one in results] != list(range(len(files))):
        sys.exit("wrong: not one line for each file, in order")
    for one, path in zip(results, files, strict=True):
        if one["item"] != str(path) or one["result"]["bytes"] != path.stat().st_size:
            sys.exit(f"wrong: {one} for {path}")
    for one in results[:: max(1, len(results) // 20)]:
        if one["result"] != describe(one["item"]):
            sys.exit(f"wrong: {one}")


def main() -> None:
    """Run the demonstration; exits with a message if anything is wrong."""
    files = _files()
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder, "files.txt")
        names.write_text("".join(f"{path}\n" for path in files), encoding="utf-8")
        print(f"{len(files):,} source files of {sysconfig.get_path('stdlib')}", flush=True)
        alone, pooled = Path(folder, "alone.jsonl"), Path(folder, "pooled.jsonl")
        seconds_alone = _run("serial", names, alone)
        seconds = _run("processes", names, pooled)
        results = _results(pooled)
        if results != _results(alone):
            sys.exit("wrong: in place and in processes the results differ")
    _check(results, files)
    found = [one["result"] for one in results]
    size = sum(one["bytes"] for one in found)
    whole = hashlib.sha256("".join(one["sha256"] for one in found).encode()).hexdigest()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines, code = (sum(one[name] or 0 for one in found) for name in ("lines", "code"))
    print(f"{lines:,} lines, {code:,} of them with code; {size / 1e6:,.1f} MB")
    print(f"SHA-256 of all SHA-256s: {whole}")
    for how, took in (("in place", seconds_alone), ("processes", seconds)):
        rates = f"{len(files) / took:6,.0f} files/s {size / took / 1e6:6.1f} MB/s"
        print(f"  {how:10} {took:6.1f} s {rates}")
    print(f"{seconds_alone / seconds:.2f} times as fast with processes on {cpus} CPUs")


if __name__ == "__main__":
    main()
