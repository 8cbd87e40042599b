"""lightwork's pools with the signatures of the two executors of the standard library."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.context import BaseContext
from typing import Any

from lightwork import Pool, PoolBroken, PoolClosed


class _Executor(Pool):
    @property
    def _max_workers(self) -> int:
        return self.max_workers

    @property
    def _broken(self) -> bool:
        try:
            self.submit(int)
        except PoolBroken:
            return True
        except PoolClosed:
            pass
        return False


class Threads(_Executor):
    """As ``ThreadPoolExecutor``."""

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(
            "threads",
            max_workers,
            name=thread_name_prefix or None,
            initializer=initializer,
            initargs=initargs,
        )


class Processes(_Executor):
    """As ``ProcessPoolExecutor``."""

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        super().__init__(
            "processes",
            max_workers,
            start_method=mp_context.get_start_method() if mp_context else None,
            initializer=initializer,
            initargs=initargs,
            max_tasks_per_child=max_tasks_per_child,
        )
