"""What worker processes log, warn of and print arrives in this process's logging."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lightwork import Pool, TaskFilter, WorkerCrashed
from tests.observe import tasks
from tests.scripts import run_script


class Box(logging.Handler):
    """Keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def texts(self, name: str = "tests") -> list[str]:
        return sorted(one.getMessage() for one in self.records if one.name.startswith(name))


@pytest.fixture
def box() -> Iterator[Box]:
    root = logging.getLogger()
    before = root.level
    handler = Box()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.setLevel(before)
    root.removeHandler(handler)


@pytest.mark.parametrize("method", ("forkserver", "spawn", "fork"))
def test_records_arrive_with_all_they_have(method: str, box: Box) -> None:
    with Pool("processes", 2, start_method=method, name="mine") as pool:
        list(pool.map(tasks.say, range(5)))
    assert box.texts() == sorted(
        text.format(n=n)
        for n in range(5)
        for text in ("info {n}", "warning {n}", "error {n} <NoPickle>")
    )
    for record in box.records:
        assert record.processName in ("mine-1", "mine-2")
        assert record.lightwork_worker == int(record.processName[-1])
        assert record.lightwork_attempt == 1
        assert str(record.lightwork_task) in record.getMessage()
        assert record.process > 0
        assert (record.filename, record.module) == ("tasks.py", "tasks")
        assert record.funcName == "say"
        assert logging.Formatter("%(asctime)s %(msecs)d %(relativeCreated)d").format(record)
    infos = [one for one in box.records if one.levelno == logging.INFO]
    assert {one.color for one in infos} == {("red", n) for n in range(5)}
    assert {one.odd for one in infos} == {"<NoPickle>"}
    assert infos[0].msg == "info %s"  # for those who group by it
    assert infos[0].levelname == "INFO"


def test_exceptions_are_kept(box: Box) -> None:
    with Pool("processes", 1) as pool:
        pool.submit(tasks.fail, 7).result()
    (record,) = box.records
    kind, error, _ = record.exc_info
    assert kind is tasks.Special
    assert (error.code, str(error)) == (7, "for a reason (7)")
    text = logging.Formatter("%(message)s").format(record)
    assert 'raise Special(x, "for a reason")' in text
    assert "Special: for a reason (7)" in text
    assert "Stack (most recent call last)" in text


def test_levels_are_this_processes(box: Box) -> None:
    logger = logging.getLogger("tests.tasks")
    logger.setLevel(logging.DEBUG)
    logging.getLogger("tests.tasks.other").setLevel(logging.CRITICAL)
    try:
        with Pool("processes", 1) as pool:
            pool.submit(tasks.say, 1).result()
    finally:
        logger.setLevel(logging.NOTSET)
        logging.getLogger("tests.tasks.other").setLevel(logging.NOTSET)
    assert box.texts() == ["debug 1", "info 1", "warning 1"]


def test_filters_and_disabled_levels_are_this_processes(box: Box) -> None:
    logger = logging.getLogger("tests.tasks")

    def only_warnings(record: logging.LogRecord) -> bool:
        if record.levelno == logging.INFO:
            raise ValueError("a filter that fails ends nothing")
        return True

    logger.addFilter(only_warnings)
    logging.disable(logging.DEBUG)
    try:
        with Pool("processes", 1) as pool:
            pool.submit(tasks.say, 1).result()
    finally:
        logger.removeFilter(only_warnings)
        logging.disable(logging.NOTSET)
    assert box.texts() == ["error 1 <NoPickle>", "warning 1"]


def test_nothing_is_lost(box: Box) -> None:
    with Pool("processes", 2) as pool:
        assert list(pool.map(tasks.many, [5000] * 4)) == [5000] * 4
    for task in range(4):
        mine = [one.getMessage() for one in box.records if one.lightwork_task == task]
        assert mine == [f"number {n}" for n in range(5000)]


def test_what_was_written_survives_its_worker(box: Box) -> None:
    with Pool("processes", 1) as pool:
        with pytest.raises(WorkerCrashed):
            pool.submit(tasks.many_and_die, 300).result()
    assert [one.getMessage() for one in box.records] == [f"number {n}" for n in range(300)]


