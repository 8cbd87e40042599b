"""Time limits that end the very task, and retries with a growing wait.

Look at: the stuck call is ended after its limit, its worker process is replaced, and the calls
beside it do not notice. The flaky one is tried until it works.
"""

from __future__ import annotations

import time

from lightwork import Backoff, Pool, Retry, TaskTimeout, current_task

__all__ = ["flaky", "main", "work"]


def work(seconds: float) -> float:
    """Take so long."""
    time.sleep(seconds)
    return seconds


def flaky(name: str) -> str:
    """Works the third time."""
    if current_task().attempt < 3:
        raise ConnectionError(f"{name} does not answer")
    return f"{name} answered at attempt {current_task().attempt}"


def main() -> None:
    """Limit, then retry."""
    with Pool("processes", 2) as pool:
        limited = pool.options(timeout=1.0)
        futures = [limited.submit(work, seconds) for seconds in (0.01, 60.0, 0.02)]
        for future in futures:
            try:
                print("done:", future.result())
            except TaskTimeout as error:
                print(f"ended after {error.timeout} s")

        patient = pool.options(retry=Retry(5, on=ConnectionError, backoff=Backoff(0.01, 2)))
        print(patient.submit(flaky, "server").result())


if __name__ == "__main__":
    main()
