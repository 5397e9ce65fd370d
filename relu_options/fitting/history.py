"""Fit the surface of every date of a history, on one core or on many machines.

A worker is sent the file of a chain as bytes, so it needs neither the folder nor the
disk that it lies on, and sends back text. The text does not depend on who made it: one
worker or a hundred, in one go or killed and resumed, the bytes are the same. So several
processes may fit into one folder; a date that more of them come to is written again.

Each file has a digest, so what was damaged is never read as something else.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    wait,
)
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

import relu_options
from relu_options.compilation_cache import is_kept
from relu_options.errors import FitError
from relu_options.files import check_seal, sealed_json, sole_writer
from relu_options.fitting.compiled import one_thread
from relu_options.fitting.smooth import NARROWEST, FitOptions
from relu_options.fitting.surface import fit_surface
from relu_options.fitting.workers import processes, worker_count
from relu_options.market_data.clocks import as_date
from relu_options.market_data.history import ChainHistory, nearest
from relu_options.market_data.stored_chain import StoredChain
from relu_options.progress import progress_bar
from relu_options.surfaces import PriceSurface

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Read = TypeVar("Read")

AHEAD = 64  # dates that are with the workers at a time, some 50 kB each
MATURITIES = (7, 30, 91, 182, 365)  # days, at which volatilities are kept
FORMAT = "relu_options.FittedHistory/1"
_OPTIONS, _FITTED, _FAILED = "_options.json", ".json", ".failed.json"
_RESTORE = "restore it, choose another folder, or delete this one"
_FAILURES = (ValueError, FitError, ArithmeticError, LookupError)
"""What can be wrong with the quotes of a date; else something is with the program."""


def fit_history(
    history: ChainHistory,
    *,
    dates: slice | Iterable[object] | None = None,
    executor: Executor | None = None,
    n_jobs: int = 1,
    output: str | Path | None = None,
    progress: bool | None = None,
    smoothing: float | str = "auto",
    kinks: int = 80,
    narrowest: float = NARROWEST,
) -> FittedHistory:
    """Fit the surface of every date of a history.

    Dates that cannot be fitted are in `FittedHistory.failures`, with the reason; the
    rest goes on.

    Args:
        history: Chains of one underlying.
        dates: Which: a slice whose ends count, or a list; by default all.
        executor: Where to fit: any `concurrent.futures.Executor`, such as
            `client.get_executor()` of a Dask cluster. It is left open.
        n_jobs: Without an executor, how many processes to start, each of one thread; -1
            for one a core. With one, this process fits. A script that asks for more
            keeps its own work under `if __name__ == "__main__":`, since each process
            imports it. The first date is fitted here, so that one process compiles,
            with all cores, what the others then find on disk.
        output: A folder to write to, one file a date. Dates that it has from the same
            chain are not fitted again: a run that was killed is simply started again.
            Those whose file is damaged are, with a warning that names it. Without it
            the surfaces are kept in memory, some 50 kB a date.
        progress: Whether to show a bar; by default for long jobs. See
            `relu_options.progress`.
        smoothing: As for `fit_surface`.
        kinks: Likewise.
        narrowest: Likewise.

    Returns:
        The surfaces by date: those of the folder, if there is one.

    Raises:
        ValueError: If an argument is out of range, there is no chain, there are several
            underlyings, or `output` holds fits with other options, or with a
            damaged note of them.
        KeyError: If a date of a list has no chain.
        BrokenExecutor: If a worker died, such as for lack of memory.
        OSError: If `output` cannot be written to.

    Examples:
        >>> from relu_options.simulation.bundled import bundled_history
        >>> fitted = fit_history(bundled_history(), dates=["2025-01-06", "2025-01-07"])
        >>> fitted
        FittedHistory(2 dates from 2025-01-06 to 2025-01-07)
        >>> bool(fitted["2025-01-06"].certificate)
        True
        >>> fitted.to_frame()[["slices", "inside"]].to_numpy().tolist()
        [[5.0, 1.0], [5.0, 1.0]]
    """
    options = FitOptions(smoothing, kinks, narrowest)
    if options.asked == 0.0:
        raise ValueError("a surface is fitted smooth; smoothing must be positive")
    jobs = worker_count(n_jobs)
    chosen = history.select_dates(dates)
    if not len(chosen):
        raise ValueError(f"there is no chain to fit in {history}")
    fitted = FittedHistory(output)
    fitted._require_options(history.stored(chosen[0]).underlying, options)
    jobs = min(jobs, len(chosen))
    done: list[pd.Timestamp] = []
    with ExitStack() as stack:
        stack.enter_context(one_thread())
        bar = stack.enter_context(progress_bar("surfaces", len(chosen), progress))

        def tasks() -> Iterator[StoredChain]:
            for stored in map(history.stored, chosen):
                if fitted._has(stored):
                    done.append(stored.date)
                    bar.update()
                else:
                    yield stored

        run = _in_turn if jobs == 1 else partial(_in_processes, jobs)
        if executor is not None:
            run = partial(_in_parallel, executor)
        outcomes = stack.enter_context(closing(run(tasks(), asdict(options))))
        try:
            for outcome in outcomes:
                fitted._keep(outcome)
                done.append(outcome.date)
                bar.update()
        except BrokenExecutor as error:
            kept = "" if fitted.folder is None else f", and kept in {fitted.folder}"
            raise type(error)(
                f"a worker died with {len(done)} of {len(chosen)} dates done{kept}: "
                "for lack of memory, or because a script started workers outside of "
                '`if __name__ == "__main__":`'
            ) from error
    return fitted


class Outcome(NamedTuple):
    """What became of one date: the text of a surface, or of why there is none."""

    date: pd.Timestamp
    failed: bool
    text: str


def fit_stored(stored: StoredChain, options: Mapping[str, Any]) -> Outcome:
    """Fit the surface of one stored chain: what a worker does.

    Args:
        stored: The chain.
        options: Keyword arguments of `fit_surface`.

    Examples:
        >>> from relu_options.simulation.bundled import bundled_history
        >>> outcome = fit_stored(bundled_history().stored("2025-01-06"), {})
        >>> outcome.failed, len(PriceSurface.from_json(outcome.text))
        (False, 5)
    """
    try:
        surface = fit_surface(stored.chain(), **options)
    except _FAILURES as error:
        reason = {"error": type(error).__name__, "reason": str(error)}
        text = sealed_json({"source": stored.digest, **reason})
        return Outcome(stored.date, True, text)
    except Exception as error:
        error.add_note(f"while fitting {stored.name}")
        raise
    # The chain has the quotes, and a file by date is to be small.
    document = json.loads(surface.to_json(quotes=False))
    document |= {"source": stored.digest, "statistics": _statistics(surface)}
    return Outcome(stored.date, False, sealed_json(document))


@dataclass(frozen=True, init=False, eq=False)
class FittedHistory(Mapping[pd.Timestamp, PriceSurface]):
    """The surfaces of many dates, each loaded when asked for.

    A file is the JSON of a `PriceSurface`, so `PriceSurface.from_json` reads it and
    `python -m relu_options.verify` proves it.

    Attributes:
        folder: Where the files are; None if they are in memory.

    Raises:
        ValueError: If the path is a file, and when a file that is damaged is read.

    Examples:
        >>> import tempfile
        >>> from relu_options.simulation.bundled import bundled_history
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = fit_history(bundled_history(), dates=["2025-01-06"], output=folder)
        ...     fitted = FittedHistory(folder)
        ...     print(fitted["2025-01-06"])
        PriceSurface(5 expiries from 2025-01-10 PM to 2025-03-21 AM, 80 kinks)
    """

    folder: Path | None
    _texts: dict[str, str] = field(repr=False)

    def __init__(self, folder: str | Path | None = None):
        path = None if folder is None else Path(folder)
        if path is not None and path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file, and fits are in a folder")
        object.__setattr__(self, "folder", path)
        object.__setattr__(self, "_texts", {})

    @property
    def dates(self) -> pd.DatetimeIndex:
        """The dates that have a surface, in order."""
        return self._dates(_FITTED)

    def __len__(self) -> int:
        return len(self.dates)

    def __iter__(self) -> Iterator[pd.Timestamp]:
        return iter(self.dates)

    def __getitem__(self, date: object) -> PriceSurface:
        """The surface of a date.

        Raises:
            KeyError: If there is none, saying why or naming the nearest dates.
            ValueError: If its file is damaged.
        """
        day = as_date(date)
        surface = self._read(f"{day:%Y-%m-%d}{_FITTED}", PriceSurface.from_json)
        if surface is not None:
            return surface
        failed = self._document(f"{day:%Y-%m-%d}{_FAILED}")
        if failed is not None:
            reason = failed["reason"]
            raise KeyError(f"{day:%Y-%m-%d} could not be fitted: {reason}")
        raise KeyError(f"no surface of {day:%Y-%m-%d}; {nearest(day, self.dates)}")

    @property
    def failures(self) -> pd.DataFrame:
        """The dates that could not be fitted: `error`, its kind, and `reason`."""
        documents = self._documents(_FAILED)
        columns = ["error", "reason"]
        rows = list(documents.values())
        return pd.DataFrame(rows, _as_index(documents), columns, "str")

    def to_frame(self) -> pd.DataFrame:
        """One row per date: how it was fitted, and its volatilities at the money.

        Returns:
            By date: `slices`, and how many were `left_out`; `quotes`; the share of them
            that the surface is `inside` of; the largest `excess` of the others,
            currency units; `volatility_error`, root mean square of fitted minus quoted
            volatility; and `volatility_30d` and the like, at the forward, missing where
            no expiries are on both sides.
        """
        documents = self._documents(_FITTED)
        rows = [document["statistics"] for document in documents.values()]
        table = pd.DataFrame(rows, _as_index(documents), list(_STATISTICS))
        return table.astype(_STATISTICS)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw volatilities at the money of constant maturities; returns the Axes."""
        from relu_options.plotting import plot_fitted_history

        return plot_fitted_history(self, ax)

    def __repr__(self) -> str:
        dates, failed = self.dates, len(self._dates(_FAILED))
        if not len(dates):
            text = "no date"
        elif len(dates) == 1:
            text = f"1 date, {dates[0]:%Y-%m-%d}"
        else:
            text = f"{len(dates):,} dates from {dates[0]:%Y-%m-%d} "
            text += f"to {dates[-1]:%Y-%m-%d}"
        more = f", {failed:,} failed: see `failures`" if failed else ""
        return f"FittedHistory({text}{more})"

    def _dates(self, ending: str) -> pd.DatetimeIndex:
        """The dates of the files with an ending."""
        if self.folder is None:
            names = list(self._texts)
        else:
            names = [path.name for path in self.folder.glob(f"[0-9]*{ending}")]
        days = [name[:10] for name in names if name[10:] == ending]
        dates = pd.to_datetime(sorted(days), format="%Y-%m-%d", errors="coerce")
        return _as_index(dates.dropna())

    def _documents(self, ending: str) -> dict[pd.Timestamp, dict[str, Any]]:
        """What the files with an ending say, by date."""
        found = {
            date: self._document(f"{date:%Y-%m-%d}{ending}")
            for date in self._dates(ending)
        }
        # Another process may have replaced one by the other kind.
        return {date: one for date, one in found.items() if one is not None}

    def _document(self, name: str) -> dict[str, Any] | None:
        """What a file says, if there is one."""
        return self._read(name, json.loads)

    def _read(self, name: str, decode: Callable[[str], Read]) -> Read | None:
        """What is decoded from the text of a file, if there is one."""
        try:
            if self.folder is None:
                text = self._texts.get(name)
            else:
                text = (self.folder / name).read_text(encoding="utf-8")
            if text is None:
                return None
            check_seal(text.rstrip().encode())
            return decode(text)
        except FileNotFoundError:
            return None
        except (ValueError, OSError, LookupError) as error:
            again = "`fit_history` with this folder as `output` fits its date again"
            remedy = _RESTORE if name == _OPTIONS else again
            where = name if self.folder is None else self.folder / name
            raise ValueError(f"{where} cannot be read: {error}; {remedy}") from error

    def _has(self, stored: StoredChain) -> bool:
        """Whether a date has been fitted to this very chain; warns of damage."""
        day = f"{stored.date:%Y-%m-%d}"
        try:
            found = [self._document(day + ending) for ending in (_FITTED, _FAILED)]
        except ValueError as error:
            warnings.warn(f"{error}, as is done now", stacklevel=2)
            return False
        sources = [one["source"] for one in found if one is not None]
        # A process that was killed in `_keep` may leave an older one of the other kind.
        return sources == [stored.digest]

    def _keep(self, outcome: Outcome) -> None:
        """Keep what became of a date, in place of what was there."""
        day = f"{outcome.date:%Y-%m-%d}"
        endings = (_FAILED, _FITTED) if outcome.failed else (_FITTED, _FAILED)
        kept, other = (day + ending for ending in endings)
        if self.folder is None:
            self._texts[kept] = outcome.text
            return
        with sole_writer(self.folder) as write:
            write(kept, f"{outcome.text}\n".encode())
            (self.folder / other).unlink(missing_ok=True)

    def _require_options(self, underlying: str | None, options: FitOptions) -> None:
        """Note how the folder's surfaces are fitted, or raise if it is otherwise."""
        if self.folder is None:
            return
        asked = {
            "format": FORMAT,
            "version": relu_options.__version__,
            "underlying": underlying,
            **asdict(options),
        }
        if not self._are_noted(asked):
            with sole_writer(self.folder) as write:
                if not self._are_noted(asked):  # still
                    write(_OPTIONS, f"{sealed_json(asked)}\n".encode())

    def _are_noted(self, asked: dict[str, Any]) -> bool:
        """Whether these options are noted in the folder; raises if others are."""
        there = self._document(_OPTIONS)
        if there is None:
            if len(self._dates(_FITTED)) or len(self._dates(_FAILED)):
                raise ValueError(
                    f"{self.folder} holds surfaces, but not {_OPTIONS}, the note of "
                    f"how they were fitted; {_RESTORE}"
                )
            return False
        differs = [name for name in asked if there.get(name) != asked[name]]
        if differs:
            shown = ", ".join(
                f"{name} {there.get(name)!r} for {asked[name]!r}" for name in differs
            )
            raise ValueError(
                f"{self.folder} holds surfaces that were fitted otherwise: {shown}; "
                "choose another folder, or delete this one"
            )
        return True


