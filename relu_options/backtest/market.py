"""One date of a history: quotes by contract, terms by expiry, marks and Greeks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
import pandas as pd

from relu_options import black_scholes
from relu_options.backtest.contracts import Contract, Event, Mark, Slice, slice_name
from relu_options.curves import PriceCurve
from relu_options.errors import BacktestError, FitError, QuoteError
from relu_options.fitting.surface import fit_surface
from relu_options.market_data import OptionChain, prepare_quotes, utc_time
from relu_options.market_data.clocks import as_date, years_between
from relu_options.networks import PriceNetwork
from relu_options.surfaces import PriceSurface, Surface

Marks = Literal["surface", "mid"]


class History(Protocol):
    """Chains by date, and what else is known of the underlying.

    Attributes:
        dates: Trade dates, increasing.
        splits: New shares per old one, by the date from which prices are per new share.
        settlement_prices: Columns `expiry`, `settlement` and `price`; may be empty.
        underlying_prices: By date.
        missing_dates: Dates that were expected and are absent.

    Examples:
        >>> def first_chain(history: History) -> OptionChain:
        ...     return history[history.dates[0]]
    """

    @property
    def dates(self) -> pd.DatetimeIndex:
        """Trade dates, increasing."""
        ...

    @property
    def splits(self) -> pd.Series:
        """Ratios by date."""
        ...

    @property
    def settlement_prices(self) -> pd.DataFrame:
        """Prices by expiry and settlement."""
        ...

    @property
    def underlying_prices(self) -> pd.Series:
        """Prices by date."""
        ...

    @property
    def missing_dates(self) -> pd.DatetimeIndex:
        """Expected but absent."""
        ...

    def __getitem__(self, date: pd.Timestamp, /) -> OptionChain:
        """The chain of a date."""
        ...


class Terms(NamedTuple):
    """What an expiry is priced with.

    Attributes:
        years: Time to expiry.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
    """

    years: float
    forward: float
    discount_factor: float

    def carry(self, spot: float) -> tuple[float, float]:
        """Rate and dividend yield, continuous, per year."""
        rate = -np.log(self.discount_factor) / self.years
        return rate, rate - np.log(self.forward / spot) / self.years


@dataclass(frozen=True, eq=False)
class Columns:
    """The rows of a chain that have a bid and an ask, as arrays of one shape.

    Attributes:
        table: Canonical columns of all rows of the chain.
        places: Of these rows in the table.
        strike, bid, ask: Currency units; a mid is both bid and ask where these are not
            known.
        is_call: False for puts.
        expiry: Dates.
        settlement: "AM" or "PM".
    """

    table: pd.DataFrame
    places: np.ndarray
    strike: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    is_call: np.ndarray
    expiry: np.ndarray
    settlement: np.ndarray

    @staticmethod
    def of(chain: OptionChain) -> Columns:
        """The columns of a chain."""
        table = chain.rows
        bid, ask = (table[side].to_numpy(float) for side in ("bid", "ask"))
        if "mid" in table:
            unknown = np.isnan(bid) | np.isnan(ask)
            mid = table["mid"].to_numpy(float)
            bid, ask = np.where(unknown, mid, bid), np.where(unknown, mid, ask)
        used = (chain.codes == 0) & np.isfinite(bid) & np.isfinite(ask)
        places = np.flatnonzero(used)
        is_call = (table["option_type"] == "call").to_numpy(bool, na_value=False)
        morning = (table["settlement"] == "AM").to_numpy(bool, na_value=False)
        return Columns(
            table,
            places,
            table["strike"].to_numpy(float)[places],
            bid[places],
            ask[places],
            is_call[places],
            table["expiry"].to_numpy()[places],
            np.where(morning, "AM", "PM")[places],
        )

    def rows_of(self, key: Slice) -> np.ndarray:
        """Places in the arrays of one slice."""
        same = (self.expiry == key[0].to_datetime64()) & (self.settlement == key[1])
        return np.flatnonzero(same)

    def expires(self, rows: np.ndarray) -> pd.Timestamp:
        """When the payoff of a slice's rows is fixed, in UTC."""
        return self.table["expiry_time"].iloc[int(self.places[rows[0]])]

    def multiplier(self, rows: np.ndarray) -> float:
        """Units of the underlying in a contract; one where it is not known."""
        each = self.table["multiplier"].to_numpy(float)[self.places[rows]]
        middle = float(np.median(each))
        return middle if middle > 0.0 else 1.0

    def american(self, rows: np.ndarray) -> bool:
        """Whether a slice's options can be exercised early."""
        styles = self.table["exercise_style"].iloc[self.places[rows]]
        return bool((styles == "american").any())


