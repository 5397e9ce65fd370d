r"""Simulated histories: a path of the Bates model, and a chain of quotes on each day.

Over a step `h` the variance moves to a draw from its exact law, a non-central
chi-square, and the log of the forward price by

$$ \log\frac{S'}{S} = K_0 + K_1 v + K_2 v' + \sqrt{K_3 (v + v')}\, Z + J, $$

the trapezoidal rule for the variance's integral, with $K_3 = \tfrac h2 (1 - \rho^2)$,
$K_{1,2} = \tfrac h2 (\kappa \rho / \eta - \tfrac12) \mp \rho / \eta$, and `J` the jumps
less their mean. `K_0` depends on `v` such that the forward price is a martingale
whatever the step.

Time runs through nights and weekends, as it does in the prices of options.

References:
    Andersen, L. (2008). Simple and efficient simulation of the Heston stochastic
    volatility model. *Journal of Computational Finance*, 11(3), 1-42.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pandas.tseries import holiday
from pandas.tseries.offsets import Day

from relu_options.errors import require_positive
from relu_options.market_data.clocks import as_date, expiry_time, years_between
from relu_options.market_data.history import ChainHistory
from relu_options.simulation.bates import BatesModel, BatesSmiles
from relu_options.simulation.chain import (
    SimulatedChain,
    SimulationTerms,
    listed_strikes,
    quote_options,
)

_LONGEST_STEP = 1.0 / (365 * 4)  # years
_LISTED_AHEAD = 3  # years of calendar beyond the last date
_FRIDAY = 4
_QUARTERS = (3, 6, 9, 12)
_LEAST_QUOTED = 0.001  # currency units: listed options worth less are not quoted
_LEAST_VARIANCE = 1e-6
_PATH, _QUOTES = 0, 1  # streams of random numbers


@dataclass(frozen=True)
class HistoryTerms:
    """What a simulated history is made from; with the same terms, the same history.

    Fridays settle on the close (PM), third Fridays on the opening (AM); an expiry that
    falls on a holiday is on the trading day before it.

    Attributes:
        model: The model that prices the options, with the variance of the first date.
        spot: Price of the underlying on the first date, in currency units.
        rate: Continuous, per year.
        dividend_yield: Continuous, per year.
        start: The first date.
        days: Number of trading days.
        seed: Of the path and of the noise of the quotes.
        path_model: The model that the path follows, if it is not the one of the prices;
            its initial variance does not count. Models of prices often have
            `η² > 2 κ θ`, with which the variance of a path visits zero.
        risk_premium: What the underlying earns beyond rate less dividend yield, per
            year.
        weeklies: Number of Fridays that are listed, third ones aside.
        monthlies: Number of third Fridays that are listed.
        quarterlies: Number of third Fridays of a quarter's last month listed beyond.
        strikes_per_deviation: How many strikes there are to one deviation, at least,
            near the money.
        holidays: Weekdays without trading; None for those of US stock exchanges.
        missing: Trading days of which no quotes are kept.
        splits: Dates from which prices count in new shares, each with the number of
            new shares for an old one.
        underlying: Its name.

    Raises:
        ValueError: If a number is out of range, or a split is on no trading day.

    Examples:
        >>> model = BatesModel(0.04, 0.04, 2.0, 0.5, -0.7)
        >>> terms = HistoryTerms(
        ...     model=model, spot=1000.0, rate=0.03, dividend_yield=0.01,
        ...     start="2025-01-02", days=30, seed=1)
        >>> HistoryTerms.from_dict(terms.to_dict()) == terms
        True
        >>> print(*terms.trading_days[[0, 5, 6, 29]].strftime("%Y-%m-%d"))
        2025-01-02 2025-01-09 2025-01-10 2025-02-13
    """

    model: BatesModel
    spot: float
    rate: float
    dividend_yield: float
    start: str
    days: int
    seed: int
    path_model: BatesModel | None = None
    risk_premium: float = 0.0
    weeklies: int = 4
    monthlies: int = 5
    quarterlies: int = 3
    strikes_per_deviation: float = 16.0
    holidays: tuple[str, ...] | None = None
    missing: tuple[str, ...] = ()
    splits: tuple[tuple[str, float], ...] = ()
    underlying: str = "SIM"

    def __post_init__(self):
        require_positive(
            spot=self.spot,
            days=self.days,
            strikes_per_deviation=self.strikes_per_deviation,
            **{f"the ratio of the split of {day}": size for day, size in self.splits},
        )
        listed = self.weeklies, self.monthlies, self.quarterlies
        if min(listed) < 0 or not any(listed):
            raise ValueError(
                "weeklies, monthlies and quarterlies must not be negative, nor all "
                f"zero, but are {listed}"
            )
        unknown = [
            day for day, _ in self.splits if as_date(day) not in self.trading_days
        ]
        if unknown:
            raise ValueError(
                f"a split on {unknown[0]}, which is no trading day of the history, "
                f"{self.trading_days[0]:%Y-%m-%d} to {self.trading_days[-1]:%Y-%m-%d}"
            )

    @property
    def trading_days(self) -> pd.DatetimeIndex:
        """The trading days of the history, those whose quotes are missing included."""
        return self._open_days[: self.days]

    @property
    def _open_days(self) -> pd.DatetimeIndex:
        """Trading days from the first on, far enough for the last expiry."""
        first = as_date(self.start)
        years = _LISTED_AHEAD + self.days // 250
        weekdays = pd.bdate_range(first, first + pd.DateOffset(years=years))
        if self.holidays is None:
            closed = us_holidays(first, weekdays[-1])
        else:
            closed = pd.DatetimeIndex([as_date(day) for day in self.holidays])
        return weekdays.difference(closed).as_unit("us").rename("date")

    def to_dict(self) -> Mapping[str, Any]:
        """The terms as what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, terms: Mapping[str, Any]) -> "HistoryTerms":
        """The terms from what `to_dict` gave."""
        models = {
            name: None if terms[name] is None else BatesModel(**terms[name])
            for name in ("model", "path_model")
        }
        holidays = terms["holidays"]
        dates = {
            "holidays": None if holidays is None else tuple(holidays),
            "missing": tuple(terms["missing"]),
            "splits": tuple((day, ratio) for day, ratio in terms["splits"]),
        }
        return cls(**{**terms, **models, **dates})


