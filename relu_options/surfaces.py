r"""Price surfaces: call prices of all expiries, as one network with a shared layer.

The hidden units are those of a `PriceNetwork` in units of the forward, the same for all
expiries, and every expiry has its own output weights. Order among the expiries at the
kinks is order at every strike, and at every time between them
(`relu_options.surface_law`): `PriceSurface.certificate` holds the numbers that prove
it. `BlackScholesSurface` has the same methods and one hidden unit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property, partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from relu_options import surface_law
from relu_options.arbitrage.surface_certificate import (
    SurfaceCertificate,
    certify_surface,
)
from relu_options.curves import (
    FitReport,
    PriceCurve,
    judged,
    left_quotes,
    read_document,
    share_inside,
    volatility_error,
)
from relu_options.errors import QuoteError
from relu_options.expiry_labels import find_expiry
from relu_options.fit_documents import from_document, to_document
from relu_options.formulas import black_scholes
from relu_options.formulas.elementwise import Numeric, boolean, by_pieces, restorer
from relu_options.market_data.clocks import utc_time, years_between
from relu_options.networks import PriceNetwork
from relu_options.surface_law import Law, LognormalLaw, Marginal, law_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from relu_options.market_data import ExpiryQuotes

FORMAT = "relu_options.PriceSurface/1"
ARRAYS = (
    "kinks",
    "weights",
    "bandwidths",
    "times",
    "forwards",
    "discount_factors",
)
EXPIRIES = (1, 4, 12, 24, 40, 64, 128)  # padded numbers of them
TIMES = 16  # laws at a time: in each, every kink meets every other


@dataclass(frozen=True, eq=False)
class SurfaceFit:
    """How a surface was fitted, and to which quotes.

    Attributes:
        curves: How each expiry was fitted.
        steps: Interior-point steps, of all programmes.
        gap: Relative duality gap reached.
        left_out: Slices that could not be used, each with the reason.

    Examples:
        >>> import relu_options as ro
        >>> surface = ro.fit_surface(ro.bundled_chain())
        >>> len(surface.fit.quotes), surface.fit.gap < 1e-6, surface.fit.left_out
        (8, True, ())
    """

    curves: tuple[FitReport, ...]
    steps: int
    gap: float
    _conflicts: pd.DataFrame = field(repr=False)
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def conflicts(self) -> pd.DataFrame:
        """One row per kink at which the order of two expiries costs something.

        A copy; see `PriceSurface.conflicts`.
        """
        return self._conflicts.copy()

    @property
    def quotes(self) -> list[ExpiryQuotes]:
        """The quotes used, of each expiry."""
        return [one.quotes for one in self.curves]


class Surface:
    """What surfaces have in common: everything read off their law and their terms.

    A time is a number of years; or the label of an expiry, "2025-06-20 PM", or its date
    alone; or, on a surface that knows its quote time, any date or instant: a text, a
    `datetime` or a `pandas.Timestamp`. A date that is no expiry means its close, as in
    `relu_options.market_data.utc_time`. Lists, arrays and Series of these are times
    too. Strikes, times and option types broadcast; results are floats for numbers, a
    Series for Series, JAX arrays for JAX arrays and NumPy arrays otherwise.

    Attributes:
        times: Years to the expiries, of shape `(N,)`, increasing.
        forwards: Currency units, of shape `(N,)`.
        discount_factors: Of shape `(N,)`.
        expiries: Labels of the expiries; empty if they have none.
        spot: Currency units, if known.
        quote_time: When times begin, in UTC, if known.
        law: Laws of the underlying over its forward, at any time.

    Examples:
        >>> surface = BlackScholesSurface(volatilities=0.2, times=[0.5, 1.0],
        ...                               forwards=100.0, quote_time="2025-03-14")
        >>> isinstance(surface, Surface), round(surface.price(100.0, 0.75), 4)
        (True, 6.9013)
        >>> round(surface.price(100.0, "2025-12-12"), 4)  # 273 days and an hour
        6.8923
    """

    times: np.ndarray
    forwards: np.ndarray
    discount_factors: np.ndarray
    expiries: tuple[str, ...]
    spot: float | None
    quote_time: pd.Timestamp | None
    law: Any

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the expiries, or else their times in years."""
        return self.expiries or tuple(f"{time:.6g}" for time in self.times)

    def price(self, strike: Any, time: Any, is_call: Any = True) -> Numeric:
        """Price of a call, or of a put, in currency paid today.

        Args:
            strike: Currency units; broadcasts with `time`.
            time: Years, an expiry, or a date or instant: see `Surface`.
            is_call: True for calls, False for puts.
        """
        forward, discount, value = self._evaluate(surface_law.time_value, strike, time)
        is_call = boolean(is_call, name="is_call")
        gain = np.where(is_call, 1.0, -1.0) * (forward - np.asarray(strike, float))
        price = discount * (forward * value + np.maximum(gain, 0.0))
        return self._restored((strike, time, is_call), price)

    def implied_volatility(self, strike: Any, time: Any) -> Numeric:
        """Black-Scholes volatility, annualised, 0.2 meaning 20%."""
        return self._restored((strike, time), self._volatility(strike, time))

    def _volatility(self, strike: Any, time: Any) -> np.ndarray:
        """Volatility of the price of the option out of the money."""
        forward, _, value = self._evaluate(surface_law.time_value, strike, time)
        moneyness = np.asarray(strike, float) / forward
        return np.asarray(
            black_scholes.implied_volatility(
                price=value,
                forward=1.0,
                strike=moneyness,
                time_to_expiry=self._years(time),
                is_call=moneyness >= 1.0,
            )
        )

    def delta(self, strike: Any, time: Any, is_call: Any = True) -> Numeric:
        r"""Derivative of the price in the forward, the surface moving with it.

        Prices are homogeneous in forward and strike, so that $\partial C / \partial F =
        D (c - k \, \partial c / \partial k)$.
        """
        forward, discount, value = self._evaluate(surface_law.time_value, strike, time)
        above = self._evaluate(Marginal.survival, strike, time)[2]
        moneyness = np.asarray(strike, float) / forward
        call = value + np.maximum(1.0 - moneyness, 0.0) + moneyness * above
        return self._restored(
            (strike, time, is_call),
            discount * (call - np.where(boolean(is_call, "is_call"), 0.0, 1.0)),
        )

    def gamma(self, strike: Any, time: Any) -> Numeric:
        """Second derivative of the price in the forward, the surface moving with it."""
        forward, discount, density = self._evaluate(
            Marginal.second_derivative, strike, time
        )
        moneyness = np.asarray(strike, float) / forward
        return self._restored(
            (strike, time), discount * moneyness**2 * density / forward
        )

    def vega(self, strike: Any, time: Any) -> Numeric:
        """Derivative of the price in its own implied volatility."""
        forward = np.asarray(self.forward(time), float)
        discount = np.asarray(self.discount_factor(time), float)
        root = np.sqrt(self._years(time))
        total = self._volatility(strike, time) * root
        moneyness = np.asarray(strike, float) / forward
        deviation = 0.5 * total - np.log(moneyness) / total
        height = np.exp(-0.5 * deviation**2) / np.sqrt(2.0 * np.pi)
        return self._restored((strike, time), discount * forward * height * root)

    def theta(self, strike: Any, time: Any, is_call: Any = True) -> Numeric:
        r"""Minus the derivative of the price in the time to expiry, per year.

        Forward, discount factor and law of the shorter time are those of the surface:
        with growth rates $f$ of the forward and $r$ of money, for a call (at an expiry,
        where all of these may jump, from the left: what passing time brings)

        $$
        \partial_T C = (f - r) C + D (F \, \partial_T c + f K \, Q(S_T > K)) .
        $$
        """
        forward, discount, rise = self._evaluate(
            surface_law.time_derivative, strike, time, moving=True
        )
        above = self._evaluate(Marginal.survival, strike, time)[2]
        strike_paid = np.asarray(strike, float)
        growth = self._slope(time, np.log(self._first_forward), np.log(self.forwards))
        decay = self._slope(time, 0.0, np.log(self.discount_factors))
        call = np.asarray(self.price(strike, time), float)
        rate = decay * call + discount * forward * rise
        rate = rate + growth * (call + discount * strike_paid * above)
        contract = discount * ((growth + decay) * forward - decay * strike_paid)
        put = np.where(boolean(is_call, "is_call"), 0.0, contract)
        return self._restored((strike, time, is_call), put - rate)

    def density(self, strike: Any, time: Any) -> Numeric:
        """Risk-neutral density of the underlying at a time, per currency unit."""
        forward, _, density = self._evaluate(Marginal.second_derivative, strike, time)
        return self._restored((strike, time), density / forward)

    def distribution(self, strike: Any, time: Any) -> Numeric:
        """Risk-neutral probability of finishing at or below `strike`."""
        *_, below = self._evaluate(Marginal.distribution, strike, time)
        return self._restored((strike, time), below)

    def local_volatility(self, strike: Any, time: Any) -> Numeric:
        r"""Dupire's local volatility, annualised; never negative.

        $$
        \sigma^2(k, T) = \frac{2 \, \partial_T c}{k^2 \, \partial_{kk} c}
        $$

        with prices `c` and strikes `k` in units of the forward, which leaves the carry
        out; at an expiry, where it may jump, that of the time before. Zero or infinite
        where the law has atoms; NaN where the density is too small for a number.

        References:
            Dupire, B. (1994). Pricing with a smile. *Risk*, 7, 18-20.
        """
        *_, variance = self._evaluate(
            surface_law.local_variance, strike, time, moving=True
        )
        return self._restored((strike, time), np.sqrt(variance))

    def variance_swap(self, time: Any) -> Numeric:
        r"""Fair strike of a variance swap, $-\tfrac2T E \log(S_T / F_T)$, annualised.

        A variance, 0.04 meaning 20% squared, of an underlying whose path is continuous.
        NaN unless the time is positive.
        """
        years = self._years(time)
        *_, total = self._evaluate(_log_variance, self.forward(years), years)
        return self._restored((time,), total / years)

    def forward(self, time: Any) -> Numeric:
        """Forward price, in currency; its logarithm is linear between the expiries.

        Before the first it goes to the spot, if that is known; beyond the last it goes
        on at the average rate.
        """
        logs = np.log(self.forwards)
        first = np.log(self._first_forward)
        return self._restored((time,), np.exp(self._linear(time, first, logs)))

    def discount_factor(self, time: Any) -> Numeric:
        """Price today of one unit of currency; its logarithm is linear likewise."""
        logs = np.log(self.discount_factors)
        return self._restored((time,), np.exp(self._linear(time, 0.0, logs)))

    def forward_curve(self) -> pd.Series:
        """Forward by time to expiry, at the expiries."""
        index = pd.Index(self.times, name="time_to_expiry")
        return pd.Series(self.forwards, index, name="forward", copy=True)

    def discount_curve(self) -> pd.Series:
        """Discount factor by time to expiry, at the expiries."""
        index = pd.Index(self.times, name="time_to_expiry")
        return pd.Series(
            self.discount_factors, index, name="discount_factor", copy=True
        )

    def curve(self, time: Any) -> PriceCurve:
        """The price curve of one time: of years, of an expiry, or of a date.

        Raises:
            ValueError: If the time is not positive.
            KeyError: If it is a date that the surface cannot place.
        """
        years = np.asarray(self._years(time), float)
        if not (years > 0.0) or np.isinf(years):
            raise ValueError(f"a curve is of one positive time, in years, not {time!r}")
        forward, discount = self.forward(years), self.discount_factor(years)
        at = np.flatnonzero(self.times == years)
        label = self.expiries[at[0]] if at.size and self.expiries else None
        (law,) = self._laws(years[None], moving=False)
        kinks, weights, bandwidths = (
            jnp.asarray(part[0]) for part in (law.kinks, law.weights, law.bandwidths)
        )
        network = PriceNetwork(kinks * forward, weights * discount, bandwidths)
        fit = self._curve_fit(int(at[0])) if at.size else None
        if fit is not None and label is not None:
            label = label.partition(" ")[0]  # the quotes know how they settle
        terms = float(forward), float(discount), float(years)
        return PriceCurve(network, *terms, label, fit)

    def _curve_fit(self, position: int) -> FitReport | None:
        """How the curve of one expiry was fitted."""
        return None

    def __setstate__(self, state: dict[str, Any]):
        # Copies and pickles of arrays can be written to.
        for value in state.values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
        self.__dict__.update(state)

    def __getitem__(self, key: Any) -> PriceCurve:
        """The curve of an expiry: `surface["2019-06-21"]`, or with "AM" or "PM".

        Raises:
            KeyError: If it is none of the expiries, naming the nearest, or stands for
                several.
        """
        if isinstance(key, Real):
            return self.curve(key)
        return self.curve(self.times[find_expiry(self.labels, key)])

    def __len__(self) -> int:
        return len(self.times)

    def __iter__(self) -> Iterator[PriceCurve]:
        return (self.curve(float(time)) for time in self.times)

    def to_frame(self, moneyness: Iterable[float] | None = None) -> pd.DataFrame:
        """Prices, volatilities, Greeks and probabilities by expiry and strike.

        Args:
            moneyness: Strikes over the forward of each expiry; by default nine, from
                two at-the-money deviations below to two above.
        """
        parts = []
        for label, time in zip(self.labels, self.times, strict=True):
            forward = self.forward(float(time))
            if moneyness is None:
                total = self.implied_volatility(forward, time) * np.sqrt(time)
                steps = np.exp(np.linspace(-2.0, 2.0, 9) * total)
            else:
                steps = np.asarray(list(moneyness), float)
            strike = forward * steps
            columns = {
                "expiry": label,
                "time_to_expiry": time,
                "strike": strike,
                "call": self.price(strike, time),
                "put": self.price(strike, time, is_call=False),
                "implied_volatility": self.implied_volatility(strike, time),
                "local_volatility": self.local_volatility(strike, time),
                "delta": self.delta(strike, time),
                "gamma": self.gamma(strike, time),
                "density": self.density(strike, time),
                "distribution": self.distribution(strike, time),
            }
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True).set_index(["expiry", "strike"])

    def plot(self, kind: str = "smiles", ax: Axes | None = None) -> Axes:
        """Draw the surface; returns the Axes.

        Args:
            kind: "smiles" (volatility by expiry, with quotes), "total_variance" (no two
                lines cross), "implied_volatility" or "local_volatility" (heat maps), or
                "density" (a fan over time).
            ax: Where to draw; by default a new figure.

        Raises:
            ValueError: If there is no such kind.
        """
        from relu_options.plotting import plot_surface

        return plot_surface(self, kind, ax)

    def _years(self, time: Any) -> Any:
        """Years of a time, or of an array of them; of negative ones there is no law."""
        if _is_named(time):
            return self._years_of(time)
        given = np.asarray(time)
        if given.dtype.kind not in "biuf":
            shape, flat = given.shape, np.asarray(time, object).reshape(-1)
            if given.dtype.kind == "M":
                flat = pd.DatetimeIndex(given.reshape(-1))
            years = [self._years_of(x) if _is_named(x) else x for x in flat.tolist()]
            given = np.array(years, float).reshape(shape)
        years = np.asarray(given, float)
        if (years < 0.0).any():
            first = years[years < 0.0][0]
            raise ValueError(
                f"times are years from the quotes on, not {first:.6g}: nothing is "
                "known of the past"
            )
        return years

    def _years_of(self, time: Any) -> float:
        """Years of an expiry by its name, or of a date or an instant."""
        if isinstance(time, np.datetime64):
            time = pd.Timestamp(time)
        if time is pd.NaT:
            raise ValueError("a time is missing: NaT")
        try:
            if not _is_instant(time):
                return float(self.times[find_expiry(self.labels, time)])
            unplaced = KeyError(f"no expiry {time}")
        except KeyError as error:
            unplaced = error
        if isinstance(time, str) and not re.search(r"\d{4}|/\d", time):
            raise unplaced  # "June" is no date without its year
        try:
            instant, _ = utc_time(time)
        except QuoteError:
            raise unplaced from None
        if self.quote_time is None:
            raise KeyError(
                f"{unplaced.args[0]}; other dates take a surface that knows when its "
                "quotes were taken: fit it, or make it, with `quote_time=`"
            )
        years = years_between(self.quote_time, instant)
        if years < 0.0:
            raise ValueError(
                f"{time} is before the quotes, of {self.quote_time:%Y-%m-%d %H:%M} UTC"
            )
        return years

    def _linear(self, time: Any, first: float, logs: np.ndarray) -> np.ndarray:
        """Linear interpolation from `first` at time zero on, and beyond the last."""
        years = self._years(time)
        at = np.interp(years, [0.0, *self.times], [first, *logs])
        beyond = np.maximum(years - self.times[-1], 0.0)
        return at + beyond * (logs[-1] - first) / self.times[-1]

    @property
    def _first_forward(self) -> float:
        """The forward of time zero: the spot, if that is known."""
        return float(self.forwards[0]) if self.spot is None else self.spot

    def _slope(self, time: Any, first: float, logs: np.ndarray) -> np.ndarray:
        """Derivative of `_linear` in the time; at an expiry, from the left."""
        nodes, values = np.array([0.0, *self.times]), np.array([first, *logs])
        slopes = np.diff(values) / np.diff(nodes)
        slopes = np.append(slopes, (values[-1] - first) / nodes[-1])
        at = np.searchsorted(nodes, self._years(time), side="left") - 1
        return slopes[np.clip(at, 0, len(slopes) - 1)]

    @staticmethod
    def _restored(given: tuple, values: Any) -> Numeric:
        """Values as what the caller gave: numbers, arrays or a Series."""
        values = np.asarray(values, float)
        return restorer(given, values.shape)(values.reshape(-1))

    def _evaluate(
        self, formula: Callable, strike: Any, time: Any, *, moving: bool = False
    ) -> tuple:
        """Forward, discount factor and `formula(marginal, moneyness)`, broadcast.

        The marginal of every time is found once. With `moving`, the formula takes the
        marginal, its derivative in time and the moneyness.
        """
        years = self._years(time)
        forward = np.asarray(self.forward(years))
        discount = np.asarray(self.discount_factor(years))
        moneyness = np.asarray(strike, float) / forward
        moneyness, years = np.broadcast_arrays(moneyness, years)
        if not moneyness.size:
            return forward, discount, np.empty(moneyness.shape)
        times, place = np.unique(years.reshape(-1), return_inverse=True)
        parts, structure = jax.tree.flatten(self._laws(times, moving))

        def compiled(place: np.ndarray, moneyness: np.ndarray) -> jax.Array:
            rows = [part[place] for part in parts]
            return _compiled(formula, structure, rows, moneyness)

        values = by_pieces(compiled, place, moneyness.reshape(-1))
        return forward, discount, values.reshape(moneyness.shape)

    def _laws(self, times: np.ndarray, moving: bool) -> tuple[Marginal, ...]:
        """The law at each time; with `moving`, its derivative in time besides."""
        laws = partial(_moving if moving else _marginals, self.law)
        return by_pieces(laws, times, lengths=(TIMES,))


