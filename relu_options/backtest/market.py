"""One date as one account sees it: terms, marks and Greeks, and what was missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from relu_options.backtest.contracts import Contract, Event, Mark, Slice, slice_name
from relu_options.backtest.day import Day, Terms
from relu_options.curves import PriceCurve
from relu_options.errors import BacktestError
from relu_options.formulas import black_scholes
from relu_options.surfaces import Surface

Marks = Literal["surface", "mid"]


class Market:
    """A `Day`, completed by what an account remembers where the chain says nothing.

    Whatever another account asks of the day, this one sees the same.

    Args:
        day: The date.
        carries: Rate and dividend yield of slices that the account has held, as last
            known.
        multipliers: Units of the underlying in a contract, of the slices that it holds.
        multiplier: Of all contracts, if the user says it.
    """

    def __init__(
        self,
        day: Day,
        carries: Mapping[Slice, tuple[float, float]],
        multipliers: Mapping[Slice, float],
        multiplier: float | None = None,
    ):
        self.day = day
        self.date = day.date
        self.time = day.time
        self.spot = day.spot
        self.slices = day.slices
        self.events: list[Event] = []
        self._carries = carries
        self._multipliers = multipliers
        self._given_multiplier = multiplier
        self._guessed: dict[tuple[Slice, pd.Timestamp], Terms] = {}
        if day.lacks_surface:
            self._note("no_surface", "surface", day.why_no_surface)
        if not day.slices:
            reason = "all that the chain quotes has expired"
            self._note("all_expired", "chain", reason)
        if day.carried_price:
            reason = f"the chain says no price: the last one, {day.spot:.10g}, was used"
            self._note("no_price", "underlying", reason)

    def _note(self, kind: str, what: str, reason: str) -> None:
        event = Event(self.date, kind, what, reason)
        if event not in self.events:
            self.events.append(event)

    @property
    def surface(self) -> Surface | None:
        """The surface of the date: the one given, or fitted now; None if it fails."""
        if self.day.surface is None:
            self._note("no_surface", "surface", self.day.why_no_surface)
        return self.day.surface

    def curve(self, key: Slice, expires: pd.Timestamp) -> PriceCurve | None:
        """The curve of a slice on the surface of the date, fitting it if need be."""
        return None if self.surface is None else self.day.curve(key, expires)

    def multiplier(self, key: Slice) -> float:
        """Units of the underlying in a contract of a slice of the chain.

        Raises:
            BacktestError: If it is not known.
        """
        known = self._known_multiplier(key)
        if known > 0.0:
            return known
        name = self.day.chain.underlying or "options"
        raise BacktestError(
            f"the multiplier of {name} {slice_name(key)} is not known; pass "
            "`multiplier=`, the units of the underlying in a contract, 100 for US "
            "options"
        )

    def _known_multiplier(self, key: Slice) -> float:
        """As the user says it, the chain, or what is held; NaN where nothing tells."""
        if self._given_multiplier is not None:
            return self._given_multiplier
        known = self.day.quotes(key).multiplier
        return known if known > 0.0 else self._multipliers.get(key, np.nan)

    def contract(self, key: Slice, strike: float, *, is_call: bool) -> Contract:
        """A listed contract of a slice of the chain, on the terms of the date.

        Its multiplier is NaN where it is not known: such a one is valued, not traded.
        """
        expires = self.day.quotes(key).expires
        return Contract(*key, strike, is_call, self._known_multiplier(key), expires)

    def terms(self, key: Slice, expires: pd.Timestamp) -> Terms:
        """Time, forward and discount factor of a slice.

        They are those of a given surface, or else of put-call parity. Without either
        they follow from the carry that the account last knew of the slice, or else from
        that of the nearest expiry that has one.
        """
        found = self.day.terms(key, expires)
        if isinstance(found, Terms):
            return found
        self._note("no_forward", slice_name(key), found)
        if (key, expires) not in self._guessed:
            rate, dividend_yield = self._nearest_carry(key)
            years = self.day.years(expires)
            growth = np.exp((rate - dividend_yield) * years)
            self._guessed[key, expires] = Terms(
                years, float(self.spot * growth), float(np.exp(-rate * years))
            )
        return self._guessed[key, expires]

    def _nearest_carry(self, key: Slice) -> tuple[float, float]:
        """Rate and dividend yield of a slice whose terms are not known."""
        if key in self._carries:
            return self._carries[key]
        terms = self.day.nearest_terms(key[0])
        if terms is not None:
            return terms.carry(self.spot)
        known = sorted(self._carries, key=lambda one: (abs(one[0] - key[0]), one))
        return self._carries[known[0]] if known else (0.0, 0.0)

    @cached_property
    def carry(self) -> tuple[float, float]:
        """Rate and dividend yield of the expiry nearest to 90 days."""
        far = pd.Timedelta(days=90)
        key = min(self.slices, key=lambda one: (abs(one[0] - self.date - far), one))
        return self.terms(key, self.day.quotes(key).expires).carry(self.spot)

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
            if key in self.slices:
                quotes = self.day.quotes(key)
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


def _by_slice(contracts: Sequence[Contract]) -> dict[Slice, np.ndarray]:
    """Places of the contracts of each slice."""
    places: dict[Slice, list[int]] = {}
    for place, one in enumerate(contracts):
        places.setdefault(one.slice, []).append(place)
    return {key: np.array(found) for key, found in places.items()}
