"""Bursts: shares of the items that come without waiting. And the news that signals enter."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from typing import Any

import pytest

from lightwork.cli.feed import Feed
from lightwork.cli.items import END, PAUSE, Source, from_range
from lightwork.cli.news import News
from lightwork.cli.problem import WrongUse


class Script(Source):
    """Gives out what it was told; PAUSE only to those who would not wait for ever."""

    total: int | None = None

    def __init__(self, *items: Any, live: bool = True) -> None:
        self.live = live
        self.items = deque(items)

    def get(self, timeout: float | None) -> Any:
        if not self.items:
            return END
        item = self.items.popleft()
        if item is PAUSE and timeout is None:
            return self.get(None)
        if isinstance(item, WrongUse):
            raise item
        return item

    def close(self) -> None:
        self.items.clear()


def bursts(feed: Feed) -> list[list[Any]]:
    found = []
    while feed.more():
        found.append(list(feed.burst()))
    return found


def never() -> bool:
    return False


def test_a_source_without_waits_is_one_burst() -> None:
    feed = Feed(from_range("0:5"), never)
    assert bursts(feed) == [[0, 1, 2, 3, 4]]
    assert feed.count == 5


def test_a_pause_ends_a_burst() -> None:
    feed = Feed(Script(1, 2, PAUSE, 3, PAUSE, PAUSE, None, False), never)
    assert bursts(feed) == [[1, 2], [3], [None, False]]
    assert feed.count == 5


def test_nothing_is_read_while_too_much_is_held() -> None:
    held = [False]
    feed = Feed(from_range("0:6"), lambda: held[0])
    found = []
    while feed.more():
        burst = feed.burst()
        held[0] = False
        found.append([next(burst), next(burst)])
        held[0] = True
        assert list(burst) == []
    assert found == [[0, 1], [2, 3], [4, 5]]


def test_bad_input_ends_the_feed_and_is_kept() -> None:
    problem = WrongUse("line 3")
    feed = Feed(Script(1, 2, problem, 4), never)
    assert bursts(feed) == [[1, 2]]
    assert feed.problem is problem
    feed = Feed(Script(problem), never)
    assert not feed.more()
    assert feed.problem is problem


@pytest.mark.parametrize("live", [True, False])
def test_stopping_ends_a_burst(live: bool) -> None:
    feed = Feed(Script(1, 2, 3, live=live), never)
    assert feed.more()
    burst = feed.burst()
    assert next(burst) == 1
    feed.stop()
    assert list(burst) == []
    assert not feed.more()


def test_patience_is_for_a_whole_burst() -> None:
    """Items that trickle in faster than the patience do not keep results waiting for ever."""

    class Trickle(Script):
        def get(self, timeout: float | None) -> Any:
            time.sleep(0.03 if timeout is None else min(timeout, 0.03))
            return super().get(timeout) if timeout is None or timeout >= 0.03 else PAUSE

    found = bursts(Feed(Trickle(*range(6)), never))
    assert [one for burst in found for one in burst] == list(range(6))
    assert max(map(len, found)) <= 3


def test_news_of_threads_and_signals() -> None:
    with News() as news:
        assert news.get(0.0) is None
        news.put("a")
        news.put("b")
        assert [news.get(5.0), news.get(5.0)] == ["a", "b"]
        threading.Timer(0.02, news.put, ["late"]).start()
        assert wait_for_word(news) == "late"
        os.kill(os.getpid(), signal.SIGTERM)
        assert wait_for_word(news) == signal.SIGTERM


def test_no_signal_is_lost_however_it_meets_the_wait() -> None:
    with News() as news:
        for at in range(300):
            timer = threading.Timer(at * 1e-5, os.kill, [os.getpid(), signal.SIGTERM])
            timer.start()
            assert wait_for_word(news) == signal.SIGTERM
            timer.join()


def wait_for_word(news: News) -> str | int | None:
    end = time.monotonic() + 10
    while (word := news.get(end - time.monotonic())) is None:
        assert time.monotonic() < end
    return word


def test_more_news_than_the_pipe_holds() -> None:
    with News() as news:
        for number in range(100_000):
            news.put(number)
        assert [news.get(0.0) for _ in range(100_000)] == list(range(100_000))