def _is_named(time: Any) -> bool:
    """Whether a time is a text, a date or an instant, rather than a number."""
    return isinstance(time, str | date | np.datetime64)


def _is_instant(time: Any) -> bool:
    """Whether a time is one of the day, which midnight without a zone is not."""
    if not isinstance(time, datetime):
        return False
    stamp = pd.Timestamp(time)
    return stamp.tzinfo is not None or stamp != stamp.normalize()


def _as_quote_time(time: object) -> pd.Timestamp | None:
    """A quote time in UTC, if there is one."""
    return None if time is None else utc_time(time)[0]


def _constant(values: ArrayLike) -> np.ndarray:
    """An array of its own that cannot be written to: what is proved stays as it is."""
    array = np.array(values, float)
    array.setflags(write=False)
    return array


def _checked_spot(spot: float | None) -> float | None:
    if spot is not None and not (isinstance(spot, Real) and 0.0 < spot < np.inf):
        raise ValueError(f"spot must be a positive number or None, not {spot!r}")
    return None if spot is None else float(spot)


@jax.jit
def _marginals(law: Law, times: jax.Array) -> tuple[Marginal]:
    """The law at every time, with a leading axis."""
    return (jax.vmap(law.at)(times),)


@jax.jit
def _moving(law: Law, times: jax.Array) -> tuple[Marginal, Marginal]:
    """The same and its derivative in time."""

    def one(time):
        return jax.jvp(law.at, (time,), (jnp.ones_like(time),))

    return jax.vmap(one)(times)


