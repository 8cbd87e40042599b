"""The standard library's own tests of its executors, run on ours.

They come from the ``test`` package of the Python that runs this, and are skipped where it is not
installed (Debian splits it off, pyenv may cut it). What is skipped by name below looks at
private parts, or holds ProcessPoolExecutor to losing everything; each says why.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lightwork
from lightwork import CannotPickle, CannotUnpickle

from ..pools import eventually
from .executors import Processes, Threads

ROOT = Path(__file__).parents[3]
SOURCE = Path(lightwork.__file__).parents[1]

try:
    theirs = importlib.import_module("test.test_concurrent_futures")
    support = importlib.import_module("test.support")
except ImportError:
    pytest.skip("the standard library's tests are not installed", allow_module_level=True)

PARTS = (
    "executor",
    "util",
    "test_as_completed",
    "test_deadlock",
    "test_init",
    "test_process_pool",
    "test_shutdown",
    "test_thread_pool",
    "test_wait",
)


def _modules() -> list[ModuleType]:
    if not hasattr(theirs, "__path__"):
        return [theirs]  # up to Python 3.11 it is one file
    return [importlib.import_module(f"{theirs.__name__}.{part}") for part in PARTS]


MODULES = _modules()


def find(name: str) -> Any:
    """A class of theirs, from the module that defines it."""
    for module in MODULES:
        found = getattr(module, name, None)
        if found is not None and found.__module__ == module.__name__:
            return found
    raise LookupError(name)


PRIVATE = "looks at private parts of concurrent.futures"
LIVES_ON = "expects one dead worker to break the pool; ours goes on (tests/contract, tests/robust)"
SKIPPED: dict[str, str] = {
    "test_context_manager_shutdown": PRIVATE,
    "test_del_shutdown": PRIVATE,
    "test_gh105829_should_not_deadlock_if_wakeup_pipe_full": PRIVATE,
    "test_hang_global_shutdown_lock": "makes executors of concurrent.futures only",
    "test_idle_process_reuse_multiple": PRIVATE,
    "test_idle_process_reuse_one": PRIVATE,
    "test_idle_thread_reuse": PRIVATE,
    "test_killed_child": LIVES_ON,
    "test_max_tasks_per_child": PRIVATE + ", and ours recycles forked workers, too",
    "test_max_tasks_per_child_defaults_to_spawn_context": PRIVATE,
    "test_processes_terminate": PRIVATE,
    "test_python_finalization_error": PRIVATE,
    "test_saturation": PRIVATE,
    "test_shutdown_deadlock_pickle": PRIVATE,
    "test_shutdown_no_wait": PRIVATE,
    "test_thread_names_assigned": PRIVATE,
    "test_thread_names_default": PRIVATE,
    "test_threads_terminate": PRIVATE,
}

# Where ProcessPoolExecutor breaks as a whole, or passes on what escaped from pickle, we say what
# could not travel. (The pool goes on.)
CLEARER: dict[str, type[Exception]] = {
    "test_error_at_task_unpickle": CannotUnpickle,
    "test_error_during_result_unpickle_in_result_handler": CannotUnpickle,
    "test_exit_at_task_unpickle": CannotUnpickle,
    "test_exit_during_result_pickle_on_worker": CannotPickle,
    "test_exit_during_result_unpickle_in_result_handler": CannotUnpickle,
}


def _assert_python_ok(original: Callable[..., Any]) -> Callable[..., Any]:
    """Their scripts import an executor of concurrent.futures: give them ours."""
    names = {"ThreadPoolExecutor": "Threads as ThreadPoolExecutor"}

    def ours(option: str, script: str, **env: str) -> Any:
        script = re.sub(
            r"from concurrent\.futures import (\w+)",
            lambda found: (
                "import multiprocessing; from tests.contract.stdlib.executors import "
                + names.get(found[1], found[1])
            ),
            script,
        )
        status, out, err = original(option, script, PYTHONPATH=f"{SOURCE}:{ROOT}", **env)
        # Our error is a RuntimeError, but a traceback shows its own name.
        return status, out, err.replace(b"lightwork.errors.PoolClosed:", b"RuntimeError:")

    return ours


class Ours(unittest.TestCase):
    """What each class of tests gets in front of theirs."""

    def setUp(self) -> None:
        for module in MODULES:
            original = getattr(module, "assert_python_ok", None)
            if original is not None:
                module.assert_python_ok = _assert_python_ok(original)  # type: ignore[attr-defined]
                self.addCleanup(setattr, module, "assert_python_ok", original)
        super().setUp()
        if self._testMethodName == "test_cancel_futures":
            self._start_one_before_shutdown(self.executor)  # type: ignore[attr-defined]

    def _start_one_before_shutdown(self, pool: lightwork.Pool) -> None:
        """It wants at least one call to have started. Ours cancels all that have not, and takes
        back what was sent to a worker that has not got round to it."""
        submitted: list[lightwork.Future] = []
        submit, shutdown = pool.submit, pool.shutdown

        def noting(*args: Any, **kwargs: Any) -> lightwork.Future:
            submitted.append(submit(*args, **kwargs))
            return submitted[-1]

        def patient(*args: Any, **kwargs: Any) -> None:
            eventually(lambda: any(one.running() or one.done() for one in submitted))
            shutdown(*args, **kwargs)

        pool.submit = noting  # type: ignore[method-assign]
        pool.shutdown = patient  # type: ignore[method-assign]

    def tearDown(self) -> None:
        support.environment_altered = False  # type: ignore[attr-defined]
        super().tearDown()
        # Their clean-up notes threads and processes that were left behind.
        assert not support.environment_altered, "something was left behind"

    def _check_crash(self, error: type[BaseException], *args: Any, **kwargs: Any) -> None:
        error = CLEARER.get(self._testMethodName, error)
        super()._check_crash(error, *args, **kwargs)  # type: ignore[misc]


class OursFailing:
    """Without a log: the reason for a broken pool is the cause of its error."""

    def setUp(self) -> None:
        self.log_queue = None
        self.executor_kwargs = {"initializer": find("init_fail")}
        super(find("FailingInitializerMixin"), self).setUp()  # type: ignore[misc]

    @contextlib.contextmanager
    def _assert_logged(self, message: str) -> Iterator[None]:
        yield
        with pytest.raises(lightwork.PoolBroken, match=re.escape(message)):
            self.executor.submit(int)  # type: ignore[attr-defined]


def _make(name: str, bases: tuple[type, ...], executor: type) -> None:
    body: dict[str, Any] = {"executor_type": executor, "__module__": __name__}
    for test, reason in SKIPPED.items():
        if any(hasattr(base, test) for base in bases):
            body[test] = unittest.skip(reason)(lambda self: None)
    globals()[name] = type(name, bases, body)


BASE = find("BaseTestCase")
for mixin in ("ThreadPoolExecutorTest", "ThreadPoolShutdownTest", "ThreadPoolWaitTests"):
    _make(f"Test{mixin}", (Ours, find(mixin)), Threads)
for mixin in ("AsCompletedTests", "InitializerMixin"):
    _make(f"TestThreads{mixin}", (Ours, find(mixin), find("ThreadPoolMixin"), BASE), Threads)
_make(
    "TestThreadsFailingInitializer",
    (Ours, OursFailing, find("FailingInitializerMixin"), find("ThreadPoolMixin"), BASE),
    Threads,
)
for method in ("Fork", "Forkserver", "Spawn") if sys.platform != "win32" else ():
    kind = find(f"ProcessPool{method}Mixin")
    for mixin in (
        "AsCompletedTests",
        "ExecutorDeadlockTest",
        "InitializerMixin",
        "ProcessPoolExecutorTest",
        "ProcessPoolShutdownTest",
        "WaitTests",
    ):
        _make(f"Test{method}{mixin}", (Ours, find(mixin), kind, BASE), Processes)
    _make(
        f"Test{method}FailingInitializer",
        (Ours, OursFailing, find("FailingInitializerMixin"), kind, BASE),
        Processes,
    )
