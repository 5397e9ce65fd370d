r"""Price curves: call prices of one expiry by strike, as a network.

A curve is a `PriceNetwork` in currency with its forward, discount factor and time to
expiry. Everything else, from volatilities to the density, is read off the network in
closed form. `BlackScholesCurve` is the network with one hidden unit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.core import Tracer

from relu_options.arbitrage import (
    CurveCertificate,
    QuoteArbitrage,
    certify_network,
    least_excess,
)
from relu_options.errors import require_payoff, require_positive
from relu_options.files import check_seal
from relu_options.fit_documents import from_document, to_document
from relu_options.formulas.elementwise import Numeric, boolean, by_pieces, restorer
from relu_options.formulas.laws import MODELS, Law
from relu_options.networks import (
    PriceNetwork,
    ReLUNetwork,
    quantile_of_tail,
    tail_of,
)
from relu_options.payoffs import Payoff

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from relu_options.market_data import ExpiryQuotes, QuoteReport

QUADRATURE_NODES = 40
FORMAT = "relu_options.PriceCurve/1"


@dataclass(frozen=True, eq=False)
class FitReport:
    """How a curve was fitted, and to which quotes.

    Attributes:
        quotes: The quotes used.
        smoothing: In units of the reference; zero for the unsmoothed network.
        steps: Interior-point steps.
        gap: Relative duality gap reached.
        objective: Value of the programme's objective.

    Examples:
        >>> import relu_options as ro
        >>> quotes = pd.DataFrame({"strike": [80.0, 90.0, 100.0, 110.0, 120.0],
        ...                        "bid": [20.5, 12.2, 6.2, 2.7, 1.0],
        ...                        "ask": [20.9, 12.6, 6.5, 3.0, 1.2]})
        >>> curve = ro.fit_curve(quotes, forward=100.0, discount_factor=1.0,
        ...                      time_to_expiry=0.5)
        >>> len(curve.fit.quotes), curve.fit.gap < 1e-6
        (5, True)
    """

    quotes: ExpiryQuotes
    smoothing: float
    steps: int
    gap: float
    objective: float

    @cached_property
    def least_error(self) -> float:
        """A volatility error that no arbitrage-free curve goes below on these quotes.

        That part of `PriceCurve.volatility_error` is the quotes' own; the rest is the
        price of a smooth density, or of staying inside the spreads. A trade proves it
        (`relu_options.fitting.least_error`), found by a second fit when first asked.
        """
        from relu_options.fitting.curve import least_error

        return least_error(self.quotes)


@dataclass(frozen=True, eq=False)
class PriceCurve:
    r"""Option prices of one expiry, $C(K) = \sum_j p_j \varphi_{h_j}(s_j, K)$.

    Methods take strikes as numbers, arrays or pandas Series, and return the same. A
    curve is a pytree of its network, forward, discount factor and time to expiry: what
    is evaluated at strikes can be compiled, mapped and differentiated.

    The hidden units of a network have a lognormal law, or a normal one: then the
    underlying may be negative, the curve moves with the forward without changing its
    shape, and its volatilities are normal ones, in currency units per square root of a
    year.

    `repr` computes nothing; `print` says how well the curve fits its quotes.

    Attributes:
        network: Call prices by strike, in currency paid today.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        time_to_expiry: Years.
        expiry: The date as text, if known.
        fit: How the curve was fitted; None if it was not.

    Examples:
        >>> curve = BlackScholesCurve(volatility=0.2, forward=100.0, time_to_expiry=1.0)
        >>> round(curve.price(100.0), 4)
        7.9656
        >>> round(curve.implied_volatility(150.0), 10)
        0.2
    """

    network: PriceNetwork
    forward: float
    discount_factor: float
    time_to_expiry: float
    expiry: str | None = None
    fit: FitReport | None = field(default=None, repr=False)

    def price(self, strike: Any, is_call: Any = True) -> Numeric:
        """Price of a call, or of a put, in currency paid today."""
        return self._evaluate(
            PriceNetwork.option, strike, boolean(is_call, name="is_call")
        )

    @property
    def kernel(self) -> Law:
        """The law of the hidden units: "lognormal" or "normal"."""
        return "lognormal" if self.network.kernel == "black" else "normal"

    def implied_volatility(self, strike: Any) -> Numeric:
        """Black-Scholes volatility, annualised, 0.2 meaning 20%.

        With the normal kernel, Bachelier's: in currency units per square root of a
        year. Black's, where there is one, is
        `bachelier.lognormal_from_normal_volatility` of it.

        Examples:
            >>> unit = PriceNetwork(jnp.array([-37.0]), jnp.ones(1), jnp.array([9.0]),
            ...                     "bachelier")
            >>> oil = PriceCurve(unit, -37.0, 1.0, 0.25)
            >>> round(oil.implied_volatility(-50.0), 10)
            18.0
        """
        exact = strike if isinstance(strike, Tracer) else np.asarray(strike, float)
        is_call = exact >= self.forward  # out of the money, where prices are exact
        return MODELS[self.kernel].implied_volatility(
            price=self._evaluate(PriceNetwork.option, strike, is_call),
            forward=self.forward,
            strike=strike,
            time_to_expiry=self.time_to_expiry,
            discount_factor=self._mass,
            is_call=is_call,
        )

    def delta(self, strike: Any, is_call: Any = True) -> Numeric:
        r"""Derivative of the price in the forward, the curve moving with it.

        Prices are homogeneous in forward and strike, so that $\partial C / \partial F =
        (C - K \, \partial C / \partial K) / F$; with the normal kernel they depend on
        the difference of the two, and it is $-\partial C / \partial K$.
        """
        if self.kernel == "normal":
            above = self._evaluate(PriceNetwork.survival, strike)
            return above - self._where_put(is_call)
        call = self._evaluate(_asset_above, strike) / self.forward
        return call - self._where_put(is_call)

    def strike_delta(self, strike: Any, is_call: Any = True) -> Numeric:
        """Derivative of the price in the strike."""
        call = -self._evaluate(PriceNetwork.survival, strike)
        return call + self._where_put(is_call)

    def gamma(self, strike: Any) -> Numeric:
        """Second derivative of the price in the forward, the curve moving with it."""
        curvature = self._evaluate(PriceNetwork.second_derivative, strike)
        if self.kernel == "normal":
            return curvature
        return (_factor(strike) / self.forward) ** 2 * curvature

    def density(self, strike: Any) -> Numeric:
        """Risk-neutral density of the underlying at expiry."""
        return self._evaluate(PriceNetwork.second_derivative, strike) / self._mass

    def distribution(self, strike: Any) -> Numeric:
        """Risk-neutral probability of finishing at or below `strike`."""
        return self._evaluate(PriceNetwork.distribution, strike)

    def quantile(self, probability: Any) -> Numeric:
        """The least strike at or below which the underlying finishes so probably.

        At 0 and 1 the ends of the law, for a lognormal kernel 0 and infinity, for a
        normal one minus infinity and infinity. See `PriceNetwork.quantile`.

        Raises:
            ValueError: If a probability is outside of [0, 1]; under JAX transformations
                the quantile is then NaN.
        """
        if not isinstance(probability, Tracer):
            given = np.asarray(probability, float)
            wrong = given[(given < 0.0) | (given > 1.0)]
            if wrong.size:
                raise ValueError(
                    f"probabilities are from 0 to 1, not {wrong[0]:.6g}; 5 % is 0.05"
                )
        tail: Any = tail_of(probability)
        if isinstance(tail, np.ndarray):
            tail = restorer((probability,), tail.shape)(tail.reshape(-1))
        return self._evaluate(quantile_of_tail, tail)

    def moments(self) -> pd.Series:
        """Mean, variance, skewness and kurtosis of the underlying at expiry."""
        names = ["mean", "variance", "skewness", "kurtosis"]
        return pd.Series(np.asarray(_moments(self.network)), names, name="moments")

    def expectation(self, payoff: Payoff | ReLUNetwork | Callable[[Any], Any]) -> float:
        """Undiscounted risk-neutral expectation of a payoff.

        Args:
            payoff: A payoff or its network, whose expectation is exact, or any function
                of an array of spots, averaged by Gauss-Hermite quadrature around each
                kink: exact to rounding for smooth functions only.

        Returns:
            The expectation, in currency paid at expiry.
        """
        if isinstance(payoff, Payoff):
            payoff = payoff.to_network()
        masses = np.asarray(self.network.weights) / self.discount_factor
        if isinstance(payoff, ReLUNetwork):
            mean = masses @ np.asarray(self.network.kinks)
            calls = self.price(np.asarray(payoff.kinks)) @ np.asarray(payoff.weights)
            linear = payoff.intercept * masses.sum() + payoff.slope * mean
            return float(linear + calls / self.discount_factor)
        require_payoff(payoff)
        nodes, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE_NODES)
        values = np.asarray(payoff(np.asarray(self.network.states(nodes)).T))
        return float(masses @ (values @ (weights / weights.sum())))

    def sample(self, key: jax.Array | int, n: int) -> np.ndarray:
        """Draw `n` values of the underlying at expiry with a JAX random key or seed."""
        if n < 0:
            raise ValueError(f"`n` values are drawn, a whole number from 0 on, not {n}")
        if isinstance(key, int):
            key = jax.random.key(key)
        return np.array(self.network.sample(key, n))

    @cached_property
    def certificate(self) -> CurveCertificate:
        """The numbers that prove the curve free of static arbitrage."""
        return certify_network(
            self.network, forward=self.forward, discount_factor=self.discount_factor
        )

    @property
    def quotes(self) -> pd.DataFrame:
        """The fitted quotes, each with fitted price and volatility, and its excess.

        `residual` is fitted minus quoted mid price; `excess` is how far the fitted
        price is outside the spread, zero inside. The table is a copy.

        Raises:
            ValueError: If the curve was not fitted to quotes.
        """
        return self._judged.copy()

    @cached_property
    def _judged(self) -> pd.DataFrame:
        """The table of `quotes`, which nobody else has."""
        source = self._fitted().quotes
        table = source.to_frame()
        strike = source.strike
        fitted = np.where(
            source.is_call, self.price(strike), self.price(strike, is_call=False)
        )
        quoted = MODELS[self.kernel].implied_volatility(
            price=source.mid,
            forward=self.forward,
            strike=strike,
            time_to_expiry=self.time_to_expiry,
            discount_factor=self.discount_factor,
            is_call=source.is_call,
        )
        return judged(
            table,
            fitted_price=fitted,
            fitted_volatility=self.implied_volatility(strike),
            implied_volatility=quoted,
            unit=source.unit,
        )

    @property
    def report(self) -> QuoteReport | None:
        """What became of every row of the table of quotes; None if not fitted."""
        return None if self.fit is None else self.fit.quotes.report

    @property
    def conflicts(self) -> pd.DataFrame:
        """The fitted quotes whose spread the curve leaves, the largest excess first.

        No rows if there are none. Each is the contract that is listed, at the prices
        that are quoted. `quote_arbitrage` tells whether any curve without arbitrage
        could do better.

        Raises:
            ValueError: If the curve was not fitted to quotes.
        """
        return left_quotes(self._fitted().quotes.as_listed(self.quotes))

    @cached_property
    def quote_arbitrage(self) -> QuoteArbitrage:
        """How near any curve without arbitrage comes to the fitted quotes.

        Of quotes without spreads, mids are prices to be met. An arbitrage is named by
        the trade that earns it, as in `print(curve.quote_arbitrage.describe())`.

        Raises:
            ValueError: If the curve was not fitted to quotes.
        """
        return least_excess(
            **self._fitted().quotes.listed,
            forward=self.forward,
            discount_factor=self.discount_factor,
            signed=self.kernel == "normal",
        )

    @property
    def share_inside(self) -> float:
        """Share of the quotes with bid and ask that the curve is inside of."""
        return share_inside(self._judged)

    @property
    def volatility_error(self) -> float:
        """Root mean square of fitted minus quoted volatility.

        With the normal kernel in currency units per square root of a year.
        """
        return volatility_error(self._judged)

    @property
    def least_error(self) -> float:
        """A volatility error that no arbitrage-free curve goes below on these quotes.

        Compare with `volatility_error`. It takes a second fit, made on first use.

        Raises:
            ValueError: If the curve was not fitted to quotes.
        """
        return self._fitted().least_error

    def _fitted(self) -> FitReport:
        if self.fit is None:
            raise ValueError("the curve has no quotes: it was not fitted to any")
        return self.fit

    def to_frame(self, strikes: Iterable[float] | None = None) -> pd.DataFrame:
        """Prices, volatilities, Greeks and probabilities by strike."""
        if strikes is None:
            strikes = self.quantile(np.linspace(0.001, 0.999, 101))
        strike = np.asarray(strikes, float)
        return pd.DataFrame(
            {
                "call": self.price(strike),
                "put": self.price(strike, is_call=False),
                "implied_volatility": self.implied_volatility(strike),
                "delta": self.delta(strike),
                "gamma": self.gamma(strike),
                "density": self.density(strike),
                "distribution": self.distribution(strike),
            },
            index=pd.Index(strike, name="strike"),
        )

    def to_json(self, path: str | Path | None = None, *, quotes: bool = True) -> str:
        """The curve as JSON text, written to `path` if given; no digit is lost.

        Args:
            path: Where to write it.
            quotes: Whether to keep the quotes and how they were fitted, so that the
                curve that is read back is judged and drawn as this one.
        """
        fit = self.fit if quotes else None
        text = json.dumps(
            {
                "format": FORMAT,
                "forward": self.forward,
                "discount_factor": self.discount_factor,
                "time_to_expiry": self.time_to_expiry,
                "expiry": self.expiry,
                "kernel": self.network.kernel,
                "kinks": np.asarray(self.network.kinks).tolist(),
                "weights": np.asarray(self.network.weights).tolist(),
                "bandwidths": np.asarray(self.network.bandwidths).tolist(),
                "fit": to_document(fit),
            }
        )
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    @staticmethod
    def from_json(source: str | Path) -> PriceCurve:
        """Read a curve from JSON text or from a file.

        Raises:
            ValueError: If the text is not that of a curve.
        """
        values = read_document(source, FORMAT, "price curve")
        names = "kinks", "weights", "bandwidths"
        terms = "forward", "discount_factor", "time_to_expiry"
        try:
            arrays = [jnp.array(values[name], float) for name in names]
            return PriceCurve(
                PriceNetwork(*arrays, kernel=values["kernel"]),
                *(float(values[name]) for name in terms),
                expiry=values["expiry"],
                fit=from_document(values.get("fit")),
            )
        except KeyError as error:
            raise ValueError(f"not a price curve: no field {error}") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"not a price curve: {error}") from None

    def plot(
        self, ax: Axes | None = None, *, comparators: Iterable[PriceCurve] = ()
    ) -> Axes:
        """Draw quotes and curve in volatility; returns the Axes."""
        from relu_options.plotting import plot_curve

        return plot_curve(self, ax, comparators=comparators)

    def __repr__(self) -> str:
        label = self.expiry if self.fit is None else self.fit.quotes.label
        name = f"{type(self).__name__}({label + ', ' if self.expiry and label else ''}"
        law = "normal kernel, " if self.kernel == "normal" else ""
        text = (
            f"{name}{law}forward={self.forward:.8g}, "
            f"discount_factor={self.discount_factor:.6g}, "
            f"time_to_expiry={self.time_to_expiry:.5g}, {self._size_in_words()}"
        )
        if self.fit is not None:
            text += f", {len(self.fit.quotes)} quotes{self._report_in_words()}"
        return text + ")"

    def __str__(self) -> str:
        """With how well it fits its quotes, which takes an evaluation at them."""
        text = repr(self)[:-1]
        if self.fit is not None:
            if self.fit.quotes.has_spreads:
                text += f", {self.share_inside:.2%} inside their spread"
                text += self._conflicts_in_words()
            if not np.isnan(self.volatility_error):
                error = volatility_in_words(self.volatility_error, self.kernel)
                text += f", volatility error {error}"
        return text + ")"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What a notebook shows: all that is known of the fit."""
        printer.text(str(self))

    def _size_in_words(self) -> str:
        return f"{self.network.kinks.shape[0]} kinks"

    def _report_in_words(self) -> str:
        """How many rows of the table were at fault, and how many notes there are."""
        if self.report is None:
            return ""
        faults, notes = self.report.faults, len(self.report.notes)
        parts = [
            f"{count} {what}{'' if count == 1 else 's'}{done}"
            for count, what, done in ((faults, "row", " dropped"), (notes, "note", ""))
            if count
        ]
        return f" ({', '.join(parts)}: see `report`)" if parts else ""

    def _conflicts_in_words(self) -> str:
        """How many quotes the curve leaves, by how much, and which trade shows why."""
        conflicts = self.conflicts
        if conflicts.empty:
            return ""
        text = f", {len(conflicts)} left by up to {conflicts['excess'].iloc[0]:.3g}"
        if self.quote_arbitrage.is_arbitrage_free:
            return text
        strikes = "-".join(f"{one:.10g}" for one in self.quote_arbitrage.family_strikes)
        return f"{text} (arbitrage: {self.quote_arbitrage.family} {strikes})"

    @property
    def _mass(self) -> Any:
        weights = self.network.weights
        if isinstance(weights, Tracer):
            return weights.sum()
        return np.asarray(weights).sum().item()

    def _where_put(self, is_call: Any) -> Any:
        """The discount factor where it is a put, which calls have not."""
        calls = boolean(is_call, name="is_call")
        if isinstance(calls, bool):
            return 0.0 if calls else self.discount_factor
        return self.discount_factor * (1.0 - calls)

    def _evaluate(self, formula: Callable, argument: Any, *others: Any) -> Numeric:
        """Apply `formula(network, argument, *others)` to anything that broadcasts."""
        given = (argument, *others)
        if any(isinstance(one, Tracer) for one in (*given, *jax.tree.leaves(self))):
            return formula(self.network, jnp.asarray(argument), *others)
        arrays = [np.asarray(argument, float), *map(np.asarray, others)]
        shape = np.broadcast_shapes(*(one.shape for one in arrays))
        restore = restorer(given, shape)
        columns = [
            (one if one.shape == shape else np.broadcast_to(one, shape)).reshape(-1)
            for one in arrays
        ]
        if not columns[0].size:
            return restore(np.empty(0))
        compiled = partial(_compiled, formula, self.network)
        return restore(by_pieces(compiled, *columns))