@partial(jax.jit, static_argnums=(0, 1))
def _compiled(formula, structure, rows, moneyness):
    """A formula at every moneyness, each under its own law, whose parts are rows."""
    return jax.vmap(formula)(*jax.tree.unflatten(structure, rows), moneyness)


def _log_variance(marginal: Marginal, moneyness: jax.Array) -> jax.Array:
    return surface_law.log_variance(marginal)


@dataclass(frozen=True, eq=False)
class PriceSurface(Surface):
    r"""Option prices of all strikes and times, free of static arbitrage.

    At expiry `i` the price of a call over discount factor and forward is
    $c_i(k) = \sum_j w_{ij} \varphi_{h_j}(s_j, k)$ at the strike `k` over the forward.
    Methods take strikes in currency and times as `Surface` says, and broadcast them.
    `repr` computes nothing; `print` says how well the surface fits its quotes.

    Attributes:
        kinks: `s`, in units of the forward, of shape `(n,)`; increasing, and one is 1.
        weights: `w`, probabilities, of shape `(N, n)`.
        bandwidths: `h`, total volatilities, of shape `(n,)`; zeros for sharp kinks.
        times: Years to the expiries, of shape `(N,)`, increasing.
        forwards: Currency units, of shape `(N,)`.
        discount_factors: Of shape `(N,)`.
        expiries: Their labels, such as "2019-06-21 AM"; empty if they have none.
        spot: Currency units, if known: the forward of time zero.
        quote_time: When times begin, in UTC, if known.
        fit: How the surface was fitted; None if it was not.

    Raises:
        ValueError: If shapes differ, a number is not finite, times or kinks do not
            increase, no kink is 1, a kink or bandwidth is negative, or a term is not
            positive. Weights are left to the certificate, but those of a single kink
            must be 1.

    Examples:
        >>> import relu_options as ro
        >>> surface = ro.fit_surface(ro.bundled_chain())
        >>> bool(surface.certificate)
        True
        >>> print(surface.implied_volatility([4500.0, 5000.0], "2025-06-20").round(3))
        [0.225 0.173]
        >>> print(surface.local_volatility(5000.0, [0.1, 0.5, 3.0]) > 0.0)
        [ True  True  True]
    """

    kinks: np.ndarray
    weights: np.ndarray
    bandwidths: np.ndarray
    times: np.ndarray
    forwards: np.ndarray
    discount_factors: np.ndarray
    expiries: tuple[str, ...] = ()
    spot: float | None = None
    quote_time: pd.Timestamp | None = None
    fit: SurfaceFit | None = field(default=None, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "quote_time", _as_quote_time(self.quote_time))
        for name in ARRAYS:
            object.__setattr__(self, name, _constant(getattr(self, name)))
        object.__setattr__(self, "expiries", tuple(self.expiries))
        object.__setattr__(self, "spot", _checked_spot(self.spot))
        self._check_shapes()
        if not self.times.size or not (np.diff(self.times, prepend=0.0) > 0.0).all():
            raise ValueError(f"times must be positive and increase: {self.times[:5]}")
        if not (np.diff(self.kinks) > 0.0).all() or not (self.kinks == 1.0).any():
            raise ValueError("kinks must increase, and one of them must be 1")
        if len(self.kinks) == 1 and not (self.weights == 1.0).all():
            raise ValueError("the weights of a single kink must be 1")
        if self.kinks[0] < 0.0 or self.bandwidths.min() < 0.0:
            raise ValueError("kinks and bandwidths must not be negative")
        if not (self.forwards > 0.0).all() or not (self.discount_factors > 0.0).all():
            raise ValueError("forwards and discount factors must be positive")

    def _check_shapes(self) -> None:
        """Raise if arrays do not belong together, or are not of finite numbers."""
        count, n = self.times.size, self.kinks.size
        shapes = {
            "times": (count,),
            "kinks": (n,),
            "weights": (count, n),
            "bandwidths": (n,),
            "forwards": (count,),
            "discount_factors": (count,),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"{name} must have shape {shape}, not {getattr(self, name).shape}"
                )
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{name} must be finite numbers")
        if self.expiries and len(self.expiries) != count:
            raise ValueError(f"{len(self.expiries)} labels for {count} expiries")

    @cached_property
    def law(self) -> Law:
        """Laws of the underlying over its forward, at any time."""
        if len(self.kinks) == 1:  # one hidden unit at the forward: Black-Scholes
            variance = jnp.full(len(self.times), self.bandwidths[0] ** 2)
            return LognormalLaw(jnp.asarray(self.times), variance)
        # Padded, so that few numbers of expiries are compiled.
        count = len(self.times)
        missing = next((one for one in EXPIRIES if one >= count), count) - count
        weights = np.concatenate([self.weights, self.weights[-1:].repeat(missing, 0)])
        times = np.concatenate([self.times, np.full(missing, np.inf)])
        return law_of(self.kinks, self.bandwidths, weights, times)

    def _laws(self, times: np.ndarray, moving: bool) -> tuple[Marginal, ...]:
        """At expiries the surface's own: nothing is compiled to judge its quotes."""
        if moving or not np.isin(times, self.times).all():
            return super()._laws(times, moving)
        weights = self.weights[np.searchsorted(self.times, times)]
        parts: Any = np.broadcast_arrays(self.kinks, weights, self.bandwidths)
        return (Marginal(*parts),)

    @cached_property
    def certificate(self) -> SurfaceCertificate:
        """The numbers that prove the surface free of static arbitrage."""
        return certify_surface(
            self.kinks,
            self.weights,
            self.bandwidths,
            self.times,
            self.forwards,
            self.discount_factors,
            self.labels,
        )

    @property
    def quotes(self) -> pd.DataFrame:
        """The fitted quotes of all expiries, a copy; see `PriceCurve.quotes`.

        Raises:
            ValueError: If the surface was not fitted to quotes.
        """
        return self._judged.copy()

    @cached_property
    def _judged(self) -> pd.DataFrame:
        """The table of `quotes`, which nobody else has."""
        fit = self._fitted()
        tables = []
        for label, time, one in zip(self.labels, self.times, fit.quotes, strict=True):
            table = one.to_frame()
            table.insert(0, "expiry", label)
            table.insert(1, "time_to_expiry", time)
            tables.append(table)
        table = pd.concat(tables)
        strike = table["strike"].to_numpy()
        is_call = (table["option_type"] == "call").to_numpy()
        years = table["time_to_expiry"].to_numpy()
        forward = np.asarray(self.forward(years))
        quoted = black_scholes.implied_volatility(
            price=table["mid"].to_numpy(),
            forward=forward,
            strike=strike,
            time_to_expiry=years,
            discount_factor=np.asarray(self.discount_factor(years)),
            is_call=is_call,
        )
        return judged(
            table,
            fitted_price=np.asarray(self.price(strike, years, is_call)),
            fitted_volatility=self.implied_volatility(strike, years),
            implied_volatility=quoted,
            unit=forward,
        )

    @property
    def share_inside(self) -> float:
        """Share of the quotes with bid and ask that the surface is inside of."""
        return share_inside(self._judged)

    @property
    def volatility_error(self) -> float:
        """Root mean square of fitted minus quoted volatility."""
        return volatility_error(self._judged)

    @property
    def left_quotes(self) -> pd.DataFrame:
        """The quotes that the surface is outside of, greatest excess first.

        Each is the contract that is listed, at the prices that are quoted.
        """
        fit, quotes = self._fitted(), self.quotes
        ends = np.cumsum([len(one) for one in fit.quotes])[:-1]
        rows = np.split(np.arange(len(quotes)), ends)
        listed = [
            one.as_listed(quotes.iloc[own])
            for one, own in zip(fit.quotes, rows, strict=True)
        ]
        return left_quotes(pd.concat(listed))

    def conflicts(self) -> pd.DataFrame:
        """Where the order of the expiries costs something, dearest pair first.

        A calendar spread that must not have a negative price, at a kink, has a shadow
        price: by how many currency units the excess of a quote with the median
        half-spread would fall (of mids: by how much the weighted residuals), if the
        spread were allowed to cost one currency unit less than nothing. A stale expiry
        is in the first pair; pairs beside it carry a part of its price.

        Returns:
            One row per kink with a shadow price: `earlier`, `later` (labels),
            `strike` (currency, of the later expiry), `shadow_price`, and `pair_total`,
            the sum over the kinks of the pair, by which the pairs are ranked.

        Raises:
            ValueError: If the surface was not fitted to quotes.
        """
        return self._fitted().conflicts

    def _fitted(self) -> SurfaceFit:
        if self.fit is None:
            raise ValueError("the surface has no quotes: it was not fitted to any")
        return self.fit

    def _curve_fit(self, position: int) -> FitReport | None:
        return None if self.fit is None else self.fit.curves[position]

    def to_json(self, path: str | Path | None = None, *, quotes: bool = True) -> str:
        """The surface as JSON text, written to `path` if given; no digit is lost.

        It holds the certificate, so that `python -m relu_options.verify` proves it.

        Args:
            path: Where to write it.
            quotes: Whether to keep the quotes and how they were fitted, so that the
                surface that is read back is judged and drawn as this one.
        """
        fit = self.fit if quotes else None
        began = self.quote_time
        text = json.dumps(
            {
                "format": FORMAT,
                "expiries": list(self.expiries),
                "times": self.times.tolist(),
                "forwards": self.forwards.tolist(),
                "discount_factors": self.discount_factors.tolist(),
                "spot": self.spot,
                "quote_time": None if began is None else began.isoformat(),
                "kinks": self.kinks.tolist(),
                "bandwidths": self.bandwidths.tolist(),
                "weights": self.weights.tolist(),
                "certificate": self.certificate.to_dict(),
                "fit": to_document(fit),
            }
        )
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    @staticmethod
    def from_json(source: str | Path) -> PriceSurface:
        """Read a surface from JSON text or from a file.

        Raises:
            ValueError: If the text is not that of a surface.
        """
        values = read_document(source, FORMAT, "price surface")
        try:
            arrays = [np.asarray(values[name], float) for name in ARRAYS]
            expiries, spot = values["expiries"], values["spot"]
            quote_time = values.get("quote_time")
            fit = from_document(values.get("fit"))
        except KeyError as error:
            raise ValueError(f"not a price surface: no field {error}") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"not a price surface: {error}") from None
        if not isinstance(expiries, list) or any(type(x) is not str for x in expiries):
            raise ValueError("not a price surface: expiries must be a list of texts")
        return PriceSurface(
            *arrays,
            expiries=tuple(expiries),
            spot=spot,
            quote_time=quote_time,
            fit=fit,
        )

    def __repr__(self) -> str:
        ends = (self.expiries or tuple(f"{time:.4g} years" for time in self.times))[
            :: max(len(self.times) - 1, 1)
        ]
        count = len(self.times)
        span = f"{count} expiries from {ends[0]} to {ends[-1]}"
        if count == 1:
            span = f"1 expiry, {ends[0]}"
        text = f"PriceSurface({span}, {len(self.kinks)} kinks"
        if self.fit is None:
            return text + ")"
        text += f", {sum(map(len, self.fit.quotes)):,} quotes"
        if self.fit.left_out:
            text += f" ({len(self.fit.left_out)} slices left out: see `fit.left_out`)"
        return text + ")"

    def __str__(self) -> str:
        """With how well it fits its quotes, which takes an evaluation at them."""
        text = repr(self)[:-1]
        if self.fit is not None:
            if self._judged["ask"].notna().any():
                text += f", {self.share_inside:.2%} inside their spread"
            if not np.isnan(self.volatility_error):
                text += f", volatility error {1e4 * self.volatility_error:.2f} bp"
            conflicts = self.fit.conflicts
            if len(conflicts) and not self._judged["inside"].all():
                worst = conflicts.iloc[0]
                pair = f"{worst['earlier']} / {worst['later']}"
                text += f", dearest calendar order {pair}"
        return text + ")"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What a notebook shows: all that is known of the fit."""
        printer.text(str(self))


@dataclass(frozen=True, eq=False)
class BlackScholesSurface(Surface):
    """One volatility for all strikes: flat, or a term structure.

    Args:
        volatilities: Annualised, one number or of shape `(N,)`; total variances must
            not fall with time.
        times: Years, of shape `(N,)`, increasing.
        forwards: Currency units, one number or of shape `(N,)`.
        discount_factors: One number or of shape `(N,)`.
        expiries: Labels of the times.
        spot: Currency units, if known.
        quote_time: When the times begin, if known; see
            `relu_options.market_data.utc_time`.

    Raises:
        ValueError: If a number is not positive, times do not increase, or a total
            variance falls, which is a calendar arbitrage.

    Examples:
        >>> surface = BlackScholesSurface(volatilities=[0.2, 0.22], times=[0.5, 1.0],
        ...                               forwards=100.0)
        >>> print(surface.implied_volatility([80.0, 100.0], 1.0).round(10))
        [0.22 0.22]
        >>> round(surface.local_volatility(90.0, 0.75), 6)
        0.238328
    """

    volatilities: np.ndarray
    times: np.ndarray
    forwards: np.ndarray
    discount_factors: np.ndarray
    expiries: tuple[str, ...] = ()
    spot: float | None = None
    quote_time: pd.Timestamp | None = None

    def __init__(
        self,
        *,
        volatilities: ArrayLike,
        times: ArrayLike,
        forwards: ArrayLike,
        discount_factors: ArrayLike = 1.0,
        expiries: Sequence[str] = (),
        spot: float | None = None,
        quote_time: object = None,
    ):
        years = _constant(np.atleast_1d(np.asarray(times, float)))
        values = {
            "volatilities": volatilities,
            "forwards": forwards,
            "discount_factors": discount_factors,
        }
        for name, value in values.items():
            array = _constant(np.broadcast_to(np.asarray(value, float), years.shape))
            if not ((array > 0.0) & np.isfinite(array)).all():
                raise ValueError(f"{name} must be positive, not {value!r}")
            object.__setattr__(self, name, array)
        if not (np.diff(years, prepend=0.0) > 0.0).all():
            raise ValueError(f"times must be positive and increase: {years[:5]}")
        falls = np.flatnonzero(np.diff(self.volatilities**2 * years) < 0.0)
        if falls.size:
            raise ValueError(
                f"total variance falls from time {years[falls[0]]:.6g} to "
                f"{years[falls[0] + 1]:.6g}: a calendar arbitrage"
            )
        object.__setattr__(self, "times", years)
        object.__setattr__(self, "expiries", tuple(expiries))
        object.__setattr__(self, "spot", _checked_spot(spot))
        object.__setattr__(self, "quote_time", _as_quote_time(quote_time))

    @cached_property
    def law(self) -> Law:
        """Lognormal laws whose total variance is linear between the times."""
        variance = self.volatilities**2 * self.times
        return LognormalLaw(jnp.asarray(self.times), jnp.asarray(variance))

    def __repr__(self) -> str:
        low, high = self.volatilities.min(), self.volatilities.max()
        text = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        return f"BlackScholesSurface(volatility {text}, {len(self.times)} times)"