_STATISTICS = {
    "slices": "int64",
    "left_out": "int64",
    "quotes": "int64",
    "inside": "float64",
    "excess": "float64",
    "volatility_error": "float64",
} | {f"volatility_{days}d": "float64" for days in MATURITIES}
"""Columns of `FittedHistory.to_frame`, with their dtypes."""


def _as_index(dates: Iterable[pd.Timestamp]) -> pd.DatetimeIndex:
    """Dates as an index, in their order."""
    return pd.DatetimeIndex(list(dates), name="date").as_unit("us")


def _statistics(surface: PriceSurface) -> dict[str, float | None]:
    """How a surface fits, as what JSON can hold."""
    fit = surface._fitted()
    years = np.array(MATURITIES) / 365.0
    volatility = np.asarray(surface.implied_volatility(surface.forward(years), years))
    between = (surface.times[0] <= years) & (years <= surface.times[-1])
    values = {
        "slices": len(surface),
        "left_out": len(fit.left_out),
        "quotes": len(surface.quotes),
        "inside": surface.share_inside,
        "excess": float(surface.quotes["excess"].max()),
        "volatility_error": surface.volatility_error,
    }
    for days, value, known in zip(MATURITIES, volatility, between, strict=True):
        values[f"volatility_{days}d"] = float(value) if known else np.nan
    return {name: None if value != value else value for name, value in values.items()}


def _in_turn(
    tasks: Iterable[StoredChain], options: Mapping[str, Any]
) -> Generator[Outcome]:
    """Fit in this process."""
    for stored in tasks:
        yield fit_stored(stored, options)


def _in_processes(
    jobs: int, tasks: Iterable[StoredChain], options: Mapping[str, Any]
) -> Generator[Outcome]:
    """Fit with processes, once this one has compiled what they need."""
    with processes(jobs) as executor:
        waiting = iter(tasks)
        if is_kept():
            for _ in range(jobs):  # they import in the meantime
                executor.submit(_start)
            yield from _in_turn(islice(waiting, 1), options)
        yield from _in_parallel(executor, waiting, options)


def _start() -> None:
    """Nothing: whoever is asked for it has imported this file."""


def _in_parallel(
    executor: Executor, tasks: Iterable[StoredChain], options: Mapping[str, Any]
) -> Generator[Outcome]:
    """Fit with an executor, which holds a bounded number of tasks at a time."""
    running: set[Future[Outcome]] = set()
    try:
        for stored in tasks:
            running.add(executor.submit(fit_stored, stored, options))
            if len(running) >= AHEAD:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        for future in running:
            future.cancel()
