"""One date of a history, whoever trades on it: quotes by contract, terms, surface.

What a `Day` says depends on its chain, and on the surfaces that were given, alone: not
on who asked before. So strategies that go side by side share it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
import pandas as pd

from relu_options.backtest.contracts import Contract, Slice, slice_name
from relu_options.curves import PriceCurve
from relu_options.errors import BacktestError, FitError, QuoteError
from relu_options.fitting.surface import fit_surface
from relu_options.market_data import OptionChain, prepare_quotes, utc_time
from relu_options.market_data.clocks import as_date, years_between
from relu_options.networks import PriceNetwork
from relu_options.surfaces import PriceSurface, Surface


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
    """The rows of a chain with a bid, an ask and an expiry time, as equal arrays.

    Attributes:
        table: Canonical columns of all rows of the chain.
        places: Of these rows in the table.
        strike, bid, ask: Currency units; a mid is both bid and ask where these are not
            known.
        is_call: False for puts.
        expiry: Dates.
        settlement: As in the chain; "PM" where it is not known.
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
        used &= table["expiry_time"].notna().to_numpy()
        places = np.flatnonzero(used)
        is_call = (table["option_type"] == "call").to_numpy(bool, na_value=False)
        return Columns(
            table,
            places,
            table["strike"].to_numpy(float)[places],
            bid[places],
            ask[places],
            is_call[places],
            table["expiry"].to_numpy()[places],
            table["settlement"].fillna("PM").to_numpy(object)[places],
        )

    def rows_of(self, key: Slice) -> np.ndarray:
        """Places in the arrays of one slice."""
        same = (self.expiry == key[0].to_datetime64()) & (self.settlement == key[1])
        return np.flatnonzero(same)

    def expires(self, rows: np.ndarray) -> pd.Timestamp:
        """When the payoff of a slice's rows is fixed, in UTC."""
        return _usual(self.table["expiry_time"].iloc[self.places[rows]])

    def multiplier(self, rows: np.ndarray) -> float:
        """Units of the underlying in a contract; NaN where it is not known."""
        known = self.table["multiplier"].iloc[self.places[rows]]
        known = known[known > 0.0]
        return float(_usual(known)) if len(known) else np.nan

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
        multiplier: Units of the underlying in a contract; NaN where it is not known.
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


