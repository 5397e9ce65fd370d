"""How much of the machine is used: cores, and processes that share the work."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread

import numpy as np


def cores() -> int:
    """How many cores this process may use.

    Examples:
        >>> cores() >= 1
        True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_count(n_jobs: int) -> int:
    """The number of processes that is asked for; -1 asks for as many as cores.

    Raises:
        ValueError: If it is neither -1 nor a positive whole number.

    Examples:
        >>> worker_count(3), worker_count(-1) == cores()
        (3, True)
    """
    if not isinstance(n_jobs, int | np.integer) or n_jobs < -1 or n_jobs == 0:
        raise ValueError(f"n_jobs must be a positive number or -1, not {n_jobs!r}")
    return cores() if n_jobs == -1 else int(n_jobs)


def processes(jobs: int) -> ProcessPoolExecutor:
    """Processes of one thread each, with nothing of this one's but its environment.

    Examples:
        >>> workers = processes(2)
        >>> workers.shutdown()
    """
    spawn = get_context("spawn")
    return ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_start_worker)


def _start_worker() -> None:
    """Leave the other cores to the others, and do not outlive who started this.

    XLA reads `NPROC` when it starts. Its flag for one thread would compile other
    programs, whose last digits differ.
    """
    os.environ["NPROC"] = "1"
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, even by SIGKILL."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