def simulate_paths(
    model: BatesModel,
    times: ArrayLike,
    *,
    seed: int | np.random.Generator,
    paths: int = 1,
    longest_step: float = _LONGEST_STEP,
) -> tuple[np.ndarray, np.ndarray]:
    """Log of the price over its forward, and the variance, along paths of the model.

    Args:
        model: The model.
        times: Years from today, increasing, of shape `(m,)`.
        seed: Of the random numbers, or their generator.
        paths: How many.
        longest_step: Years; what is between two times is divided into steps no longer.

    Returns:
        Two arrays of shape `(paths, m)`.

    Examples:
        The forward price is a martingale, to the error of the mean.

        >>> model = BatesModel(0.04, 0.05, 2.0, 0.5, -0.7, 0.5, -0.1, 0.1)
        >>> logs, _ = simulate_paths(model, [0.5], seed=1, paths=10_000,
        ...                          longest_step=0.1)
        >>> off = np.exp(logs).mean() - 1.0
        >>> bool(abs(off) < 3.0 * np.exp(logs).std() / np.sqrt(10_000))
        True
    """
    rng = np.random.default_rng(seed)
    log_price, variance = np.zeros(paths), np.full(paths, model.initial_variance)
    found, now = [], 0.0
    for time in np.atleast_1d(np.asarray(times, dtype=np.float64)):
        steps = int(np.ceil((time - now) / longest_step - 1e-9))
        for _ in range(steps):
            step = (time - now) / steps
            log_price, variance = _advance(model, log_price, variance, step, rng)
        now = time
        found.append((log_price, variance))
    logs, variances = zip(*found, strict=True)
    return np.stack(logs, axis=1), np.stack(variances, axis=1)


def simulate_underlying(terms: HistoryTerms) -> pd.DataFrame:
    """The path of the underlying on the trading days of a history.

    Args:
        terms: What to simulate.

    Returns:
        One row per trading day: `open` (09:30 New York, NaN on the first day) and
        `close` (16:00), in currency units per share of that day; `variance`, per year,
        at the close; `shares`, how many one of the first day has become.

    Examples:
        >>> model = BatesModel(0.04, 0.04, 2.0, 0.5, -0.7)
        >>> path = simulate_underlying(HistoryTerms(
        ...     model=model, spot=1000.0, rate=0.03, dividend_yield=0.01,
        ...     start="2025-01-02", days=3, seed=1, splits=(("2025-01-06", 2.0),)))
        >>> path["close"].iloc[0], path["shares"].tolist()
        (np.float64(1000.0), [1.0, 1.0, 2.0])
    """
    days = terms.trading_days
    instants = [expiry_time(day, clock) for day in days for clock in ("AM", "PM")][1:]
    times = np.array([years_between(instants[0], instant) for instant in instants])
    model = terms.model
    if terms.path_model is not None:
        variance = terms.model.initial_variance
        model = replace(terms.path_model, initial_variance=variance)
    rng = np.random.default_rng([terms.seed, _PATH])
    logs, variances = simulate_paths(model, times[1:], seed=rng)
    drift = terms.rate - terms.dividend_yield + terms.risk_premium
    prices = terms.spot * np.exp(drift * times[1:] + logs[0])
    shares = np.ones(len(days))
    for day, ratio in terms.splits:
        shares[days >= as_date(day)] *= ratio
    opens = np.append(np.nan, prices[0::2]) / shares
    closes = np.append(terms.spot, prices[1::2]) / shares
    return pd.DataFrame(
        {
            "open": opens.round(2),
            "close": closes.round(2),
            "variance": np.append(model.initial_variance, variances[0, 1::2]),
            "shares": shares,
        },
        index=days,
    )


