"""``TaskFilter``: the task of a log record, for format strings."""

from __future__ import annotations

import logging

from ..current import current_task

__all__ = ["TaskFilter"]


class TaskFilter(logging.Filter):
    """Gives each record ``worker``, ``task`` and ``attempt``, so that a format can name them.

    Added to a handler: ``handler.addFilter(TaskFilter())``, with a format such as
    ``"%(worker)s/%(task)s %(message)s"``. They are numbers for what a task of a pool logs, on
    whatever kind of worker, and ``-`` for all else; a record that has the attribute already
    (``extra=``) keeps it. It lets every record pass.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it pass."""
        worker: object = getattr(record, "lightwork_worker", None)
        task: object = getattr(record, "lightwork_task", None)
        attempt: object = getattr(record, "lightwork_attempt", None)
        if worker is None:
            try:
                here = current_task()
            except RuntimeError:
                pass  # outside of a task
            else:
                worker, task, attempt = here.worker, here.index, here.attempt
        for name, value in (("worker", worker), ("task", task), ("attempt", attempt)):
            if not hasattr(record, name):
                setattr(record, name, "-" if value is None else value)
        return True