def test_long_records_and_threads(box: Box) -> None:
    with Pool("processes", 2) as pool:
        list(pool.map(tasks.long_text, [10, 5000, 300_000, 2_000_000]))
        list(pool.map(tasks.threads_log, range(2)))
    lengths = sorted(len(text) for text in box.texts() if text.startswith("x"))
    assert lengths == [10, 5000, 300_000, 1 << 20]
    assert sum(text.startswith("t") for text in box.texts()) == 400


def test_a_record_comes_while_its_task_runs() -> None:
    arrived = threading.Event()

    class Bell(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            arrived.set()

    root = logging.getLogger("tests.tasks")
    bell = Bell()
    root.addHandler(bell)
    try:
        with Pool("processes", 1) as pool:
            future = pool.submit(wait_after_logging)
            assert arrived.wait(30)
            assert not future.done()
            future.kill()
    finally:
        root.removeHandler(bell)


def wait_after_logging() -> None:
    tasks.log.warning("now")
    threading.Event().wait()


def test_a_handler_that_is_stuck_holds_nobody_up_for_ever() -> None:
    """The worker waits a while, then drops records, and says how many."""
    stuck, go = threading.Event(), threading.Event()
    box = Box()

    class Stuck(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            stuck.set()
            go.wait(60)

    logger, ours = logging.getLogger("tests.tasks"), logging.getLogger("lightwork")
    handler = Stuck()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    ours.addHandler(box)
    try:
        with Pool("processes", 1, initializer=tasks.impatient) as pool:
            assert pool.submit(tasks.many, 1).result() == 1
            assert stuck.wait(30)
            for _ in range(3):
                assert pool.submit(tasks.many, 1).result() == 1
            talk = pool.submit(tasks.long_text, 1 << 18)
            more = pool.submit(tasks.long_text, 1 << 18)
            assert talk.result() is None
            assert more.result() is None
            go.set()
            while pool.submit(tasks.many, 1).result() and not box.records:
                threading.Event().wait(0.01)
    finally:
        go.set()
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        ours.removeHandler(box)
    assert "records of worker 1 were dropped" in box.records[0].getMessage()


@pytest.mark.parametrize("start", (tasks.own_handlers, tasks.own_queue))
def test_who_brings_records_home_himself_is_left_to_it(start: Callable[[], None], box: Box) -> None:
    with Pool("processes", 1, initializer=start) as pool:
        pool.submit(tasks.say, 1).result()
    assert not box.records


def test_without_logs(box: Box, capfd: pytest.CaptureFixture[str]) -> None:
    with Pool("processes", 1, logs=False) as pool:
        pool.submit(tasks.say, 1).result()
    assert not box.records
    assert "warning 1" in capfd.readouterr().err  # by logging's last resort
    with pytest.raises(ValueError, match="needs logs=True"):
        Pool("processes", 1, logs=False, capture="log")
    with pytest.raises(ValueError, match="capture must be one of"):
        Pool("processes", 1, capture="all")


def test_a_forked_child_of_a_worker_is_on_its_own(
    box: Box, capfd: pytest.CaptureFixture[str]
) -> None:
    with Pool("processes", 1) as pool:
        assert pool.submit(tasks.fork_and_log, 5).result() == 5
    assert box.texts() == ["from the worker 5"]
    assert "from a child 5" in capfd.readouterr().err


def test_logging_is_watched_for_and_not_imported() -> None:
    ran = run_script(
        """
        import marshal, os, sys
        from lightwork.observe import sending

        read, write = os.pipe()
        wishes = sending.Wishes({"": 20, "quiet": 40}, 0, None, None, False)
        before = list(sys.meta_path)
        sending.attach(write, tuple(wishes))
        assert "logging" not in sys.modules and len(sys.meta_path) == len(before) + 1
        import logging.handlers
        assert sys.meta_path == before
        logging.getLogger("late").info("said %d", 5)
        logging.getLogger("quiet").info("nothing")
        os.close(write)
        data = os.read(read, 65536)
        (length,) = sending.LENGTH.unpack_from(data)
        kind, place, name, level, *_ = marshal.loads(data[4:4 + length])
        assert (kind, place) == (sending.PLACE, 0)
        kind, place, _, message, args, *_ = marshal.loads(data[8 + length:])
        print((kind, place) == (sending.RECORD, 0), name, level, message, args)
        """,
        flags=["-S"],
    )
    assert (ran.out, ran.err) == ("True late 20 said %d (5,)\n", ""), ran


# -- warnings ------------------------------------------------------------------------------------


def test_warnings_arrive_once_each() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Pool("processes", 2) as pool:
            assert list(pool.map(tasks.warn, range(20))) == list(range(20))
    mine = [one for one in caught if one.category is tasks.OurWarning]
    assert sorted(str(one.message) for one in mine) == ["careful 0", "careful 1"]
    assert all(one.filename.endswith("tasks.py") for one in mine)


def test_filters_of_warnings_are_this_processes() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore", tasks.OurWarning)
        with Pool("processes", 1) as pool:
            pool.submit(tasks.warn, 1).result()
    assert not caught
    with warnings.catch_warnings():
        warnings.simplefilter("error", tasks.OurWarning)
        with Pool("processes", 1) as pool:
            with pytest.raises(tasks.OurWarning):
                pool.submit(tasks.warn, 1).result()


def test_warnings_go_to_logging_where_it_captures_them(box: Box) -> None:
    logging.captureWarnings(True)
    try:
        with Pool("processes", 1) as pool:
            pool.submit(tasks.warn, 1).result()
    finally:
        logging.captureWarnings(False)
    assert any("careful 1" in text for text in box.texts("py.warnings"))


# -- prints --------------------------------------------------------------------------------------


def test_printed_lines_become_records(box: Box, capfd: pytest.CaptureFixture[str]) -> None:
    with Pool("processes", 2, capture="log") as pool:
        list(pool.map(tasks.show, range(3)))
        pool.submit(tasks.show_half, 9).result()
    assert box.texts("lightwork.stdout") == ["begun no end 9", *(f"line {n}" for n in range(3))]
    lines = [*(f"lines {n}" for n in range(3)), *["two"] * 3]
    assert box.texts("lightwork.stderr") == lines
    levels = {one.name: one.levelname for one in box.records}
    assert levels == {"lightwork.stdout": "INFO", "lightwork.stderr": "WARNING"}
    assert {one.lightwork_task for one in box.records} >= {0, 1, 2}
    assert capfd.readouterr().out == ""


def test_printed_lines_come_out_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Through this process's sys.stdout, which a notebook, or a test, has put elsewhere."""
    with Pool("processes", 2, capture="lines") as pool:
        list(pool.map(tasks.show, range(3)))
        pool.submit(tasks.show_half, 9).result()
    out, err = capsys.readouterr()
    assert sorted(out.splitlines()) == ["begun no end 9", *(f"line {n}" for n in range(3))]
    assert sorted(err.splitlines()) == sorted([*["two"] * 3, *(f"lines {n}" for n in range(3))])


def test_the_filter_names_tasks_of_every_kind() -> None:
    box = Box()
    box.addFilter(TaskFilter())
    logger = logging.getLogger("tests.tasks")
    logger.addHandler(box)
    try:
        for kind in ("processes", "threads", "serial"):
            with Pool(kind, 1) as pool:
                list(pool.map(warning, range(2)))
        logger.warning("outside", extra={"task": "mine"})
    finally:
        logger.removeHandler(box)
    form = "%(worker)s/%(task)s/%(attempt)s %(message)s"
    texts = [logging.Formatter(form).format(one) for one in box.records]
    assert texts == ["1/0/1 w0", "1/1/1 w1"] * 3 + ["-/mine/- outside"]


def warning(x: int) -> None:
    tasks.log.warning("w%d", x)


def test_nothing_is_left_on(box: Box) -> None:
    """One thread reads for all pools, and ends with the last."""
    with Pool("processes", 1) as first:
        first.submit(tasks.say, 1).result()
        with Pool("processes", 1) as second:
            second.submit(tasks.say, 2).result()
            names = [one.name for one in threading.enumerate()]
            assert names.count("lightwork-logs") == 1
    assert len(box.texts()) == 6
    assert "lightwork-logs" not in [one.name for one in threading.enumerate()]