def volatility_in_words(error: float, kernel: Law) -> str:
    """An error of volatility: in basis points, or in the unit of a normal volatility.

    Examples:
        >>> volatility_in_words(0.00023, "lognormal")
        '2.30 bp'
        >>> volatility_in_words(0.00023, "normal")
        '0.00023 (normal, in currency)'
    """
    if kernel == "normal":
        return f"{error:.3g} (normal, in currency)"
    return f"{1e4 * error:.2f} bp"


def judged(
    table: pd.DataFrame,
    *,
    fitted_price: np.ndarray,
    fitted_volatility: Any,
    implied_volatility: Any,
    unit: float | np.ndarray,
) -> pd.DataFrame:
    """Quotes with what a fit makes of them, and by how much it is outside of each.

    Args:
        table: Quotes with columns `bid`, `ask` and `mid`; the columns are added to it.
        fitted_price: Currency paid today, of shape `(m,)`.
        fitted_volatility: Annualised, likewise.
        implied_volatility: Of the mids, likewise.
        unit: What prices are compared with, in currency units: the forward, or
            `ExpiryQuotes.unit`; one or one for each quote.

    Returns:
        The table.

    Examples:
        >>> table = pd.DataFrame({"bid": [1.0], "ask": [1.2], "mid": [1.1]})
        >>> judged(table, fitted_price=np.array([1.25]), fitted_volatility=0.21,
        ...        implied_volatility=0.2, unit=100.0)["excess"].round(6).tolist()
        [0.05]
    """
    outside = np.maximum(table["bid"] - fitted_price, fitted_price - table["ask"])
    rounding = 1e-12 * unit
    table["implied_volatility"] = implied_volatility
    table["fitted_price"] = fitted_price
    table["fitted_volatility"] = fitted_volatility
    table["residual"] = fitted_price - table["mid"]
    table["inside"] = ~(outside > rounding)
    table["excess"] = np.where(outside > rounding, outside, 0.0)
    return table