def simulate_history(terms: HistoryTerms) -> Iterator[SimulatedChain]:
    """Chains of quotes on the trading days of a path, missing days left out.

    Strikes are listed as the underlying moves, and stay until they expire; options
    worth nothing are not quoted. A split divides strikes as it does prices. Quotes are
    those of `simulate_chain`.

    Args:
        terms: What to simulate.

    Yields:
        The chain of each day; its model has the variance of the day.

    Raises:
        ValueError: If the model's prices need a finer grid than that of
            `BatesModel.smiles`.

    Examples:
        >>> model = BatesModel(0.04, 0.04, 2.0, 0.5, -0.7)
        >>> terms = HistoryTerms(
        ...     model=model, spot=1000.0, rate=0.03, dividend_yield=0.01,
        ...     start="2025-01-02", days=3, seed=1, missing=("2025-01-03",))
        >>> for day in simulate_history(terms):
        ...     print(day.terms.quote_time, day.terms.spot, len(day.slices))
        2025-01-02T21:00:00+00:00 1000.0 12
        2025-01-06T21:00:00+00:00 1001.32 12
    """
    missing = {as_date(day) for day in terms.missing}
    expiries = _Expiries(terms)
    path = simulate_underlying(terms)
    listed: dict[pd.Timestamp, np.ndarray] = {}
    before = 1.0
    for day, (_, spot, variance, shares) in zip(
        path.index, path.to_numpy(), strict=True
    ):
        if shares != before:
            ratio = shares / before
            listed = {date: (k / ratio).round(2) for date, k in listed.items()}
            before = shares
        clocks = {date: expiries.clocks[date] for date in expiries.listed(day)}
        model = replace(terms.model, initial_variance=max(variance, _LEAST_VARIANCE))
        chain, listed = _quoted_day(terms, day, spot, model, clocks, listed)
        if day not in missing:
            yield chain


def write_simulated_history(
    terms: HistoryTerms, path: str | Path, file_format: str | None = None
) -> ChainHistory:
    """Simulate a history and write it to a folder, with all its tables.

    Args:
        terms: What to simulate.
        path: The folder; what of the history is there already is kept.
        file_format: As for `ChainHistory`.

    Returns:
        The history: chains, calendar, splits, settlement and underlying prices.

    Raises:
        ValueError: If the folder holds a chain of another history on one of the dates.

    Examples:
        >>> import tempfile
        >>> model = BatesModel(0.04, 0.04, 2.0, 0.5, -0.7)
        >>> terms = HistoryTerms(
        ...     model=model, spot=1000.0, rate=0.03, dividend_yield=0.01,
        ...     start="2025-01-02", days=3, seed=1, missing=("2025-01-03",))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     history = write_simulated_history(terms, folder)
        ...     print(history)
        ...     print(history.settlement_prices.to_string())
        ChainHistory(SIM: 2 dates from 2025-01-02 to 2025-01-06 (1 missing), 2,954 rows)
              expiry settlement   price
        0 2025-01-03         PM  981.96
    """
    history = ChainHistory(path, terms.underlying, file_format)
    for chain in simulate_history(terms):
        history.append(chain.chain())
    underlying = simulate_underlying(terms)
    history.write_calendar(underlying.index)
    history.write_splits(dict(terms.splits))
    history.write_underlying_prices(underlying["close"])
    history.write_settlement_prices(settlement_prices(terms))
    return history