@dataclass(frozen=True, eq=False)
class SliceQuotes:
    """Bids and asks of one expiry, found by strike and type.

    Attributes:
        keys: Strikes of calls and, with the opposite sign, of puts; increasing.
        bid, ask: Of the shape of `keys`, in currency units.
        expires: When the payoff is fixed, in UTC.
        multiplier: Units of the underlying in a contract.
        american: Whether the options can be exercised early.
    """

    keys: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    expires: pd.Timestamp
    multiplier: float
    american: bool

    @staticmethod
    def of(columns: Columns, rows: np.ndarray) -> SliceQuotes:
        """The quotes of some rows; of two of one contract, the tighter."""
        bid, ask = columns.bid[rows], columns.ask[rows]
        keys = np.where(columns.is_call[rows], 1.0, -1.0) * columns.strike[rows]
        order = np.lexsort((ask, -bid, ask - bid, keys))
        order = order[np.append(True, np.diff(keys[order]) > 0.0)]
        return SliceQuotes(
            keys[order],
            bid[order],
            ask[order],
            columns.expires(rows),
            columns.multiplier(rows),
            columns.american(rows),
        )

    def find(self, strike: np.ndarray, is_call: np.ndarray) -> np.ndarray:
        """Places of options in the arrays; -1 where they are not quoted."""
        wanted = np.where(is_call, strike, -strike)
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[place] == wanted, place, -1)

    def strikes(self, *, is_call: bool) -> np.ndarray:
        """Quoted strikes of the calls or of the puts, increasing."""
        if is_call:
            return self.keys[self.keys > 0.0]
        return -self.keys[self.keys < 0.0][::-1]