def left_quotes(quotes: pd.DataFrame) -> pd.DataFrame:
    """The judged quotes that a fit is outside of, the largest excess first.

    Examples:
        >>> quotes = pd.DataFrame({"inside": [True, False], "excess": [0.0, 0.1]})
        >>> left_quotes(quotes).index.tolist()
        [1]
    """
    return quotes[~quotes["inside"]].sort_values("excess", ascending=False)


def share_inside(quotes: pd.DataFrame) -> float:
    """Share of the judged quotes with bid and ask that a fit is inside of.

    Examples:
        >>> share_inside(pd.DataFrame({"ask": [1.0, np.nan], "inside": [True, False]}))
        1.0
    """
    return float(quotes.loc[quotes["ask"].notna(), "inside"].mean())


def volatility_error(quotes: pd.DataFrame) -> float:
    """Root mean square of fitted minus quoted volatility; zero bids do not count.

    Examples:
        >>> quotes = pd.DataFrame({"fitted_volatility": [0.21], "bid": [1.0],
        ...                        "implied_volatility": [0.2]})
        >>> round(volatility_error(quotes), 6)
        0.01
    """
    difference = quotes["fitted_volatility"] - quotes["implied_volatility"]
    return float(np.sqrt(np.mean(np.square(difference[quotes["bid"] != 0.0]))))