def settlement_prices(terms: HistoryTerms) -> pd.DataFrame:
    """What the expiries of a simulated history settle at, as far as its path goes.

    Args:
        terms: What to simulate.

    Returns:
        Columns `expiry`, `settlement` and `price`: the opening (AM) or the close (PM)
        of the expiry.

    Examples:
        >>> model = BatesModel(0.04, 0.04, 2.0, 0.5, -0.7)
        >>> terms = HistoryTerms(
        ...     model=model, spot=1000.0, rate=0.03, dividend_yield=0.01,
        ...     start="2025-01-02", days=12, seed=1)
        >>> settlement_prices(terms)["settlement"].tolist()
        ['PM', 'PM', 'AM']
    """
    expiries = _Expiries(terms)
    path = simulate_underlying(terms)
    rows = [
        (day, clock, path.loc[day, "open" if clock == "AM" else "close"])
        for day in path.index[1:]
        if (clock := expiries.clocks.get(day)) is not None
    ]
    return pd.DataFrame(rows, columns=["expiry", "settlement", "price"])


def us_holidays(first: pd.Timestamp, last: pd.Timestamp) -> pd.DatetimeIndex:
    """Weekdays on which US stock exchanges do not trade, by today's rules.

    Examples:
        >>> days = us_holidays(pd.Timestamp("2025-01-01"), pd.Timestamp("2025-12-31"))
        >>> print(*days.strftime("%m-%d"))
        01-01 01-20 02-17 04-18 05-26 06-19 07-04 09-01 11-27 12-25
    """
    return _UnitedStates().holidays(first, last)


class _UnitedStates(holiday.AbstractHolidayCalendar):
    """The rules of the New York Stock Exchange since 2022."""

    rules = [  # noqa: RUF012  (as pandas reads it)
        holiday.Holiday(
            "New Year", month=1, day=1, observance=holiday.sunday_to_monday
        ),
        holiday.USMartinLutherKingJr,
        holiday.USPresidentsDay,
        holiday.GoodFriday,
        holiday.USMemorialDay,
        holiday.Holiday(
            "Juneteenth", month=6, day=19, observance=holiday.nearest_workday
        ),
        holiday.Holiday(
            "Independence", month=7, day=4, observance=holiday.nearest_workday
        ),
        holiday.USLaborDay,
        holiday.USThanksgivingDay,
        holiday.Holiday(
            "Christmas", month=12, day=25, observance=holiday.nearest_workday
        ),
    ]


class _Expiries:
    """The expiries of a history: `clocks`, "AM" or "PM" of each, in their order."""

    def __init__(self, terms: HistoryTerms):
        self._terms = terms
        days = terms._open_days
        fridays = pd.date_range(days[0], days[-1] - Day(7), freq="W-FRI")
        third = (fridays.day > 14) & (fridays.day <= 21)
        kinds = np.where(third, np.where(fridays.month.isin(_QUARTERS), "Q", "M"), "W")
        # An expiry on a holiday is on the trading day before it.
        places = days.searchsorted(fridays, side="right") - 1
        self._dates = days[places]
        self._kinds = kinds
        self.clocks: dict[pd.Timestamp, str] = {
            date: "PM" if kind == "W" else "AM"
            for date, kind in zip(self._dates, kinds, strict=True)
            if kind == "W" or terms.monthlies or terms.quarterlies
            if kind != "W" or terms.weeklies
        }

    def listed(self, day: pd.Timestamp) -> list[pd.Timestamp]:
        """The expiries that are quoted at the close of a day."""
        terms = self._terms
        ahead = self._dates > day
        dates, kinds = self._dates[ahead], self._kinds[ahead]
        weekly, monthly = dates[kinds == "W"], dates[kinds != "W"]
        quarterly = dates[kinds == "Q"]
        found = {*weekly[: terms.weeklies], *monthly[: terms.monthlies]}
        last = max((one for one in monthly[: terms.monthlies]), default=day)
        found |= {*quarterly[quarterly > last][: terms.quarterlies]}
        return sorted(found)