class Market:
    """What can be known on one date of a history.

    Args:
        chain: Of the date.
        date: The trade date.
        spot: Price of the underlying; NaN if it is not known beside the chain.
        surfaces: Fitted surfaces by date; None if there are none.
        carry: Rate and dividend yield of each slice as last known; updated here.

    Raises:
        QuoteError: If nothing tells the price of the underlying.
        BacktestError: If its expiries have no dates.
    """

    def __init__(
        self,
        chain: OptionChain,
        date: pd.Timestamp,
        spot: float,
        surfaces: Mapping[pd.Timestamp, Surface] | None,
        carry: dict[Slice, tuple[float, float]],
    ):
        self.date = date
        self.chain = chain
        self.time = self.chain.quote_time or utc_time(date)[0]
        self.events: list[Event] = []
        self._surfaces = surfaces
        self._carry = carry
        self._terms: dict[Slice, Terms] = {}
        self._curves: dict[Slice, PriceCurve] = {}
        self._quotes: dict[Slice, SliceQuotes] = {}
        listed = self.chain.slices
        dated = [
            (day, settlement or "PM")
            for day, settlement in listed
            if isinstance(day, pd.Timestamp)
        ]
        if len(dated) < len(listed):
            raise BacktestError(
                f"{date:%Y-%m-%d}: the chain has times to expiry but no expiry dates, "
                "and a backtest needs dates to settle on"
            )
        self.slices: tuple[Slice, ...] = tuple(dated)
        self.given_surface: Surface | None = None
        if surfaces is not None:
            try:
                self.given_surface = surfaces[date]
            except KeyError as error:
                reason = f"`surfaces` has none of this date: {error.args[0]}"
                self._note("no_surface", "surface", reason)
        self.spot = self._spot(spot)

    def _note(self, kind: str, what: str, reason: str) -> None:
        self.events.append(Event(self.date, kind, what, reason))

    def _spot(self, known: float) -> float:
        """Price of the underlying: of the history, of the chain, or else a forward."""
        in_chain = float(self.chain.rows["underlying_price"].median())
        for price in (known, in_chain):
            if price > 0.0:
                return price
        for key in self.slices:
            try:
                return prepare_quotes(self.chain[key]).forward
            except QuoteError:
                continue
        raise QuoteError(
            f"{self.date:%Y-%m-%d}: no price of the underlying, and no expiry implies "
            "a forward; give the history `underlying_prices`"
        )

    @cached_property
    def _columns(self) -> Columns:
        """The rows of the chain that can be traded, as arrays."""
        return Columns.of(self.chain)

    @cached_property
    def surface(self) -> Surface | None:
        """The surface of the date: the one given, or fitted now; None if it fails."""
        if self._surfaces is not None:
            return self.given_surface
        try:
            return fit_surface(self.chain)
        except (QuoteError, FitError) as error:
            self._note("no_surface", "surface", str(error))
            return None

    def quotes(self, key: Slice) -> SliceQuotes | None:
        """Quotes of a slice, or None if it is not in the chain."""
        return self.quotes_of(key) if key in self.slices else None

    def quotes_of(self, key: Slice) -> SliceQuotes:
        """Quotes of a slice of the chain."""
        if key not in self._quotes:
            columns = self._columns
            self._quotes[key] = SliceQuotes.of(columns, columns.rows_of(key))
        return self._quotes[key]

    def american(self, key: Slice) -> bool:
        """Whether the options of a slice can be exercised early, as far as is known."""
        quotes = self.quotes(key)
        return quotes is not None and quotes.american

    def slices_named(self, label: str) -> list[Slice]:
        """Slices of the chain with a label, "2019-06-21" or "2019-06-21 AM"."""
        day, _, settlement = str(label).partition(" ")
        date = as_date(day)
        return [
            key for key in self.slices if key[0] == date and settlement in ("", key[1])
        ]

    def terms(self, key: Slice, expires: pd.Timestamp) -> Terms:
        """Time, forward and discount factor of a slice.

        They are those of a given surface, or else of put-call parity, or else follow
        from the carry that was last known.
        """
        if key not in self._terms:
            years = years_between(self.time, expires)
            self._terms[key] = found = self._find_terms(key, years)
            self._carry[key] = found.carry(self.spot)
        return self._terms[key]

    def _find_terms(self, key: Slice, years: float) -> Terms:
        surface = self.given_surface
        if surface is not None:
            forward, discount = surface.forward(years), surface.discount_factor(years)
            return Terms(years, float(forward), float(discount))
        if key in self.slices:
            try:
                quotes = prepare_quotes(self.chain[key])
            except QuoteError as error:
                reason = str(error)
            else:
                return Terms(years, quotes.forward, quotes.discount_factor)
        else:
            reason = "the expiry is not in the chain"
        self._note("no_forward", slice_name(key), reason)
        nearest = sorted(self._carry, key=lambda one: (abs(one[0] - key[0]), one))
        rate, dividend_yield = self._carry[nearest[0]] if nearest else (0.0, 0.0)
        growth = np.exp((rate - dividend_yield) * years)
        return Terms(years, float(self.spot * growth), float(np.exp(-rate * years)))

    @cached_property
    def carry(self) -> tuple[float, float]:
        """Rate and dividend yield of the expiry nearest to 90 days."""
        far = pd.Timedelta(days=90)
        key = min(self.slices, key=lambda one: (abs(one[0] - self.date - far), one))
        return self.terms(key, self.quotes_of(key).expires).carry(self.spot)

    def why_unquoted(self, one: Contract) -> str:
        """Why a contract has no quote on this date."""
        quotes = self.quotes(one.slice)
        if quotes is None:
            return f"expiry {slice_name(one.slice)} is not in the chain"
        rows = self.chain.rows
        same = rows["strike"].to_numpy() == one.strike
        same &= rows["expiry"].to_numpy() == one.expiry.to_datetime64()
        if (rows["option_type"].iloc[np.flatnonzero(same)] == one.option_type).any():
            return "its row cannot be used; see `chain.report()`"
        listed = quotes.strikes(is_call=one.is_call)
        nearest = listed[np.argsort(np.abs(listed - one.strike), kind="stable")[:2]]
        shown = " and ".join(f"{strike:.10g}" for strike in np.sort(nearest))
        return f"strike not listed; the nearest are {shown or 'none'}"

    def curve(self, key: Slice, expires: pd.Timestamp) -> PriceCurve | None:
        """The curve of a slice on the surface of the date, fitting it if need be."""
        surface = self.surface
        if surface is None:
            return None
        if key not in self._curves:
            years = years_between(self.time, expires)
            self._curves[key] = curve_of(surface, years)
        return self._curves[key]

    def value(
        self,
        contracts: Sequence[Contract],
        last: Mapping[Contract, Mark],
        marks: Marks,
    ) -> tuple[list[Mark], np.ndarray]:
        """Marks and Greeks of options, and whether each is quoted.

        The price is that of the surface, or the mid; of a forward, that of its terms.
        Without any it is the Black-Scholes price at the volatility of the last mark,
        and without that the discounted intrinsic value. Greeks are those of the formula
        at the volatility of the price.
        """
        if not contracts:
            return [], np.zeros(0, bool)
        strike = np.array([one.strike for one in contracts])
        is_call = np.array([one.is_call for one in contracts])
        price, quoted = self._prices(contracts, strike, is_call, marks)
        years, forward, discount = np.empty((3, len(contracts)))
        for key, places in _by_slice(contracts).items():
            terms = self.terms(key, contracts[places[0]].expires)
            years[places], forward[places], discount[places] = terms
        no_mark = Mark(*[np.nan] * 6)
        forwards = np.array([one.is_forward for one in contracts])
        price = np.where(forwards, discount * forward, price)
        known = np.array([last.get(one, no_mark).volatility for one in contracts])
        unknown = np.isnan(price)
        option: dict[str, Any] = {
            "strike": strike,
            "time_to_expiry": years,
            "is_call": is_call,
        }
        market: dict[str, Any] = {"forward": forward, "discount_factor": discount}
        if unknown.any():
            modelled = black_scholes.price(
                volatility=np.nan_to_num(known), **option, **market
            )
            price = np.where(unknown, modelled, price)
        volatility = black_scholes.implied_volatility(price=price, **option, **market)
        volatility = np.where(unknown, known, volatility)
        rate = -np.log(discount) / years
        greeks = black_scholes.greeks(
            volatility=np.nan_to_num(volatility),
            spot=self.spot,
            rate=rate,
            dividend_yield=rate - np.log(forward / self.spot) / years,
            **option,
        )
        columns = (
            price,
            volatility,
            greeks.delta,
            greeks.gamma,
            greeks.vega,
            greeks.theta,
        )
        rows = zip(*(np.asarray(one).tolist() for one in columns), strict=True)
        return [Mark(*row) for row in rows], quoted

    def _prices(
        self,
        contracts: Sequence[Contract],
        strike: np.ndarray,
        is_call: np.ndarray,
        marks: Marks,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mids or prices of the surface, NaN without either; whether each is quoted."""
        listed = np.array([one.listed for one in contracts])
        forwards = np.array([one.is_forward for one in contracts])
        price = np.full(len(contracts), np.nan)
        quoted = np.zeros(len(contracts), bool)
        for key, places in _by_slice(contracts).items():
            quotes = self.quotes(key)
            if quotes is not None:
                at = quotes.find(strike[places], is_call[places])
                quoted[places] = at >= 0
                mid = 0.5 * (quotes.bid[at] + quotes.ask[at])
                price[places] = np.where(at >= 0, mid, np.nan)
            modelled = places if marks == "surface" else places[~listed[places]]
            modelled = modelled[~forwards[modelled]]
            curve = None
            if len(modelled):
                curve = self.curve(key, contracts[places[0]].expires)
            if curve is not None:
                calls = curve.price(strike[modelled])
                puts = curve.price(strike[modelled], is_call=False)
                price[modelled] = np.where(is_call[modelled], calls, puts)
        return price, quoted

    def curve_deltas(self, contracts: Sequence[Contract]) -> np.ndarray | None:
        """Derivatives in the spot of the prices of the surface; None without one."""
        deltas = np.zeros(len(contracts))
        for key, places in _by_slice(contracts).items():
            curve = self.curve(key, contracts[places[0]].expires)
            if curve is None:
                return None
            strike = np.array([contracts[place].strike for place in places])
            is_call = np.array([contracts[place].is_call for place in places])
            discount = curve.discount_factor
            call = np.where(strike > 0.0, curve.delta(strike), discount)
            by_forward = call - np.where(is_call, 0.0, discount)
            deltas[places] = by_forward * curve.forward / self.spot
        return deltas


def curve_of(surface: Surface, years: float) -> PriceCurve:
    """The curve of a time; of an expiry, its own weights as they are.

    A surface compiles its interpolation anew for each number of expiries, which changes
    from date to date; the weights of an expiry need none.
    """
    at = np.flatnonzero(surface.times == years)
    if not at.size or not isinstance(surface, PriceSurface):
        return surface.curve(years)
    forward = float(surface.forwards[at[0]])
    discount = float(surface.discount_factors[at[0]])
    network = PriceNetwork(
        jnp.asarray(surface.kinks * forward),
        jnp.asarray(surface.weights[at[0]] * discount),
        jnp.asarray(surface.bandwidths),
    )
    return PriceCurve(network, forward, discount, years)


def _by_slice(contracts: Sequence[Contract]) -> dict[Slice, np.ndarray]:
    """Places of the contracts of each slice."""
    places: dict[Slice, list[int]] = {}
    for place, one in enumerate(contracts):
        places.setdefault(one.slice, []).append(place)
    return {key: np.array(found) for key, found in places.items()}