def read_document(source: str | Path, format_name: str, what: str) -> dict[str, Any]:
    """Read JSON text, or a file of it, that says to be of a format.

    Raises:
        ValueError: If it says otherwise, is no JSON object in UTF-8, or has a digest
            that is not its own.

    Examples:
        >>> read_document('{"format": "a/1", "x": 1}', "a/1", "price curve")["x"]
        1
    """
    try:
        if isinstance(source, str) and source.lstrip().startswith(("{", "[")):
            text = source
        else:
            text = Path(source).read_text(encoding="utf-8")
        values = json.loads(text)
    except ValueError as error:
        raise ValueError(f"not a {what}: not JSON in UTF-8: {error}") from None
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise ValueError(f"not a {what}: a JSON object is needed, not a {kind}")
    if "digest" in values:
        check_seal(text.rstrip().encode())
    if values.get("format") != format_name:
        raise ValueError(
            f"not a {what}: format {values.get('format')!r}, not {format_name!r}"
        )
    return values


def _asset_above(network: PriceNetwork, strike: jax.Array) -> jax.Array:
    """Price of the underlying, paid if it finishes above the strike."""
    return network(strike) + strike * network.survival(strike)


def _factor(strike: Any) -> Any:
    """Strikes as what their results are multiplied by: numbers stay numbers."""
    if isinstance(strike, jax.Array | pd.Series):
        return strike
    array = np.asarray(strike, float)
    return array if array.ndim else array.item()


