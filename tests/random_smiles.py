"""Seeded smiles and chains, calm to wild, with noise and wrong quotes; truth known."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm


@dataclass(frozen=True)
class Law:
    """A mixture of lognormals with mean one.

    Attributes:
        weights: Of shape `(m,)`, with sum one.
        places: Means of the parts, in deviations, before they are scaled to mean one.
        widths: Total volatilities of the parts, in deviations.
    """

    weights: np.ndarray
    places: np.ndarray
    widths: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Law":
        """One lognormal, or two to four that are close together or far apart."""
        parts = int(rng.choice([1, 2, 3, 4]))
        if parts == 1:
            return cls(np.ones(1), np.zeros(1), np.ones(1))
        apart = rng.choice([0.5, 0.9])
        return cls(
            rng.dirichlet(2.0 * np.ones(parts)),
            rng.normal(0.0, apart, parts),
            rng.uniform(0.3, 1.3, parts),
        )

    def price(
        self, strike: np.ndarray, is_call: np.ndarray | bool, deviation: float
    ) -> np.ndarray:
        """Undiscounted prices for a forward of one."""
        means = np.exp(self.places * deviation)
        means = means / (self.weights @ means)
        total = np.zeros(strike.shape)
        for weight, mean, width in zip(self.weights, means, self.widths, strict=True):
            h = width * deviation
            d = np.log(mean / strike) / h + 0.5 * h
            call = mean * norm.cdf(d) - strike * norm.cdf(d - h)
            put = strike * norm.cdf(h - d) - mean * norm.cdf(-d)
            total = total + weight * np.where(is_call, call, put)
        return total


@dataclass(frozen=True)
class Expiry:
    """Quotes of one expiry and what is true of them.

    Attributes:
        quotes: Calls and puts, as `relu_options.read_chain` reads them.
        forward: Currency units.
        discount_factor: Price today of one unit paid at expiry.
        time_to_expiry: Years.
        strike: The one nearest the forward.
        price: True price of the out-of-the-money option there, undiscounted.
        half_spread: Of its quote, undiscounted.
    """

    quotes: pd.DataFrame
    forward: float
    discount_factor: float
    time_to_expiry: float
    strike: float
    price: float
    half_spread: float


def random_chain(
    seed: int, *, expiries: int, strikes: tuple[int, int], wrong: float = 0.0
) -> list[Expiry]:
    """Quotes of a few expiries of one law, a week to three years.

    Args:
        seed: Of the generator.
        expiries: How many.
        strikes: Least and most of an expiry.
        wrong: Share of quotes off by a factor of up to 4.5, bid and ask alike.
    """
    rng = np.random.default_rng(seed)
    law = Law.draw(rng)
    volatility, forward = np.exp(rng.uniform(np.log([0.05, 5.0]), np.log([1.0, 5e3])))
    times = np.cumsum(np.exp(rng.uniform(np.log(7 / 365), 0.0, expiries)))
    rate, noise = rng.uniform(0.0, 0.06), rng.choice([0.0, 0.3, 0.8])
    spread = np.exp(rng.uniform(np.log(2e-3), np.log(5e-2)))
    chain = []
    for time in times:
        deviation = volatility * np.sqrt(time)
        count = int(rng.integers(strikes[0], strikes[1] + 1))
        reach = np.linspace(-rng.uniform(1.5, 4.0), rng.uniform(1.5, 3.0), count)
        moneyness = np.exp(reach * deviation)
        discount = np.exp(-rate * time)
        tables = []
        half = None
        for is_call in (True, False):
            price = law.price(moneyness, np.full(count, is_call), deviation)
            if half is None:
                cheap = np.minimum(price, law.price(moneyness, False, deviation))
                half = np.maximum(spread * cheap, 1e-6) * np.exp(
                    rng.normal(0.0, 0.2, count)
                )
            mid = price + noise * rng.uniform(-1.0, 1.0, count) * half
            size = np.where(rng.random(count) < wrong, rng.uniform(0.1, 1.5, count), 0)
            factor = np.exp(rng.choice([-1.0, 1.0], count) * size)
            unit = factor * discount * forward
            tables.append(
                pd.DataFrame(
                    {
                        "strike": forward * moneyness,
                        "option_type": "call" if is_call else "put",
                        "bid": np.maximum(mid - half, 0.0) * unit,
                        "ask": (mid + half) * unit,
                        "time_to_expiry": time,
                    }
                )
            )
        near = int(np.argmin(np.abs(moneyness - 1.0)))
        at = moneyness[near : near + 1]
        true = float(law.price(at, at >= 1.0, deviation)[0])
        chain.append(
            Expiry(
                pd.concat(tables, ignore_index=True),
                float(forward),
                float(discount),
                float(time),
                float(forward * at[0]),
                float(forward * true),
                float(forward * half[near]),
            )
        )
    return chain
