r"""Models compared by how they predict the quotes of the next date.

Each model is fitted on one date and asked for the next: the volatility of a strike is
what it was at the same moneyness, $\sigma_{t+1}(K) = \sigma_t(K F_t / F_{t+1})$, for
each expiry. Interpolation is easy, prediction is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from relu_options.backtest.contracts import Slice
from relu_options.backtest.day import History, curve_of
from relu_options.backtest.engine import Surfaces, dates_between
from relu_options.backtest.svi import fit_svi
from relu_options.errors import FitError, QuoteError, refuse
from relu_options.fitting.surface import fit_surface
from relu_options.formulas import black_scholes
from relu_options.market_data import ExpiryQuotes, OptionChain, prepare_quotes
from relu_options.progress import with_progress
from relu_options.surfaces import Surface

Smile = Callable[[np.ndarray], np.ndarray]
"""Annualised volatility by log(strike / forward)."""

Model = Callable[[ExpiryQuotes], Smile]
"""Fits the smile of one expiry to its quotes."""

TOLERANCE = 1e-9  # of the forward, for being inside a spread


def black_scholes_model(quotes: ExpiryQuotes) -> Smile:
    """One volatility: the weighted mean of those quoted.

    Examples:
        >>> import relu_options as ro
        >>> quotes = ro.prepare_quotes(ro.bundled_chain()["2025-06-20"])
        >>> print(black_scholes_model(quotes)(np.zeros(2)).round(3))
        [0.174 0.174]
    """
    _, volatility, weights = _volatilities(quotes)
    mean = float(np.average(volatility, weights=weights**2))
    return lambda log_moneyness: np.full(np.shape(log_moneyness), mean)


def svi_model(quotes: ExpiryQuotes) -> Smile:
    """Raw SVI, fitted to the volatilities of the mids in units of their spreads.

    Examples:
        >>> import relu_options as ro
        >>> quotes = ro.prepare_quotes(ro.bundled_chain()["2025-06-20"])
        >>> print(svi_model(quotes)(np.array([-0.2, 0.0, 0.1])).round(3))
        [0.259 0.17  0.128]
    """
    log_moneyness, volatility, weights = _volatilities(quotes)
    root = quotes.time_to_expiry**0.5
    smile = fit_svi(log_moneyness, root * volatility, weights / root)
    return lambda at: np.sqrt(smile.total_variance(at)) / root


MODELS: dict[str, Model] = {
    "black_scholes": black_scholes_model,
    "svi": svi_model,
}


def compare_models(
    history: History,
    surfaces: Surfaces | None = None,
    models: Sequence[str] | Mapping[str, Model] = (
        "network",
        "svi",
        "black_scholes",
    ),
    *,
    horizon: int = 1,
    least_days: float = 0.0,
    start: Any = None,
    end: Any = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """How well models fitted on one date predict the quotes of a later one.

    Args:
        history: Chains by date.
        surfaces: Fitted surfaces by date, of the model "network"; by default fitted
            here.
        models: Names, of "network", "svi" and "black_scholes"; or functions by name
            that fit the quotes of one expiry, beside which "network" may be None.
        horizon: Dates between fit and prediction; 0 measures the fit itself.
        least_days: To expiry, at the prediction: the volatilities of what expires
            sooner are the largest and the least certain.
        start: First date.
        end: Last date.
        progress: Whether to show a bar; by default for long jobs. See
            `relu_options.progress`.

    Returns:
        One row per predicted date and model: `date`, `model`, `quotes` (with a bid),
        `volatility_rmse` (predicted less quoted mid volatility, 0.01 meaning one per
        cent of volatility) and `share_inside` (of predicted prices between bid and
        ask).

    Raises:
        ValueError: If a model is unknown, or `horizon` negative.

    Examples:
        >>> compare_models(None, models=["heston"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: unknown model 'heston'; there are [...]
    """
    fits = _models(models)
    if None not in fits.values():
        refuse('they are of the model "network"; add it to `models`', surfaces=surfaces)
    if horizon < 0:
        raise ValueError(f"horizon must not be negative, but is {horizon}")
    dates = dates_between(history, start, end)
    rows: list[dict[str, Any]] = []
    fitted: list[dict[str, dict[Slice, Smile]]] = []
    for date in with_progress(dates, "models", len(dates), progress):
        chain = history[date]
        quotes = _prepared(chain)
        smiles = {
            name: _network(chain, quotes, surfaces, date)
            if fit is None
            else {key: fit(one) for key, one in quotes.items()}
            for name, fit in fits.items()
        }
        fitted = [*fitted, smiles][-horizon - 1 :]
        if len(fitted) > horizon:
            judged = _judge(
                fitted[0],
                {
                    key: one
                    for key, one in quotes.items()
                    if 365.0 * one.time_to_expiry >= least_days
                },
            )
            rows += [{"date": date, "model": name, **one} for name, one in judged]
    columns = ["date", "model", "quotes", "volatility_rmse", "share_inside"]
    return pd.DataFrame(rows, columns=columns)


def _models(models: Sequence[str] | Mapping[str, Model]) -> dict[str, Model | None]:
    """Functions by name; None is the network."""
    if isinstance(models, Mapping):
        return dict(models)
    known: dict[str, Model | None] = {"network": None, **MODELS}
    for name in models:
        if name not in known:
            raise ValueError(f"unknown model {name!r}; there are {list(known)}")
    return {name: known[name] for name in models}


def _prepared(chain: OptionChain) -> dict[Slice, ExpiryQuotes]:
    """Quotes of the slices that can be prepared and have volatilities enough."""
    found = {}
    for key in chain.slices:
        try:
            quotes = prepare_quotes(chain[key])
            quotes.require_lognormal("the models compared are lognormal")
        except QuoteError:
            continue
        if len(_volatilities(quotes)[0]) >= 5:
            found[key] = quotes
    return found


def _volatilities(quotes: ExpiryQuotes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-moneyness, volatility of the mid, and one over half the spread in it.

    Of quotes with a bid; where only mids are known, the weights are equal.
    """
    market = {
        "forward": quotes.forward,
        "discount_factor": quotes.discount_factor,
        "strike": quotes.strike,
        "time_to_expiry": quotes.time_to_expiry,
        "is_call": quotes.is_call,
    }
    volatility = black_scholes.implied_volatility(price=quotes.mid, **market)
    log_moneyness = np.log(quotes.strike / quotes.forward)
    if not quotes.has_spreads:
        known = np.isfinite(volatility)
        return log_moneyness[known], volatility[known], np.ones(known.sum())
    bid = black_scholes.implied_volatility(price=quotes.bid, **market)
    ask = black_scholes.implied_volatility(price=quotes.ask, **market)
    known = (quotes.bid > 0.0) & np.isfinite(bid) & np.isfinite(ask)
    half = np.maximum(0.5 * (ask - bid), 1e-5)
    return log_moneyness[known], volatility[known], 1.0 / half[known]


def _network(
    chain: OptionChain,
    quotes: dict[Slice, ExpiryQuotes],
    surfaces: Surfaces | None,
    date: pd.Timestamp,
) -> dict[Slice, Smile]:
    """Smiles of the fitted surface; none if there is none."""
    surface: Surface | None
    if surfaces is not None:
        surface = surfaces.get(date)
    else:
        try:
            surface = fit_surface(list(quotes.values()))
        except (QuoteError, FitError):
            surface = None
    if surface is None:
        return {}
    return {key: _smile_on(surface, one.time_to_expiry) for key, one in quotes.items()}


def _smile_on(surface: Surface, years: float) -> Smile:
    """The smile of one expiry of a surface."""
    curve = curve_of(surface, years)
    return lambda at: np.asarray(curve.implied_volatility(curve.forward * np.exp(at)))


def _judge(
    smiles: dict[str, dict[Slice, Smile]], quotes: dict[Slice, ExpiryQuotes]
) -> list[tuple[str, dict[str, float]]]:
    """Errors of each model, over the slices that all of them know."""
    common = [
        key for key in quotes if all(key in by_slice for by_slice in smiles.values())
    ]
    if not common:
        return []
    return [
        (name, _errors([(quotes[key], by_slice[key]) for key in common]))
        for name, by_slice in smiles.items()
    ]


def _errors(pairs: list[tuple[ExpiryQuotes, Smile]]) -> dict[str, float]:
    """Errors of one model over several slices."""
    errors, inside = [], []
    for quotes, smile in pairs:
        log_moneyness, quoted, _ = _volatilities(quotes)
        errors.append(smile(log_moneyness) - quoted)
        predicted = black_scholes.price(
            volatility=smile(np.log(quotes.strike / quotes.forward)),
            forward=quotes.forward,
            discount_factor=quotes.discount_factor,
            strike=quotes.strike,
            time_to_expiry=quotes.time_to_expiry,
            is_call=quotes.is_call,
        )
        slack = TOLERANCE * quotes.forward
        above = predicted >= quotes.bid - slack
        inside.append(above & (predicted <= quotes.ask + slack))
    error, within = np.concatenate(errors), np.concatenate(inside)
    return {
        "quotes": len(error),
        "volatility_rmse": float(np.sqrt(np.mean(np.square(error)))),
        "share_inside": float(np.mean(within)),
    }