@partial(jax.jit, static_argnums=0)
def _compiled(formula, network, *arguments):
    return formula(network, *arguments)


_moments = jax.jit(PriceNetwork.moments)


class BlackScholesCurve(PriceCurve):
    """The curve of one volatility for all strikes: a network with one hidden unit.

    Args:
        volatility: Annualised, 0.2 meaning 20%.
        forward: Currency units.
        time_to_expiry: Years.
        discount_factor: Price today of one unit of currency paid at expiry.
        expiry: The date as text.

    Raises:
        ValueError: If an argument is not positive; under JAX transformations prices
            are then NaN.

    Examples:
        >>> flat = BlackScholesCurve(volatility=0.2, forward=100.0, time_to_expiry=0.25)
        >>> print(flat.price(np.array([90.0, 100.0, 110.0])).round(4))
        [10.7124  3.9878  0.9539]
        >>> print(flat.implied_volatility(np.array([90.0, 100.0, 110.0])).round(4))
        [0.2 0.2 0.2]
    """

    def __init__(
        self,
        *,
        volatility: float,
        forward: float,
        time_to_expiry: float,
        discount_factor: float = 1.0,
        expiry: str | None = None,
    ):
        terms = {
            "volatility": volatility,
            "forward": forward,
            "time_to_expiry": time_to_expiry,
            "discount_factor": discount_factor,
        }
        known = {name: v for name, v in terms.items() if not isinstance(v, Tracer)}
        require_positive(**known)
        network = PriceNetwork(
            jnp.array([forward]),
            jnp.array([discount_factor]),
            jnp.array([volatility * time_to_expiry**0.5]),
        )
        super().__init__(network, forward, discount_factor, time_to_expiry, expiry)

    @property
    def volatility(self) -> float:
        """Annualised, of every strike."""
        return float(self.network.bandwidths[0]) / self.time_to_expiry**0.5

    def _size_in_words(self) -> str:
        return f"volatility={self.volatility:.6g}"


def _leaves(curve: PriceCurve) -> tuple[tuple, tuple]:
    """The numbers of a curve, and what comes with them."""
    numbers = curve.network, curve.forward, curve.discount_factor, curve.time_to_expiry
    return numbers, (curve.expiry, curve.fit)


def _from_leaves(kind: type[PriceCurve], attached: tuple, numbers: tuple) -> PriceCurve:
    """The curve again; of a subclass, without its own constructor."""
    curve = object.__new__(kind)
    PriceCurve.__init__(curve, *numbers, *attached)
    return curve


for _kind in (PriceCurve, BlackScholesCurve):
    jax.tree_util.register_pytree_node(_kind, _leaves, partial(_from_leaves, _kind))
