"""Progress bars: in a terminal and in Jupyter, for whoever is there to read them."""

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

LONG_JOB = 3.0
"""Seconds that a job has taken before its bar appears unasked."""

Item = TypeVar("Item")


class Bar(Protocol):
    """What moves a bar.

    Examples:
        >>> with progress_bar("curves", 2, None) as bar:
        ...     bar.update()
    """

    def update(self, n: int = 1) -> Any:
        """Move by so many steps."""

    def set_postfix_str(self, s: str, refresh: bool = True) -> Any:
        """Show a text beside the bar."""


class _NoBar:
    """A bar that nobody is shown."""

    def update(self, n: int = 1) -> None:
        """Nothing."""

    def set_postfix_str(self, s: str, refresh: bool = True) -> None:
        """Nothing."""


@contextmanager
def progress_bar(description: str, total: int, progress: bool | None) -> Iterator[Bar]:
    """A bar that is moved by hand.

    Args:
        description: What is counted.
        total: How many there are.
        progress: True shows the bar from the start, False never, None once the job has
            taken `LONG_JOB`. Without a reader (`has_reader`) there is none.

    Yields:
        The bar.

    Examples:
        >>> with progress_bar("curves", 2, progress=False) as bar:
        ...     bar.update(2)
    """
    if progress is False or not has_reader():
        yield _NoBar()
        return
    with warnings.catch_warnings():
        # Jupyter without its widgets is shown text, and no word on how to install them.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    delay = 0.0 if progress else LONG_JOB
    with tqdm(desc=description, total=total, delay=delay) as bar:
        yield bar


def with_progress(
    items: Iterable[Item], description: str, total: int, progress: bool | None
) -> Iterator[Item]:
    """The items, with a bar that each of them moves: see `progress_bar`.

    Examples:
        >>> list(with_progress("ab", "letters", 2, progress=None))
        ['a', 'b']
    """
    with progress_bar(description, total, progress) as bar:
        for item in items:
            yield item
            bar.update()


def has_reader() -> bool:
    """Whether somebody sees what is written: in a terminal, or in a live notebook.

    A notebook that is only run, as by nbconvert, cannot be asked for input; one that
    somebody has open can.

    Examples:
        >>> isinstance(has_reader(), bool)
        True
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    kernel = getattr(shell, "kernel", None)
    if kernel is not None:
        return bool(getattr(kernel, "_allow_stdin", True))
    return sys.stderr is not None and sys.stderr.isatty()
