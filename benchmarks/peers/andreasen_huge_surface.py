"""Andreasen and Huge's local volatility on all expiries, as implemented in QuantLib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import QuantLib as ql  # pyright: ignore[reportMissingImports]

from .andreasen_huge import INTERPOLATION
from .curve import Quotes, density_by_differences
from .surface import PeerSurface, surface_terms

REACH = 8.0  # largest quoted total volatilities from the forward to the grid's ends
FINENESS = 8.0  # nodes in a deviation at the first expiry
NODES = (500, 2000)  # fewest and most
DAYS = 365  # of QuantLib's calendar from one expiry to the next
LAST = 200  # expiries: QuantLib's dates end in 2199


@dataclass(frozen=True)
class AndreasenHugeSurface(PeerSurface):
    """Prices of QuantLib's calibrated object, for a forward of one.

    QuantLib's clock runs from expiry to expiry: the i-th is at its time i, and times
    between are mapped linearly. Quotes have the same total volatility on it, and one
    implicit step of Dupire's equation depends on nothing else.

    Attributes:
        interpolation: QuantLib's object.
        spacing: Log-distance of the nodes of its finite-difference grid.
    """

    interpolation: ql.AndreasenHugeVolatilityInterpl
    spacing: float

    def clock(self, time: float) -> float:
        """QuantLib's time; after the last expiry at the rate of the last stretch."""
        knots = np.append(0.0, self.times)
        if time <= knots[-1]:
            return float(np.interp(time, knots, np.arange(knots.size)))
        return knots.size - 1 + (time - knots[-1]) / (knots[-1] - knots[-2])

    def time_value(self, moneyness: np.ndarray, time: float) -> np.ndarray:
        """QuantLib's out-of-the-money prices; zero beyond the ends of its grid."""
        moneyness = np.asarray(moneyness, float)
        low, high = self.interpolation.minStrike(), self.interpolation.maxStrike()
        clock = self.clock(time)
        # QuantLib keeps the last slice it computed of each type: one type at a time.
        values = np.zeros(moneyness.size)
        flat = moneyness.ravel()
        for kind, side in ((ql.Option.Put, flat < 1.0), (ql.Option.Call, flat >= 1.0)):
            for place in np.flatnonzero(side & (flat > low) & (flat < high)):
                values[place] = self.interpolation.optionPrice(
                    clock, float(flat[place]), kind
                )
        return values.reshape(moneyness.shape)

    def normalised_density(self, moneyness: np.ndarray, time: float) -> np.ndarray:
        """Second differences over a node of QuantLib's grid; NaN near its ends."""
        density = density_by_differences(
            lambda k: self.time_value(k, time), moneyness, self.spacing
        )
        # The boundary condition of the finite differences bends the outermost nodes.
        margin = np.exp(10.0 * self.spacing)
        low = self.interpolation.minStrike() * margin
        high = self.interpolation.maxStrike() / margin
        return np.where((moneyness > low) & (moneyness < high), density, np.nan)


def fit(
    quotes: Sequence[Quotes], *, interpolation: str = "linear", nodes: int | None = None
) -> AndreasenHugeSurface:
    """Calibrate `ql.AndreasenHugeVolatilityInterpl` to all expiries.

    The prices of an expiry solve one implicit step of Dupire's equation from those of
    the expiry before, with one unknown volatility for each quote; those of a time
    between solve one step from the expiry before it. Calibrated to calls, which is the
    strongest of QuantLib's three choices. QuantLib has no weights.

    Args:
        quotes: The expiries in order of time.
        interpolation: How the local volatility runs between the quotes: "piecewise
            constant", "linear" or "cubic".
        nodes: Size of QuantLib's finite-difference grid. By default it is fine enough
            for the first expiry: QuantLib's own 500 on its own range leave errors of
            hundreds of basis points where the first deviation is small.

    Returns:
        The calibrated surface.

    Raises:
        RuntimeError: If QuantLib fails.
        ValueError: If there are more expiries than QuantLib's calendar has room for.

    References:
        Andreasen, J. and Huge, B. (2011). Volatility interpolation. *Risk*, March.
    """
    if len(quotes) > LAST:
        raise ValueError(f"at most {LAST} expiries, not {len(quotes)}")
    today = ql.Date(1, 1, 1950)
    zero_rates = ql.YieldTermStructureHandle(
        ql.FlatForward(today, 0.0, ql.Actual365Fixed())
    )
    calibration = ql.CalibrationSet()
    for position, item in enumerate(quotes, 1):
        exercise = ql.EuropeanExercise(today + DAYS * position)
        volatility = item.total_volatility / np.sqrt(position)
        for moneyness, value in zip(
            item.moneyness.tolist(), volatility.tolist(), strict=True
        ):
            option = ql.VanillaOption(
                ql.PlainVanillaPayoff(ql.Option.Call, moneyness), exercise
            )
            calibration.push_back(ql.CalibrationPair(option, ql.SimpleQuote(value)))
    reach = REACH * max(item.total_volatility.max() for item in quotes)
    if nodes is None:
        fine = FINENESS * 2.0 * reach / quotes[0].scale
        nodes = int(np.clip(np.ceil(fine), *NODES))
    fitted = ql.AndreasenHugeVolatilityInterpl(
        calibration,
        ql.QuoteHandle(ql.SimpleQuote(1.0)),
        zero_rates,
        zero_rates,
        INTERPOLATION[interpolation],
        ql.AndreasenHugeVolatilityInterpl.Call,
        nodes,
        float(np.exp(-reach)),
        float(np.exp(reach)),
    )
    # QuantLib calibrates when first asked: ask here, where the time is taken.
    fitted.optionPrice(1.0, 1.0, ql.Option.Call)
    return AndreasenHugeSurface(
        f"Andreasen-Huge ({interpolation})",
        *surface_terms(quotes),
        interpolation=fitted,
        spacing=2.0 * float(reach) / (nodes - 1),
    )
