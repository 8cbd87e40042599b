"""Many pages of a small site, fetched at once. The site is served by the demo itself.

Look at: ``Pool()`` is not told that fetching waits; it sees it on the first page, and takes many
more threads than there are cores. One page is broken, and costs only itself.
"""

from __future__ import annotations

import re
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lightwork import Failure, Pool

__all__ = ["main", "title"]

PAGES = 60
BROKEN = 13
DELAY = 0.05  # seconds that the site takes for a page


class Site(BaseHTTPRequestHandler):
    """Pages ``/0`` to ``/59``."""

    def do_GET(self) -> None:
        """Answer, slowly."""
        time.sleep(DELAY)
        number = int(self.path[1:])
        if number == BROKEN:
            self.send_error(500)
            return
        body = f"<html><title>Page {number}</title>...</html>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


class Server(ThreadingHTTPServer):
    """With room for all who come at once."""

    request_queue_size = 128


def title(url: str) -> str:
    """The title of a page. Raises OSError."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    found = re.search("<title>(.*?)</title>", text)
    return found[1] if found else "(none)"


def main() -> None:
    """Serve, fetch, and tell."""
    with Server(("127.0.0.1", 0), Site) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        urls = [f"http://127.0.0.1:{site.server_port}/{number}" for number in range(PAGES)]
        begin = time.perf_counter()
        with Pool() as pool:
            titles = list(pool.map(title, urls, on_error="return"))
            decision = pool.decisions[-1]
        seconds = time.perf_counter() - begin
        site.shutdown()
    for found in titles:
        if isinstance(found, Failure):
            print(f"page {found.index}: {found.exception}")
    good = [found for found in titles if not isinstance(found, Failure)]
    print(f"{len(good)} pages, from {good[0]!r} to {good[-1]!r}")
    print(f"{seconds:.2f} s, where one by one would take {PAGES * DELAY:.1f} s")
    print(f"run on {decision.kind}")


if __name__ == "__main__":
    main()
