"""A real browser, by the WebDriver protocol (W3C), without any package for it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Browser", "missing"]

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--hide-scrollbars --window-size=1280,1400 --disable-dev-shm-usage"
)


def missing() -> str | None:
    """What is not installed, for the reason of a skip; None if all is there."""
    if not any(map(shutil.which, _NAMES)):
        return "no chromium is installed (Debian: apt-get install chromium)"
    if not shutil.which("chromedriver"):
        return "no chromedriver is installed (Debian: apt-get install chromium-driver)"
    return None


class Browser:
    """A window of its own. `dark`: the user prefers dark."""

    def __init__(self, *, dark: bool) -> None:
        self._dark = dark

    def __enter__(self) -> Self:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._folder = tempfile.mkdtemp(prefix="browser-")
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._url = f"http://127.0.0.1:{port}"
        try:
            self._wait_until_ready()
            options = [*_OPTIONS.split(), f"--user-data-dir={self._folder}"]
            if self._dark:
                options.append("--blink-settings=preferredColorScheme=0")
            binary = next(filter(None, map(shutil.which, _NAMES)))
            chrome = {"args": options, "binary": binary}
            wanted = {"goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL"}}
            made = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self._url += f"/session/{made['sessionId']}"
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._ask("DELETE", "", None)
        finally:
            self._end()

    def _end(self) -> None:
        self._driver.terminate()
        self._driver.wait(20)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + 60
        while True:
            try:
                if self._ask("GET", "/status", None)["ready"]:
                    return
            except (urllib.error.URLError, ConnectionError):
                pass  # not listening yet
            assert time.monotonic() < end, "the browser's driver does not start"
            time.sleep(0.05)

    def _ask(self, method: str, path: str, body: object) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=90) as answer:
            return json.load(answer)["value"]

    def open(self, page: Path) -> None:
        """Load a file."""
        self._ask("POST", "/url", {"url": page.as_uri()})

    def run(self, script: str, *args: object) -> Any:
        """Run the body of a function; return what it returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": args})

    def errors(self) -> list[str]:
        """What the browser complained about."""
        found = self._ask("POST", "/se/log", {"type": "browser"})
        return [one["message"] for one in found if one["level"] == "SEVERE"]