def _advance(
    model: BatesModel,
    log_price: np.ndarray,
    variance: np.ndarray,
    step: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Log price and variance after a step, each of shape `(paths,)`."""
    kappa, theta = model.mean_reversion, model.long_run_variance
    eta, rho = model.volatility_of_variance, model.correlation
    shape = log_price.shape
    normal = rng.standard_normal(shape)
    decay = np.exp(-kappa * step)
    if eta == 0.0:
        later = theta + (variance - theta) * decay
        total = theta * step + (variance - theta) * -np.expm1(-kappa * step) / kappa
        move = -0.5 * total + np.sqrt(total) * normal
    else:
        # v' = 2 c Gamma(d / 2 + Poisson(λ / 2)): c times a non-central chi-square.
        c = eta * eta * (1.0 - decay) / (4.0 * kappa)
        half_d, half_lambda = 2.0 * kappa * theta / eta**2, 0.5 * variance * decay / c
        later = 2.0 * c * rng.standard_gamma(half_d + rng.poisson(half_lambda))
        skew = 0.5 * step * (kappa * rho / eta - 0.5)
        k1, k2 = skew - rho / eta, skew + rho / eta
        k3 = 0.5 * step * (1.0 - rho * rho)
        # log E[exp(a v')], which K_0 takes out.
        a = k2 + 0.5 * k3
        damped = 1.0 - 2.0 * a * c
        cumulant = 2.0 * a * c * half_lambda / damped - half_d * np.log(damped)
        k0 = -cumulant - (k1 + 0.5 * k3) * variance
        deviation = np.sqrt(k3 * (variance + later))
        move = k0 + k1 * variance + k2 * later + deviation * normal
    mean, width = model.jump_mean, model.jump_volatility
    count = rng.poisson(model.jump_intensity * step, shape)
    jumps = count * mean + np.sqrt(count) * width * rng.standard_normal(shape)
    compensator = model.jump_intensity * step * np.expm1(mean + 0.5 * width**2)
    return log_price + move + jumps - compensator, later


def _new_strikes(
    smiles: BatesSmiles, row: int, forward: float, strikes_per_deviation: float
) -> np.ndarray:
    """The strikes that an exchange would list today for an expiry."""
    grid = forward * np.exp(smiles.grid * smiles.scale[row])
    price = forward * smiles.calls[row]
    return listed_strikes(
        grid,
        below=smiles.below[row],
        price=price - np.maximum(forward - grid, 0.0),
        forward=forward,
        strikes_per_deviation=strikes_per_deviation,
    )


def _quoted_day(
    terms: HistoryTerms,
    day: pd.Timestamp,
    spot: float,
    model: BatesModel,
    clocks: Mapping[pd.Timestamp, str],
    listed: Mapping[pd.Timestamp, np.ndarray],
) -> tuple[SimulatedChain, dict[pd.Timestamp, np.ndarray]]:
    """The chain of a day, and the strikes that are listed at its end by expiry."""
    quote_time = expiry_time(day)
    ends = [expiry_time(date, clock) for date, clock in clocks.items()]
    years = np.array([years_between(quote_time, end) for end in ends])
    forwards = spot * np.exp((terms.rate - terms.dividend_yield) * years)
    discounts = np.exp(-terms.rate * years)
    smiles = model.smiles(years)
    strikes, calls, kept = [], [], {}
    for row, (date, forward) in enumerate(zip(clocks, forwards, strict=True)):
        new = _new_strikes(smiles, row, forward, terms.strikes_per_deviation)
        strike = np.union1d(listed.get(date, new), new)
        call = forward * smiles.call(row, np.log(strike / forward))
        quoted = call - np.maximum(forward - strike, 0.0) >= _LEAST_QUOTED
        kept[date] = strike
        strikes.append(strike[quoted])
        calls.append(call[quoted])
    rows = np.repeat(np.arange(len(clocks)), [2 * len(one) for one in strikes])
    is_call = np.concatenate([np.arange(2 * len(one)) < len(one) for one in strikes])
    strike = np.concatenate([np.tile(one, 2) for one in strikes])
    call = np.concatenate([np.tile(one, 2) for one in calls])
    forward, discount = forwards[rows], discounts[rows]
    of_day = SimulationTerms(
        model=model,
        spot=spot,
        rate=terms.rate,
        dividend_yield=terms.dividend_yield,
        quote_time=quote_time.isoformat(),
        expiries=tuple(f"{date:%Y-%m-%d}" for date in clocks),
        seed=terms.seed,
        underlying=terms.underlying,
    )
    index = pd.DatetimeIndex(list(clocks), name="expiry")
    table = quote_options(
        of_day,
        np.random.default_rng([terms.seed, _QUOTES, day.toordinal()]),
        contracts={
            "expiry": index[rows],
            "settlement": np.take(list(clocks.values()), rows),
            "strike": strike,
        },
        is_call=is_call,
        price=discount * np.where(is_call, call, call - (forward - strike)),
        forward=forward,
        discount_factor=discount,
        time_to_expiry=years[rows],
    )
    table.insert(0, "quote_time", quote_time)
    slices = pd.DataFrame(
        {"time_to_expiry": years, "forward": forwards, "discount_factor": discounts},
        index=index,
    )
    return SimulatedChain(of_day, table, slices), kept
