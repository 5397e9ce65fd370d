r"""Bermudan options, hedged from date to date with options of the next date.

Backward from the last exercise date, the value of the option is a function of the spot
and is fitted by a ReLU network: a portfolio of options that expire at that date. What
the portfolio is worth at the date before is a closed formula, and is the value of
waiting (Lokeshwar, Bharadwaj and Jain, 2022). From the networks two numbers follow
between which the price is, up to the error of a simulation: exercising by them cannot
bring more than the best rule does (lower bound), and the gains of the portfolios from
date to date are a martingale, against which the best rule with hindsight cannot bring
less (upper bound; Rogers, 2002).

References:
    Rogers, L. C. G. (2002). Monte Carlo valuation of American options. *Mathematical
    Finance*, 12, 271-286.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from relu_options.formulas import black_scholes
from relu_options.payoffs import Payoff
from relu_options.replication.learning import fit_payoff

_SPOTS = 2000  # at which a value is fitted


@dataclass(frozen=True, eq=False)
class BermudanHedge:
    """The hedge of a Bermudan option, and bounds on its price.

    Attributes:
        payoffs: One portfolio for each exercise date, of options that expire there.
        dates: Of exercise, in years from today.
        price: Of the first portfolio, today.
        lower: Lower bound on the price, by simulation.
        upper: Upper bound.
        lower_error: Standard error of the lower bound.
        upper_error: Standard error of the upper bound.

    Examples:
        >>> from relu_options.payoffs import put
        >>> hedge = bermudan_hedge(put(100.0), [0.5, 1.0], spot=100.0, volatility=0.2,
        ...                        rate=0.05, paths=2000)
        >>> hedge.lower <= hedge.upper < 1.01 * hedge.lower
        True
    """

    payoffs: tuple[Payoff, ...]
    dates: np.ndarray
    price: float
    lower: float
    upper: float
    lower_error: float
    upper_error: float


def bermudan_hedge(
    exercise: Payoff,
    dates: ArrayLike,
    *,
    spot: float,
    volatility: float,
    rate: float = 0.0,
    dividend_yield: float = 0.0,
    max_legs: int = 10,
    paths: int = 20_000,
    seed: int = 0,
) -> BermudanHedge:
    """Hedge a Bermudan option in the Black-Scholes model, and bound its price.

    Args:
        exercise: What it pays when exercised.
        dates: Of exercise, in years from today, increasing and positive.
        spot: Currency units.
        volatility: Annualised, 0.2 meaning 20%.
        rate: Continuous, per year.
        dividend_yield: Continuous, per year.
        max_legs: Options in each portfolio.
        paths: Simulated, half of them mirror images.
        seed: Of the simulation.

    Returns:
        Portfolios by date, and both bounds.

    Raises:
        ValueError: If dates do not increase from above zero, or spot, volatility or
            paths are not positive.

    Examples:
        With the last date alone it is European.

        >>> from relu_options.payoffs import put
        >>> hedge = bermudan_hedge(put(100.0), [1.0], spot=100.0, volatility=0.2,
        ...                        rate=0.05, paths=1000)
        >>> round(hedge.price, 4)
        5.5735
    """
    dates = np.asarray(dates, float)
    if dates.ndim != 1 or not len(dates) or not (np.diff(dates, prepend=0.0) > 0).all():
        raise ValueError(f"dates increase from above zero, not {dates.tolist()}")
    if not (spot > 0.0 and volatility > 0.0 and paths >= 2):
        raise ValueError(
            f"spot {spot}, volatility {volatility} and paths {paths} must be positive"
        )
    market = _Market(float(spot), volatility, rate, dividend_yield)
    hedges = market.hedges(exercise, dates, max_legs)
    half = np.random.default_rng(seed).standard_normal((len(dates), (paths + 1) // 2))
    noise = np.concatenate([half, -half], axis=1)
    earned, hindsight = market.outcomes(exercise, hedges, dates, noise)
    lower, lower_error = _mean(earned)
    upper, upper_error = _mean(hindsight)
    price = float(market.worth(hedges[0], np.array([market.spot]), dates[0])[0])
    return BermudanHedge(
        tuple(hedges), dates, price, lower, upper, lower_error, upper_error
    )


@dataclass(frozen=True)
class _Market:
    """The Black-Scholes model in which an option is hedged."""

    spot: float
    volatility: float
    rate: float
    dividend_yield: float

    @property
    def drift(self) -> float:
        """Of the forward, per year."""
        return self.rate - self.dividend_yield

    def worth(self, payoff: Payoff, spots: np.ndarray, years: float) -> np.ndarray:
        """Price of a portfolio that expires in some years, by the spot."""
        forwards = spots * np.exp(self.drift * years)
        linear = np.exp(-self.rate * years) * (payoff.cash + payoff.slope * forwards)
        if not len(payoff.strikes):
            return linear
        calls = black_scholes.price(
            spot=spots[:, None],
            rate=self.rate,
            dividend_yield=self.dividend_yield,
            strike=payoff.strikes,
            time_to_expiry=years,
            volatility=self.volatility,
        )
        return linear + calls @ payoff.weights

    def hedges(
        self, exercise: Payoff, dates: np.ndarray, max_legs: int
    ) -> list[Payoff]:
        """Backward: at each date the better of exercise and of the next portfolio."""
        hedges = [exercise]
        shares = (np.arange(_SPOTS) + 0.5) / _SPOTS
        for date, step in zip(dates[-2::-1], np.diff(dates)[::-1], strict=True):
            deviation = self.volatility * np.sqrt(date)
            spots = self.spot * np.exp(self.drift * date + deviation * ndtri(shares))
            spots *= np.exp(-0.5 * deviation**2)
            value = np.maximum(exercise(spots), self.worth(hedges[-1], spots, step))
            hedges.append(fit_payoff(spots, value, max_legs=max_legs).payoff)
        return hedges[::-1]

    def outcomes(
        self,
        exercise: Payoff,
        hedges: list[Payoff],
        dates: np.ndarray,
        noise: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """What each path earns by exercising as the hedges say, and with hindsight.

        Both less the martingale of the hedges' gains. `noise` has shape
        `(dates, paths)`.
        """
        steps = np.diff(dates, prepend=0.0)
        volatility, rate = self.volatility, self.rate
        now = np.full(noise.shape[1], self.spot)
        waiting = np.ones(len(now), bool)
        earned, martingale = np.zeros(len(now)), np.zeros(len(now))
        hindsight = np.full(len(now), -np.inf)
        for place, (date, step, shock) in enumerate(
            zip(dates, steps, noise, strict=True)
        ):
            before = self.worth(hedges[place], now, step)
            growth = (self.drift - 0.5 * volatility**2) * step
            now = now * np.exp(growth + volatility * np.sqrt(step) * shock)
            gain = np.exp(-rate * step) * hedges[place](now) - before
            martingale += np.exp(-rate * (date - step)) * gain
            paid = exercise(now)
            last = place == len(dates) - 1
            keep = 0.0 if last else self.worth(hedges[place + 1], now, steps[place + 1])
            stops = waiting & (last | ((paid >= keep) & (paid > 0.0)))
            discounted = np.exp(-rate * date) * paid
            # The martingale is a control variate: its mean is zero, also when stopped.
            earned = np.where(stops, discounted - martingale, earned)
            waiting &= ~stops
            hindsight = np.maximum(hindsight, discounted - martingale)
        return earned, hindsight


def _mean(samples: np.ndarray) -> tuple[float, float]:
    """Mean and standard error of pairs of mirror images."""
    pairs = samples.reshape(2, -1).mean(axis=0)
    error = float(pairs.std()) / np.sqrt(max(len(pairs) - 1, 1))
    return float(pairs.mean()), float(error)
