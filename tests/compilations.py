"""What is compiled while something is done."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"
_counted: list[list[float]] = []


@contextmanager
def compilations() -> Iterator[list[float]]:
    """The seconds that each program takes which is compiled, or read from disk."""
    times: list[float] = []
    _counted.append(times)
    try:
        yield times
    finally:
        _counted.remove(times)


def _listen(event: str, duration_secs: float, **_) -> None:
    if event == _COMPILED:
        for times in _counted:
            times.append(duration_secs)


jax.monitoring.register_event_duration_secs_listener(_listen)