class Day:
    """What can be known on one date of a history.

    Args:
        chain: Of the date.
        date: The trade date.
        spot: Price of the underlying; NaN if it is not known beside the chain.
        surfaces: Fitted surfaces by date; None if there are none.
        last_price: Of the underlying, for a chain all of which has expired and that
            does not say the price.

    Attributes:
        slices: That can be traded; none if all has expired.
        carried_price: Whether `spot` is that of an earlier date.

    Raises:
        QuoteError: If nothing tells the price of the underlying, or nothing is quoted
            of what has not expired.
        BacktestError: If its expiries have no dates.
    """

    def __init__(
        self,
        chain: OptionChain,
        date: pd.Timestamp,
        spot: float,
        surfaces: Mapping[pd.Timestamp, Surface] | None,
        last_price: float = np.nan,
    ):
        self.date = date
        self.chain = chain
        self.time = chain.quote_time or utc_time(date)[0]
        self._fits = surfaces is None
        self._given: Surface | None = None
        self._no_given = ""
        self._quotes: dict[Slice, SliceQuotes] = {}
        self._terms: dict[tuple[Slice, pd.Timestamp], Terms | str] = {}
        self._curves: dict[tuple[Slice, pd.Timestamp], PriceCurve] = {}
        self._columns = Columns.of(chain)
        self._chain_keys: dict[Slice, tuple] = {}
        for expiry, settlement in chain.slices:
            if not isinstance(expiry, pd.Timestamp):
                raise BacktestError(
                    f"{date:%Y-%m-%d}: the chain has times to expiry but no expiry "
                    "dates, and a backtest needs dates to settle on"
                )
            self._chain_keys[expiry, settlement or "PM"] = expiry, settlement
        self.slices: tuple[Slice, ...] = tuple(
            key for key in self._chain_keys if len(self._columns.rows_of(key))
        )
        if self._chain_keys and not self.slices:
            raise QuoteError(
                f"{date:%Y-%m-%d}: no row has an expiry time and prices to trade at: "
                "a bid and an ask, or a mid"
            )
        if surfaces is not None:
            try:
                self._given = surfaces[date]
            except KeyError as error:
                self._no_given = f"`surfaces` has none of this date: {error.args[0]}"
        self.carried_price = False
        self.spot = self._spot(spot, last_price)

    def _spot(self, known: float, last: float) -> float:
        """Price of the underlying: of the history, of the chain, or else a forward.

        Where all has expired, no forward is implied, and the last price is carried.
        """
        in_chain = float(self.chain.rows["underlying_price"].median())
        for price in (known, in_chain):
            if price > 0.0:
                return price
        for key in self.slices:
            try:
                return prepare_quotes(self.slice_chain(key)).forward
            except QuoteError:
                continue
        if not self.slices and last > 0.0:
            self.carried_price = True
            return last
        raise QuoteError(
            f"{self.date:%Y-%m-%d}: no price of the underlying, and no expiry implies "
            "a forward; give the history `underlying_prices`"
        )

    def years(self, expires: pd.Timestamp) -> float:
        """Time to an expiry, in years."""
        return years_between(self.time, expires)

    def slice_chain(self, key: Slice) -> OptionChain:
        """The chain of one slice."""
        return self.chain[self._chain_keys[key]]

    @cached_property
    def _surface(self) -> tuple[Surface | None, str]:
        """The surface given, or fitted now; None and the reason without one."""
        if not self._fits:
            return self._given, self._no_given
        try:
            return fit_surface(self.chain), ""
        except (QuoteError, FitError) as error:
            return None, str(error)

    @property
    def surface(self) -> Surface | None:
        """The surface of the date: the one given, or fitted now; None if it fails."""
        return self._surface[0]

    @property
    def why_no_surface(self) -> str:
        """Why there is no surface; empty if there is one."""
        return self._surface[1]

    @property
    def lacks_surface(self) -> bool:
        """Whether surfaces were given, and none of this date, which could have one."""
        return bool(self.slices) and not self._fits and self._given is None

    def quotes(self, key: Slice) -> SliceQuotes:
        """Quotes of one of `slices`."""
        if key not in self._quotes:
            columns = self._columns
            self._quotes[key] = SliceQuotes.of(columns, columns.rows_of(key))
        return self._quotes[key]

    def terms(self, key: Slice, expires: pd.Timestamp) -> Terms | str:
        """Time, forward and discount factor of a slice, or why they are not known.

        They are those of a given surface, or else of put-call parity.
        """
        if (key, expires) not in self._terms:
            years = self.years(expires)
            self._terms[key, expires] = self._find_terms(key, years)
        return self._terms[key, expires]

    def _find_terms(self, key: Slice, years: float) -> Terms | str:
        surface = self._given
        if surface is not None:
            forward, discount = surface.forward(years), surface.discount_factor(years)
            return Terms(years, float(forward), float(discount))
        if key not in self.slices:
            return "the expiry is not in the chain"
        try:
            quotes = prepare_quotes(self.slice_chain(key))
            quotes.require_lognormal("marks and hedges are Black's")
        except QuoteError as error:
            return str(error)
        return Terms(years, quotes.forward, quotes.discount_factor)

    def nearest_terms(self, date: pd.Timestamp) -> Terms | None:
        """Terms of the expiry of the chain nearest to a date that has any."""
        for key in sorted(self.slices, key=lambda one: (abs(one[0] - date), one)):
            terms = self.terms(key, self.quotes(key).expires)
            if isinstance(terms, Terms):
                return terms
        return None

    def lists(self, one: Contract) -> bool:
        """Whether the chain of this date has a row at the strike, used or not."""
        return bool((self.slice_chain(one.slice).rows["strike"] == one.strike).any())

    def why_unquoted(self, one: Contract) -> str:
        """Why a contract has no quote on this date."""
        if one.slice not in self.slices:
            return f"expiry {slice_name(one.slice)} is not in the chain"
        rows = self.slice_chain(one.slice).rows
        same = (rows["strike"] == one.strike).to_numpy()
        if (rows["option_type"][same] == one.option_type).any():
            return "its row cannot be used; see `chain.report()`"
        listed = self.quotes(one.slice).strikes(is_call=one.is_call)
        nearest = listed[np.argsort(np.abs(listed - one.strike), kind="stable")[:2]]
        shown = " and ".join(f"{strike:.10g}" for strike in np.sort(nearest))
        return f"strike not listed; the nearest are {shown or 'none'}"

    def curve(self, key: Slice, expires: pd.Timestamp) -> PriceCurve | None:
        """The curve of a slice on the surface of the date, fitting it if need be."""
        if self.surface is None:
            return None
        if (key, expires) not in self._curves:
            self._curves[key, expires] = curve_of(self.surface, self.years(expires))
        return self._curves[key, expires]


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


def slices_named(keys: Iterable[Slice], label: str) -> list[Slice]:
    """The slices that have a label, "2019-06-21" or "2019-06-21 AM".

    Raises:
        QuoteError: If the label has no date.

    Examples:
        >>> keys = [(pd.Timestamp("2019-06-21"), clock) for clock in ("AM", "PM")]
        >>> [len(slices_named(keys, text)) for text in ("2019-06-21", "2019-06-21 AM")]
        [2, 1]
    """
    day, _, settlement = str(label).partition(" ")
    date = as_date(day)
    return [key for key in keys if key[0] == date and settlement in ("", key[1])]


def _usual(values: pd.Series) -> Any:
    """The value of most rows; of two that are of as many, the lesser."""
    first = values.iloc[0]
    if (values == first).all():
        return first
    return values.mode().iloc[0]
