"""Andreasen and Huge's one-step local volatility, as implemented in QuantLib."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import QuantLib as ql  # pyright: ignore[reportMissingImports]
from numpy.typing import ArrayLike

from .curve import PeerCurve, density_by_differences, read_quotes

INTERPOLATION = {
    "piecewise constant": ql.AndreasenHugeVolatilityInterpl.PiecewiseConstant,
    "linear": ql.AndreasenHugeVolatilityInterpl.Linear,
    "cubic": ql.AndreasenHugeVolatilityInterpl.CubicSpline,
}


@dataclass(frozen=True)
class AndreasenHugeCurve(PeerCurve):
    """Prices of QuantLib's calibrated object, for a forward and an expiry of one.

    Attributes:
        interpolation: QuantLib's object.
        spacing: Log-distance of the nodes of its finite-difference grid.
    """

    interpolation: ql.AndreasenHugeVolatilityInterpl
    spacing: float

    def time_value(self, moneyness: np.ndarray) -> np.ndarray:
        """QuantLib's out-of-the-money prices; zero beyond the ends of its grid."""
        moneyness = np.asarray(moneyness, float)
        low, high = self.interpolation.minStrike(), self.interpolation.maxStrike()
        values = [
            self.interpolation.optionPrice(
                1.0, strike, ql.Option.Call if strike >= 1.0 else ql.Option.Put
            )
            if low < strike < high
            else 0.0
            for strike in moneyness.ravel().tolist()
        ]
        return np.reshape(values, moneyness.shape)

    def normalised_density(self, moneyness: np.ndarray) -> np.ndarray:
        """Second differences over a node of QuantLib's grid; NaN near its ends."""
        density = density_by_differences(self.time_value, moneyness, self.spacing)
        # The boundary condition of the finite differences bends the outermost nodes.
        margin = np.exp(10.0 * self.spacing)
        low = self.interpolation.minStrike() * margin
        high = self.interpolation.maxStrike() / margin
        return np.where((moneyness > low) & (moneyness < high), density, np.nan)


def fit(
    strike: ArrayLike,
    volatility: ArrayLike,
    *,
    forward: float,
    time_to_expiry: float,
    weights: ArrayLike | None = None,
    bid: ArrayLike | None = None,
    ask: ArrayLike | None = None,
    interpolation: str = "linear",
    nodes: int = 500,
) -> AndreasenHugeCurve:
    """Calibrate `ql.AndreasenHugeVolatilityInterpl` to one expiry.

    The price solves one implicit step of Dupire's equation from the payoff at expiry
    zero, with one unknown volatility for each quote. Calibrating to calls is the
    strongest of the three choices that QuantLib offers on every table tried (to puts,
    or to both, the error is up to a hundred times larger). QuantLib has no weights
    and finds a volatility for each quote, so `weights`, `bid` and `ask` do not enter.

    Args:
        strike: Strikes, in currency units, all different.
        volatility: Black volatilities, annualised.
        forward: Forward price, in currency units.
        time_to_expiry: Time to expiry, in years.
        weights: Not used.
        bid: Not used.
        ask: Not used.
        interpolation: How the local volatility runs between the quotes: "piecewise
            constant", "linear" or "cubic".
        nodes: Size of QuantLib's finite-difference grid, whose ends QuantLib sets.

    Returns:
        The calibrated curve.

    Raises:
        RuntimeError: If QuantLib fails.

    References:
        Andreasen, J. and Huge, B. (2011). Volatility interpolation. *Risk*, March.
    """
    quotes = read_quotes(
        strike,
        volatility,
        forward=forward,
        time_to_expiry=time_to_expiry,
        weights=weights,
        bid=bid,
        ask=ask,
    )
    # An expiry is a date in QuantLib. Only total volatility matters with one expiry,
    # so one year is used for every table and no time to expiry is rounded to days.
    today = ql.Settings.instance().evaluationDate
    zero_rates = ql.YieldTermStructureHandle(
        ql.FlatForward(today, 0.0, ql.Actual365Fixed())
    )
    exercise = ql.EuropeanExercise(today + 365)
    calibration = ql.CalibrationSet()
    for moneyness, total in zip(
        quotes.moneyness.tolist(), quotes.total_volatility.tolist(), strict=True
    ):
        option = ql.VanillaOption(
            ql.PlainVanillaPayoff(ql.Option.Call, moneyness), exercise
        )
        calibration.push_back(ql.CalibrationPair(option, ql.SimpleQuote(total)))
    fitted = ql.AndreasenHugeVolatilityInterpl(
        calibration,
        ql.QuoteHandle(ql.SimpleQuote(1.0)),
        zero_rates,
        zero_rates,
        INTERPOLATION[interpolation],
        ql.AndreasenHugeVolatilityInterpl.Call,
        nodes,
    )
    # QuantLib calibrates when first asked: ask here, where the time is taken.
    low, high = fitted.minStrike(), fitted.maxStrike()
    fitted.optionPrice(1.0, 1.0, ql.Option.Call)
    return AndreasenHugeCurve(
        name=f"Andreasen-Huge ({interpolation})",
        forward=quotes.forward,
        time_to_expiry=quotes.time_to_expiry,
        interpolation=fitted,
        spacing=float(np.log(high / low)) / (nodes - 1),
    )
