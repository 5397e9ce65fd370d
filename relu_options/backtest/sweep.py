"""Many strategies, or one on many terms, over one history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from typing import Any

from relu_options.backtest.day import History
from relu_options.backtest.engine import (
    Setup,
    Strategy,
    Surfaces,
    dates_between,
    run,
    setup_of,
)
from relu_options.backtest.result import SweepResult
from relu_options.fitting.workers import processes, worker_count


def sweep(
    history: History,
    strategies: Mapping[str, Strategy | Setup],
    *,
    executor: Executor | None = None,
    n_jobs: int = 1,
    surfaces: Surfaces | None = None,
    start: Any = None,
    end: Any = None,
    progress: bool | None = None,
    **terms: Any,
) -> SweepResult:
    """Run several strategies over one history, each with its own account.

    In one process they go side by side, so that each chain is read once. Results do not
    depend on the number of processes.

    Args:
        history: Chains by date.
        strategies: By name, each a strategy or a `Setup` with terms of its own.
        executor: Runs each strategy as a task of its own: any
            `concurrent.futures.Executor`, such as Dask's `client.get_executor()`.
            History and strategies must be picklable: functions of a module, or objects
            of its classes.
        n_jobs: Processes to start instead, each for a part of the strategies; -1 for
            one a core. A script that asks for more than one keeps its own work under
            `if __name__ == "__main__":`.
        surfaces: Fitted surfaces by date.
        start: First date.
        end: Last date.
        progress: Whether to show a bar, in one process.
        **terms: Of the strategies that are not `Setup`s: arguments of `backtest`.

    Returns:
        Results by name. A strategy that fails is left out, with its reason in
        `failures`.

    Raises:
        ValueError: If there are no strategies, or `n_jobs` is out of range; if an
            argument would do nothing: `n_jobs` beside an executor, or terms where all
            strategies are `Setup`s.
        BacktestError: If the history has no dates.

    Examples:
        What the spread costs: one strategy, at mid and at bid and ask.

        >>> from relu_options.backtest import Costs, Setup
        >>> from relu_options.backtest.strategies import straddle
        >>> at_mid = Setup(straddle(), costs=Costs.none())
        >>> asked = {"at mid": at_mid, "at bid and ask": straddle()}
        >>> sorted(asked)  # and then `sweep(history, asked).table`
        ['at bid and ask', 'at mid']
    """
    if not strategies:
        raise ValueError("there are no strategies to run")
    jobs = worker_count(n_jobs)
    if executor is not None and n_jobs != 1:
        raise ValueError("the executor has its workers: pass it or `n_jobs`, not both")
    setups = _setups(strategies, terms)
    dates = dates_between(history, start, end)
    if executor is None and n_jobs == 1:
        return run(history, setups, surfaces, dates, progress=progress, collect=True)
    names = list(setups)
    tasks = len(names)
    if executor is None:
        tasks = min(jobs, tasks)
    parts = [{name: setups[name] for name in names[one::tasks]} for one in range(tasks)]
    with nullcontext(executor) if executor else processes(tasks) as workers:
        futures = [
            workers.submit(
                run, history, part, surfaces, dates, progress=False, collect=True
            )
            for part in parts
        ]
        done = [future.result() for future in futures]
    return _joined(names, done)


def _setups(
    strategies: Mapping[str, Strategy | Setup], terms: Mapping[str, Any]
) -> dict[str, Setup]:
    """Each strategy with its terms: its own, or those of all."""
    if terms and all(isinstance(one, Setup) for one in strategies.values()):
        raise ValueError(
            f"{', '.join(terms)}: every strategy is a `Setup`, which has its own "
            "terms; pass them there"
        )
    return {
        name: one if isinstance(one, Setup) else setup_of(one, **terms)
        for name, one in strategies.items()
    }


def _joined(names: Sequence[str], done: Sequence[SweepResult]) -> SweepResult:
    """What all parts came to, in the order of the names."""
    results = {name: one for part in done for name, one in part.results.items()}
    failures = {name: why for part in done for name, why in part.failures.items()}
    return SweepResult(
        {name: results[name] for name in names if name in results},
        {name: failures[name] for name in names if name in failures},
    )
