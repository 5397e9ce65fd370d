"""Simulated option chains, quoted as an exchange would, whose truth is known."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from relu_options.market_data.chain import OptionChain
from relu_options.market_data.clocks import (
    as_date,
    expiry_time,
    utc_time,
    years_between,
)
from relu_options.market_data.reading import read_chain
from relu_options.simulation.bates import BatesModel

_STEPS = (5.0, 10.0, 25.0, 50.0, 100.0, 200.0)
_STRIKES_PER_DEVIATION = 16.0
_FINE_DEVIATIONS, _MIDDLE_DEVIATIONS = 2.0, 4.0
_LEAST_PRICE = 0.008  # out of the money: cheaper options are not listed
_LEAST_DELTA = 1e-4
_LISTED_DEVIATIONS = (-12.0, 6.0)
_FINE_TICK, _COARSE_TICK, _TICK_CHANGE = 0.05, 0.10, 3.0


@dataclass(frozen=True)
class SimulationTerms:
    """What a simulated chain is made from; with the same terms, the same chain.

    Attributes:
        model: The model that prices the options.
        spot: Price of the underlying, in currency units.
        rate: Continuous, per year.
        dividend_yield: Continuous, per year.
        quote_time: When the quotes are taken; see `relu_options.market_data.utc_time`.
        expiries: Dates, settled on the close.
        seed: Of the noise of the quotes.
        underlying: Its name.

    Examples:
        >>> model = BatesModel(0.04, 0.04, 2.0, 0.5, -0.7)
        >>> terms = SimulationTerms(model=model, spot=1000.0, rate=0.03,
        ...                         dividend_yield=0.01, quote_time="2025-03-14",
        ...                         expiries=("2025-06-20",), seed=1)
        >>> SimulationTerms.from_dict(terms.to_dict()) == terms
        True
    """

    model: BatesModel
    spot: float
    rate: float
    dividend_yield: float
    quote_time: str
    expiries: tuple[str, ...]
    seed: int
    underlying: str = "SIM"

    def to_dict(self) -> Mapping[str, object]:
        """The terms as what JSON can hold."""
        return asdict(self) | {"expiries": list(self.expiries)}

    @classmethod
    def from_dict(cls, terms: Mapping) -> "SimulationTerms":
        """The terms from what `to_dict` gave."""
        return cls(
            **{
                **terms,
                "model": BatesModel(**terms["model"]),
                "expiries": tuple(terms["expiries"]),
            }
        )


@dataclass(frozen=True, eq=False)
class SimulatedChain:
    """A chain of simulated quotes, and the truth behind them.

    Attributes:
        terms: What it is made from; in a history, what is of its date.
        table: The quotes, one row per option, in canonical columns.
        slices: One row per expiry: `time_to_expiry` in years, `forward` in currency
            units, `discount_factor`.

    Examples:
        >>> from relu_options.simulation import bundled_truth
        >>> truth = bundled_truth()
        >>> print(truth.true_price("2025-06-20", [4800.0, 5200.0]).round(2))
        [101.29  89.34]
        >>> print(truth.true_distribution("2025-06-20", [4800.0, 5200.0]).round(4))
        [0.239  0.5683]
    """

    terms: SimulationTerms
    table: pd.DataFrame
    slices: pd.DataFrame

    def chain(self) -> OptionChain:
        """The quotes as `read_chain` gives them."""
        return read_chain(self.table)

    def true_price(
        self,
        expiry: object,
        strike: ArrayLike,
        *,
        is_call: ArrayLike | None = None,
    ) -> np.ndarray:
        """Prices of the model today, by default of the out-of-the-money options."""
        terms = self._terms_of(expiry)
        if is_call is None:
            is_call = np.asarray(strike) >= terms["forward"]
        discount = self._value("discount_factor", expiry)
        return self.terms.model.price(
            strike, is_call=is_call, discount_factor=discount, **terms
        )

    def true_volatility(self, expiry: object, strike: ArrayLike) -> np.ndarray:
        """Implied volatilities of the model, as fractions."""
        return self.terms.model.implied_volatility(strike, **self._terms_of(expiry))

    def true_density(self, expiry: object, strike: ArrayLike) -> np.ndarray:
        """Risk-neutral density of the model, per currency unit."""
        return self.terms.model.density(strike, **self._terms_of(expiry))

    def true_distribution(self, expiry: object, strike: ArrayLike) -> np.ndarray:
        """Risk-neutral probability of the model to finish below each strike."""
        return self.terms.model.distribution(strike, **self._terms_of(expiry))

    def _terms_of(self, expiry: object) -> dict[str, float]:
        return {
            name: self._value(name, expiry) for name in ("forward", "time_to_expiry")
        }

    def _value(self, name: str, expiry: object) -> float:
        at = np.flatnonzero(self.slices.index == as_date(expiry))
        if not len(at):
            known = ", ".join(f"{one:%Y-%m-%d}" for one in self.slices.index)
            raise KeyError(f"no expiry {as_date(expiry):%Y-%m-%d}; there are {known}")
        return float(self.slices[name].to_numpy()[at[0]])


def simulate_chain(terms: SimulationTerms) -> SimulatedChain:
    """A chain of quotes around a model's prices, as an index option market shows them.

    Strikes are 5 apart near the money for short expiries and more for long ones, twice
    and more as wide in the wings, out to where an option is worth a cent. Spreads grow
    with the price, and more with intrinsic value. The mid wanders about the true
    price inside the spread; bids are rounded down and asks up to ticks of 0.05 below 3
    and 0.10 above, so every interval from bid to ask holds the true price, and bids in
    the far wings are zero.

    Examples:
        >>> model = BatesModel(0.04, 0.04, 2.0, 0.5, -0.7, 0.3, -0.1, 0.1)
        >>> chain = simulate_chain(SimulationTerms(
        ...     model=model, spot=1000.0, rate=0.03, dividend_yield=0.01,
        ...     quote_time="2025-03-14", expiries=("2025-06-20",), seed=1))
        >>> quotes = chain.table
        >>> truth = chain.true_price("2025-06-20", quotes["strike"],
        ...                          is_call=quotes["option_type"] == "call")
        >>> bool(((quotes["bid"] <= truth) & (truth <= quotes["ask"])).all())
        True
    """
    rng = np.random.default_rng(terms.seed)
    quote_time, _ = utc_time(terms.quote_time)
    slices = slice_terms(terms)
    tables = [
        _slice_quotes(
            terms,
            date,
            rng,
            time_to_expiry=years,
            forward=forward,
            discount_factor=discount,
        )
        for date, years, forward, discount in slices.itertuples()
    ]
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "quote_time", quote_time)
    return SimulatedChain(terms=terms, table=table, slices=slices)


def slice_terms(terms: SimulationTerms) -> pd.DataFrame:
    """`time_to_expiry`, `forward` and `discount_factor` of each expiry.

    Raises:
        ValueError: If an expiry is not after the quote time.
    """
    quote_time, _ = utc_time(terms.quote_time)
    dates = [as_date(expiry) for expiry in terms.expiries]
    years = np.array([years_between(quote_time, expiry_time(date)) for date in dates])
    if not (years > 0.0).all():
        raise ValueError(f"expiries {terms.expiries} must be after {quote_time}")
    carry = terms.rate - terms.dividend_yield
    return pd.DataFrame(
        {
            "time_to_expiry": years,
            "forward": terms.spot * np.exp(carry * years),
            "discount_factor": np.exp(-terms.rate * years),
        },
        index=pd.DatetimeIndex(dates, name="expiry"),
    )


def _slice_quotes(
    terms: SimulationTerms,
    expiry: pd.Timestamp,
    rng: np.random.Generator,
    *,
    time_to_expiry: float,
    forward: float,
    discount_factor: float,
) -> pd.DataFrame:
    """Calls, then puts, of one expiry."""
    at = {"forward": forward, "time_to_expiry": time_to_expiry}
    variance = max(terms.model.initial_variance, terms.model.long_run_variance)
    grid = _strike_grid(replace(terms.model, initial_variance=variance), **at)
    strike = listed_strikes(
        grid,
        below=terms.model.distribution(grid, **at),
        price=terms.model.price(grid, is_call=grid >= forward, **at),
        forward=forward,
    )
    strike = np.concatenate([strike, strike])
    is_call = np.arange(len(strike)) < len(strike) // 2
    price = terms.model.price(
        strike, is_call=is_call, discount_factor=discount_factor, **at
    )
    contracts = {"expiry": expiry, "settlement": "PM", "strike": strike}
    return quote_options(
        terms,
        rng,
        contracts=contracts,
        is_call=is_call,
        price=price,
        forward=np.full(len(strike), forward),
        discount_factor=discount_factor,
        time_to_expiry=time_to_expiry,
    )


def quote_options(
    terms: SimulationTerms,
    rng: np.random.Generator,
    *,
    contracts: Mapping[str, object],
    is_call: np.ndarray,
    price: np.ndarray,
    forward: np.ndarray,
    discount_factor: float | np.ndarray,
    time_to_expiry: float | np.ndarray,
) -> pd.DataFrame:
    """Quotes around prices, all of shape `(m,)` or one number, as rows of a chain.

    Args:
        terms: Underlying and spot.
        rng: Of the noise.
        contracts: Columns `expiry`, `settlement` and `strike`.
        is_call: True for calls, False for puts.
        price: What the options are worth, in currency units.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        time_to_expiry: Years.
    """
    strike = np.asarray(contracts["strike"], dtype=np.float64)
    intrinsic = discount_factor * np.maximum(
        np.where(is_call, forward - strike, strike - forward), 0.0
    )
    half_spread = (
        0.03 + 0.012 * np.maximum(price - intrinsic, 0.0) ** 0.85 + 0.004 * intrinsic
    )
    half_spread *= 0.8 + 0.4 * rng.random(len(strike))
    mid = price + half_spread * (rng.random(len(strike)) - 0.5)
    bid = _round_down(np.maximum(np.minimum(mid - half_spread, price), 0.0))
    ask = -_round_down(-np.maximum(mid + half_spread, price))
    ask = np.maximum(ask, bid + _FINE_TICK)
    deviations = np.abs(np.log(strike / forward)) / np.sqrt(0.04 * time_to_expiry)
    activity = np.exp(-0.5 * deviations)
    return pd.DataFrame(
        {
            "underlying": terms.underlying,
            "expiry": contracts["expiry"],
            "settlement": contracts["settlement"],
            "exercise_style": "european",
            "strike": strike,
            "option_type": np.where(is_call, "call", "put"),
            "bid": bid.round(2),
            "ask": ask.round(2),
            "bid_size": np.where(bid > 0.0, 1 + rng.integers(0, 60, len(strike)), 0),
            "ask_size": 1 + rng.integers(0, 60, len(strike)),
            "volume": (900 * activity * rng.random(len(strike)) ** 3).astype(np.int64),
            "open_interest": (9000 * activity * rng.random(len(strike))).astype(
                np.int64
            ),
            "underlying_price": terms.spot,
            "multiplier": 100,
            "currency": "USD",
        }
    )


def _round_down(price: np.ndarray) -> np.ndarray:
    """To the tick below, toward minus infinity; ticks are wider for large prices."""
    tick = np.where(np.abs(price) < _TICK_CHANGE, _FINE_TICK, _COARSE_TICK)
    return tick * np.floor(price / tick + 1e-9)


def _strike_grid(
    model: BatesModel, *, forward: float, time_to_expiry: float
) -> np.ndarray:
    """Strikes among which those that would be listed are sought."""
    variance = model.initial_variance
    variance += model.jump_intensity * (model.jump_mean**2 + model.jump_volatility**2)
    deviation = np.sqrt(variance * time_to_expiry)
    return forward * np.exp(np.linspace(*_LISTED_DEVIATIONS, 300) * deviation)


def listed_strikes(
    grid: np.ndarray,
    *,
    below: np.ndarray,
    price: np.ndarray,
    forward: float,
    strikes_per_deviation: float = _STRIKES_PER_DEVIATION,
) -> np.ndarray:
    """Strikes that would be listed: fine near the money, sparse in the wings.

    Args:
        grid: Strikes, in currency units, increasing.
        below: Probability of finishing below each.
        price: What the option out of the money is worth at each, in currency units.
        forward: Currency units.
        strikes_per_deviation: How many strikes there are to one deviation, at least,
            near the money.
    """
    rarer = np.minimum(below, 1.0 - below)
    quoted = grid[(rarer > _LEAST_DELTA) & (price > _LEAST_PRICE)]
    deviation = float(np.interp(0.84, below, grid) - np.interp(0.5, below, grid))
    finest = int(np.searchsorted(_STEPS, deviation / strikes_per_deviation))
    strike = np.arange(_STEPS[0], quoted[-1], _STEPS[0])
    strike = strike[strike >= quoted[0]]
    away = np.abs(strike - forward) / deviation
    rank = finest + (away > _FINE_DEVIATIONS) + (away > _MIDDLE_DEVIATIONS)
    step = np.take(_STEPS, np.minimum(rank, len(_STEPS) - 1))
    return strike[np.remainder(strike, step) == 0.0]
