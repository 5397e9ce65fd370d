r"""Portfolios of cash, forwards and options of one expiry, one leg per strike.

A portfolio is a payoff network with the choice made, at each kink, between a call and
a put. Nothing is lost on the way there and back: `relu_options.decompose` makes it of
a payoff, `StrikePortfolio.payoff` makes the payoff of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from relu_options.formulas.laws import MODELS
from relu_options.networks import ReLUNetwork
from relu_options.payoffs import Payoff
from relu_options.payoffs.numbers import as_rationals, is_exact, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from relu_options.curves import PriceCurve

Side = Literal["bid", "mid", "ask"]
SIDES = ("bid", "mid", "ask")


@dataclass(frozen=True, eq=False, repr=False)
class StrikePortfolio:
    r"""Cash, forwards and options of one expiry.

    With multiplier $m$ it pays at expiry

    $$
    a + b S + m \sum_i q_i \, o_i(S), \qquad
    o_i(S) = \max(S - K_i, 0) \text{ or } \max(K_i - S, 0).
    $$

    Attributes:
        cash: `a`, in currency units paid at expiry.
        forwards: `b`: units of the underlying received at expiry. Each is worth the
            discounted forward today: it is a call of strike zero.
        strikes: `K`, of shape `(n,)`, in currency units.
        is_call: Of shape `(n,)`; False for puts.
        quantities: `q`, of shape `(n,)`, in contracts; positive is long.
        bid: Of shape `(n,)`, per unit of the underlying, in currency units paid today;
            NaN where unknown. None without quotes.
        ask: Likewise.
        multiplier: `m`: units of the underlying in a contract.
        forward: Currency units; None if unknown.
        discount_factor: Price today of one unit of currency paid at expiry, likewise.
        expiry: The date as text, if known.
        target: The function of the spot that the portfolio stands for, if any.

    Examples:
        >>> import relu_options as ro
        >>> portfolio = ro.decompose(ro.payoffs.collar(90.0, 110.0),
        ...                          options="out_of_the_money", boundary=100.0)
        >>> portfolio
        StrikePortfolio(1 forwards; 1 put 90, -1 call 110)
        >>> portfolio.payoff() == ro.payoffs.collar(90.0, 110.0)
        True
        >>> curve = ro.BlackScholesCurve(volatility=0.2, forward=100.0,
        ...                              time_to_expiry=1.0)
        >>> round(portfolio.price(curve), 6)
        99.297097
    """

    cash: Any
    forwards: Any
    strikes: np.ndarray
    is_call: np.ndarray
    quantities: np.ndarray
    bid: np.ndarray | None = None
    ask: np.ndarray | None = None
    multiplier: Any = 1.0
    forward: float | None = None
    discount_factor: float | None = None
    expiry: str | None = None
    target: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.strikes)
        shapes = {
            name: np.shape(values)
            for name in ("is_call", "quantities", "bid", "ask")
            if (values := getattr(self, name)) is not None
        }
        if len(shape) != 1 or set(shapes.values()) - {shape}:
            raise ValueError(
                f"legs have one shape `(n,)`; strikes have {shape}, and others {shapes}"
            )
        if not self.multiplier > 0:
            raise ValueError(f"multiplier must be positive, not {self.multiplier}")

    def __len__(self) -> int:
        """Number of option legs."""
        return len(self.strikes)

    def payoff(self) -> Payoff:
        """What it pays at expiry; cash and slope are rounded once, if at all."""
        units = self.multiplier * self.quantities
        puts = np.flatnonzero(~np.asarray(self.is_call, bool))
        sold = as_rationals(units[puts])
        cash = Fraction(self.cash) + sum(sold * as_rationals(self.strikes[puts]))
        slope = Fraction(self.forwards) - sum(sold)
        if not is_exact(np.append(self.strikes, units)):
            cash, slope = float(cash), float(slope)
        return Payoff(cash, slope, self.strikes, units)

    def to_network(self) -> ReLUNetwork:
        """What it pays at expiry, as a network of the spot."""
        return self.payoff().to_network()

    def error(self, spot: ArrayLike) -> Any:
        """Payoff minus target at `spot`.

        Raises:
            ValueError: If the portfolio has no target.
        """
        if self.target is None:
            raise ValueError("the portfolio has no target to differ from")
        return self.payoff()(spot) - np.asarray(self.target(spot))

    @property
    def error_payoff(self) -> Payoff:
        """Payoff minus target, exactly; its `bounds` are those of the error.

        Raises:
            ValueError: If the target is not piecewise linear.
        """
        if not isinstance(self.target, Payoff):
            raise ValueError(
                f"the target, {self.target!r}, is not a piecewise-linear payoff; "
                "use `error(spots)`"
            )
        return self.payoff() - self.target

    def price(self, curve: PriceCurve) -> float:
        """Price today on a curve, in currency units: legs times prices, summed."""
        options = self.multiplier * self.quantities @ _prices(self, curve)
        linear = self.cash + self.forwards * curve.forward
        return float(curve.discount_factor * linear + options)

    def cost(self, side: Side = "ask") -> float:
        """What the portfolio costs at its quotes, in currency units paid today.

        Args:
            side: "ask" buys at the ask and sells at the bid, which is what it costs to
                enter; "bid" is the reverse, for what it could be sold again; "mid" is
                half way between. Cash and forwards have no spread.

        Raises:
            ValueError: If a leg has no quote, or the forward is unknown.
        """
        return float(sum(self._leg_costs(side)))

    def greeks(self, curve: PriceCurve, *, by_leg: bool = False) -> Any:
        """Price and Greeks today, in total or by leg.

        Price, delta and gamma are those of the curve, which moves with the forward.
        Vega (per 1.00 of volatility) and theta (per year that passes, with forward and
        discount factor held) are those of the Black-Scholes formula at the volatility
        that the curve has at each strike; of Bachelier's on a curve of the normal
        kernel, where vega is per unit of a normal volatility.

        Args:
            curve: Prices of this expiry.
            by_leg: Whether to return one row per leg rather than the total.

        Returns:
            A Series with `price`, `delta`, `gamma`, `vega` and `theta`; or a DataFrame
            with these columns, and the rows of `to_frame`.
        """
        strikes, is_call = self.strikes, np.asarray(self.is_call, bool)
        call = curve.delta(strikes)
        formula = MODELS[curve.kernel].greeks(
            strike=strikes,
            time_to_expiry=curve.time_to_expiry,
            volatility=curve.implied_volatility(strikes),
            is_call=is_call,
            forward=curve.forward,
            discount_factor=curve.discount_factor,
        )
        units = self.multiplier * self.quantities
        discount = curve.discount_factor
        options = {
            "price": _prices(self, curve),
            "delta": np.where(is_call, call, call - discount),
            "gamma": curve.gamma(strikes),
            "vega": formula.vega,
            "theta": formula.theta,
        }
        linear = {
            "price": [self.cash * discount, self.forwards * discount * curve.forward],
            "delta": [0.0, self.forwards * discount],
        }
        table = pd.DataFrame(
            {
                name: np.concatenate([linear.get(name, [0.0, 0.0]), units * values])
                for name, values in options.items()
            }
        )
        if not by_leg:
            return table.sum().rename("greeks")
        frame = self._legs()
        table = pd.concat([frame[["strike", "option_type", "quantity"]], table], axis=1)
        return table[frame["quantity"] != 0.0].reset_index(drop=True)

    def to_frame(self) -> pd.DataFrame:
        """One row per leg, those of cash and forwards first.

        Returns:
            Columns `strike` (zero for a forward, NaN for cash), `option_type` ("cash",
            "forward", "call" or "put"), `side` ("buy" or "sell"), `quantity` (contracts
            of options; units of the others) and, with quotes, `bid`, `ask` and `cost`,
            what the leg costs to enter.
        """
        table = self._legs()
        if self.bid is not None and self.ask is not None:
            linear = [np.nan, np.nan]
            if self.forward is not None and self.discount_factor is not None:
                discount = self.discount_factor
                linear = [discount, discount * self.forward]
            table["bid"] = np.concatenate([linear, self.bid])
            table["ask"] = np.concatenate([linear, self.ask])
            prices = np.where(table["quantity"] > 0.0, table["ask"], table["bid"])
            units = table["quantity"].to_numpy(copy=True)
            units[2:] *= float(self.multiplier)
            table["cost"] = units * prices
        return table[table["quantity"] != 0.0].reset_index(drop=True)

    def plot(self, ax: Axes | None = None, *, curve: PriceCurve | None = None) -> Axes:
        """Draw the payoff, its error and, on a curve, its value today."""
        from relu_options.plotting import plot_portfolio

        return plot_portfolio(self, ax, curve=curve)

    def _legs(self) -> pd.DataFrame:
        """Cash, forwards and options, also those of quantity zero."""
        kind = np.where(np.asarray(self.is_call, bool), "call", "put").tolist()
        quantity = np.array([self.cash, self.forwards, *self.quantities], float)
        return pd.DataFrame(
            {
                "strike": np.array([np.nan, 0.0, *self.strikes], float),
                "option_type": ["cash", "forward", *kind],
                "side": np.where(quantity > 0.0, "buy", "sell"),
                "quantity": quantity,
            }
        )

    def _leg_costs(self, side: Side) -> np.ndarray:
        """Cost of cash and forwards, and of each option leg."""
        if side not in SIDES:
            raise ValueError(f"side must be one of {list(SIDES)}, not {side!r}")
        if self.bid is None or self.ask is None:
            raise ValueError(
                "the portfolio has no quotes; pass `quotes=` to `decompose`, or take "
                "the price on a curve"
            )
        if self.forward is None or self.discount_factor is None:
            raise ValueError("forward and discount factor of the portfolio are unknown")
        unquoted = (np.isnan(self.bid) | np.isnan(self.ask)) & (self.quantities != 0)
        if unquoted.any():
            missing = self.strikes[unquoted]
            raise ValueError(
                f"no bid or ask for {len(missing)} of {len(self)} legs: strikes "
                f"{', '.join(short(strike) for strike in missing[:3])}; restrict the "
                "portfolio to quoted strikes with `strikes=`"
            )
        share = {"bid": 0.0, "mid": 0.5, "ask": 1.0}[side]
        long = self.quantities > 0
        spread = np.where(long, share, 1.0 - share) * (self.ask - self.bid)
        linear = self.discount_factor * (self.cash + self.forwards * self.forward)
        options = self.multiplier * self.quantities * (self.bid + spread)
        return np.append(linear, np.where(self.quantities != 0, options, 0.0))

    def __repr__(self) -> str:
        linear = [
            f"{short(amount)} {name}"
            for name, amount in (("cash", self.cash), ("forwards", self.forwards))
            if amount != 0
        ]
        count = len(self)
        legs = [
            f"{short(self.quantities[leg])} "
            f"{'call' if self.is_call[leg] else 'put'} {short(self.strikes[leg])}"
            for leg in (range(count) if count <= 6 else (0, 1, count - 2, count - 1))
        ]
        if count > 6:
            legs.insert(2, f"... {count} legs ...")
        parts = [", ".join(part) for part in (linear, legs) if part]
        text = "; ".join(parts) or "empty"
        if self.multiplier != 1:
            text += f"; multiplier {short(self.multiplier)}"
        if self.expiry:
            text += f"; expiry {self.expiry}"
        if self.bid is not None and self.forward is not None:
            text += f"; costs {short(self.cost('ask'))}"
        return f"StrikePortfolio({text})"


def _prices(portfolio: StrikePortfolio, curve: PriceCurve) -> np.ndarray:
    """Price of one option of each leg."""
    if not hasattr(curve, "price"):
        raise TypeError(
            "a portfolio is priced on a curve, such as `fit_curve(quotes)`, not on "
            f"{type(curve).__name__}"
        )
    strikes = portfolio.strikes
    calls, puts = curve.price(strikes), curve.price(strikes, is_call=False)
    return np.where(np.asarray(portfolio.is_call, bool), calls, puts)
