r"""Prices, volatilities and Greeks of European options, each once for two models.

At expiry the underlying is lognormal (`black_scholes`: forward and strike are positive,
and volatility is annualised, 0.2 meaning 20%) or normal (`bachelier`: forward and
strike are of either sign, and volatility is in currency units per square root of a
year). The market is given in one of two forms:

* the *forward form*, `forward` and `discount_factor` (1 unless given);
* the *spot form*, `spot`, `rate` and `dividend_yield` (continuous, 0 unless given),
  where the forward is $S e^{(r - q) T}$ and the discount factor $e^{-r T}$.

Every Greek is the plain partial derivative of `price` with the other arguments of the
form in use held fixed: vega is per 1.00 of volatility, theta and charm per year that
passes. All functions broadcast, and give a float for numbers, a Series for Series, and
arrays for arrays; under `jax.jit`, `jax.vmap` and `jax.grad` (to second order, by exact
rules) they are JAX functions like any other.

On this page a quantity's formula stands below the docstring that states it, in letters
that `price` explains. It is made of the model's kernels, which know forward, strike and
total volatility only.
"""

import enum
import functools
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import NamedTuple, TypeVar, Unpack

import jax
import jax.numpy as jnp

from relu_options.formulas.elementwise import (
    ArrayLike,
    Numeric,
    Shortcut,
    boolean,
    elementwise,
)
from relu_options.formulas.fusible import over, square_root
from relu_options.formulas.market import Market, MarketArguments, market_in_use

__all__ = ["Greeks", "MarketArguments", "OptionModel", "QuoteStatus"]


class QuoteStatus(enum.IntEnum):
    """What the price of an option says about its volatility.

    Examples:
        >>> QuoteStatus(1).name
        'TOO_LOW'
    """

    FOUND = 0
    """The price lies strictly between its bounds."""
    TOO_LOW = 1
    """Below the intrinsic value; the volatility is NaN."""
    ZERO_TIME_VALUE = 2
    """Exactly the intrinsic value; the volatility is zero."""
    TOO_HIGH = 3
    """At the upper bound, where the volatility is infinite, or above it (NaN)."""
    UNDEFINED = 4
    """An argument is NaN or outside its domain; the volatility is NaN."""


class Greeks(NamedTuple):
    """Price and derivatives of an option, named and signed as the functions are.

    Examples:
        >>> from relu_options import black_scholes
        >>> greeks = black_scholes.greeks(forward=100.0, strike=100.0, volatility=0.2,
        ...                               time_to_expiry=0.25)
        >>> round(greeks.price, 4), round(greeks.delta, 4)
        (3.9878, 0.5199)
    """

    price: Numeric
    delta: Numeric
    gamma: Numeric
    vega: Numeric
    theta: Numeric
    rho: Numeric
    vanna: Numeric
    volga: Numeric
    charm: Numeric


_Function = TypeVar("_Function", bound=Callable)


def short_signature(function: _Function) -> _Function:
    """`function`, whose `help` shows names and defaults in one line.

    `ArrayLike` would be spelled out there, for each argument anew. Editors and type
    checkers read the source, and see the annotations as they stand.
    """
    signature = inspect.signature(function)
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    function.__signature__ = inspect.Signature(bare)  # type: ignore[attr-defined]
    return function


@dataclass(frozen=True, eq=False)  # itself a key of what is compiled
class OptionModel:
    """Everything about an option, of one model of the underlying.

    Attributes:
        name: Its module in `relu_options.formulas`, where it is `model`.
        kernels: Module of its undiscounted formulas, by name: `undiscounted_price`,
            `implied_total_volatility`, `distances_to_bounds`, `forward_delta`,
            `strike_delta`, `gamma`, `vega`, `vanna`, `volga`, `density`,
            `rate_sensitivity` and `strike_from_deviation`.
        faster_volatility: What to try before `implied_volatility`.
        faster_greeks: What to try before `greeks`.

    Examples:
        >>> from relu_options import bachelier, black_scholes
        >>> option = dict(forward=100.0, strike=110.0, time_to_expiry=0.25)
        >>> for module, volatility in ((black_scholes, 0.2), (bachelier, 20.0)):
        ...     print(round(module.model.price(**option, volatility=volatility), 4))
        0.9539
        0.8332
    """

    name: str
    kernels: ModuleType = field(repr=False)
    faster_volatility: Shortcut | None = field(default=None, repr=False)
    faster_greeks: Shortcut | None = field(default=None, repr=False)

    def __reduce__(self):
        """Copies are the model itself: a module of kernels cannot be copied."""
        return pkgutil.resolve_name, (f"relu_options.formulas.{self.name}:model",)

    # Prices and volatilities

    @short_signature
    def price(
        self,
        *,
        strike: ArrayLike,
        time_to_expiry: ArrayLike,
        volatility: ArrayLike,
        is_call: ArrayLike = True,
        **market: Unpack[MarketArguments],
    ) -> Numeric:
        r"""Price of a European call or put.

        Lognormal: $D (\pm F N(\pm d_1) \mp K N(\pm d_2))$, where
        $d_{1,2} = \log(F / K) / v \pm v / 2$.
        Normal: $D v (n(d) \pm d N(\pm d))$, where $d = (F - K) / v$.

        Upper signs are for calls. $K$ is the strike, $v = \sigma \sqrt{T}$ the total
        volatility, $D$ the discount factor, $F = S G$ the forward: $G$ is
        $e^{(r - q) T}$ in the spot form and 1 in the forward form; $n$ and $N$ are the
        density and the distribution of the standard normal law.

        The out-of-the-money option of the strike is computed first, by a formula that
        does not cancel, and intrinsic value is added to it: a price keeps its relative
        accuracy however far out of the money, down to about 1e-300.

        Args:
            strike: Strike, in currency units; of either sign in the normal model.
            time_to_expiry: Time to expiry, in years.
            volatility: Annualised lognormal volatility, 0.2 meaning 20%, or normal
                volatility, in currency units per square root of a year.
            is_call: True for calls, False for puts.
            **market: `forward` and `discount_factor`, or `spot`, `rate` and
                `dividend_yield`; see `MarketArguments`.

        Returns:
            Price in currency units paid today. Exactly the discounted intrinsic value
            at zero volatility or zero time; at infinite volatility the discounted
            forward (calls) or strike (puts) of the lognormal model, and infinite of the
            normal one; the limits in between at a strike of zero (lognormal) or
            infinity. NaN where an argument is NaN, where volatility or time is
            negative, and where a lognormal forward or strike is.

        Raises:
            ValueError: If neither or both forms of the market are given, or `is_call`
                is not boolean.

        Examples:
            Hull's example: a stock at 42 and an interest rate of 10%.

            >>> from relu_options import bachelier, black_scholes
            >>> option = dict(strike=40.0, time_to_expiry=0.5, volatility=0.2)
            >>> round(black_scholes.price(spot=42.0, rate=0.1, **option), 2)
            4.76
            >>> put = dict(option, is_call=False)
            >>> round(black_scholes.price(spot=42.0, rate=0.1, **put), 2)
            0.81

            A call 37 deviations out of the money still has its digits.

            >>> far = dict(forward=1.0, strike=40.0, time_to_expiry=1.0, volatility=0.1)
            >>> print(f"{black_scholes.price(**far):.9e}")
            5.975094061e-300

            At the money a normal option is worth volatility times the root of
            T / (2 pi).

            >>> round(bachelier.price(forward=-0.5, strike=-0.5, time_to_expiry=0.25,
            ...                       volatility=2.0), 6)
            0.398942

        References:
            Black, F. and Scholes, M. (1973). The pricing of options and corporate
            liabilities. *Journal of Political Economy*, 81(3), 637-654.
            Black, F. (1976). The pricing of commodity contracts. *Journal of Financial
            Economics*, 3, 167-179.
            Bachelier, L. (1900). Theorie de la speculation. *Annales scientifiques de
            l'Ecole normale superieure*, 17, 21-86.
        """
        return self._evaluate(
            self._price, time_to_expiry, strike, volatility, is_call, market
        )

    def _price(self, market, time_to_expiry, strike, volatility, is_call):
        v = volatility * root_of_time(time_to_expiry)
        return market.discount_factor * self.kernels.undiscounted_price(
            market.forward, strike, v, is_call
        )

    @short_signature
    def implied_volatility(
        self,
        *,
        price: ArrayLike,
        strike: ArrayLike,
        time_to_expiry: ArrayLike,
        is_call: ArrayLike = True,
        return_status: bool = False,
        **market: Unpack[MarketArguments],
    ) -> Numeric:
        r"""Volatility at which the price of the model equals a quoted price.

        `black_scholes.implied_volatility` and `bachelier.implied_normal_volatility`.
        The price rises with volatility from the discounted intrinsic value: in the
        lognormal model to the discounted forward (calls) or strike (puts), in the
        normal model without bound. In between the volatility is unique. It is found
        without iteration: a polynomial guess good to three digits (normal: four), and
        one step of sixth (normal: fourth) order in the logarithms of price and
        volatility. The rounding error is about that of the result, 2.2e-16 of it.

        Args:
            price: Option price, in currency units paid today.
            strike: Strike, in currency units; of either sign in the normal model.
            time_to_expiry: Time to expiry, in years; positive.
            is_call: True for calls, False for puts.
            return_status: Whether to return a `QuoteStatus` beside each volatility.
            **market: `forward` and `discount_factor`, or `spot`, `rate` and
                `dividend_yield`; see `MarketArguments`.

        Returns:
            Annualised lognormal volatility, 0.2 meaning 20%, or normal volatility, in
            currency units per square root of a year: zero where `price` is exactly the
            intrinsic value, infinite where it is exactly the upper bound, NaN beyond
            the bounds, where an argument is NaN, and where strike or forward is
            infinite, a lognormal one is zero, or time is not positive. Its derivatives
            are zero where it is not a positive number, so that masking a bad quote
            masks it in gradients too. With `return_status` a pair of volatilities and
            statuses.

        Raises:
            ValueError: If neither or both forms of the market are given, or `is_call`
                is not boolean.

        Examples:
            Volatilities read back from prices at 20%.

            >>> import numpy as np
            >>> from relu_options import bachelier, black_scholes
            >>> options = dict(forward=100.0, strike=np.array([80.0, 100.0, 120.0]),
            ...                time_to_expiry=0.5, discount_factor=0.98)
            >>> quotes = black_scholes.price(**options, volatility=0.2)
            >>> found = black_scholes.implied_volatility(price=quotes, **options)
            >>> print(np.round(found, 12))
            [0.2 0.2 0.2]

            A call struck at 90 is worth at least its intrinsic value of 10.

            >>> below_intrinsic = dict(price=9.5, forward=100.0, strike=90.0)
            >>> black_scholes.implied_volatility(
            ...     **below_intrinsic, time_to_expiry=0.5, return_status=True)
            (nan, <QuoteStatus.TOO_LOW: 1>)

            Forwards of either sign have normal volatilities.

            >>> option = dict(forward=-0.5, strike=0.25, time_to_expiry=0.25)
            >>> quote = bachelier.price(**option, volatility=2.0)
            >>> round(bachelier.implied_normal_volatility(price=quote, **option), 12)
            2.0

        Notes:
            The search runs on the out-of-the-money option of the same strike, whose
            price is the time value, and on its distance to the upper bound once it is
            worth more than half of it. Both are exact differences of the arguments.
            What accuracy remains is that of the quote: far from the money, a rounded
            price no longer determines its volatility. Differences of price and bound
            below 2.2e-308, which processors flush, count as zero.

        References:
            Jaeckel, P. (2015). Let's be rational. *Wilmott*, 2015(75), 40-53.
            Jaeckel, P. (2017). Implied normal volatility. *Wilmott*, 2017(90), 52-54.
        """
        quotes = time_to_expiry, price, strike, is_call, market
        volatility = self._evaluate(
            self._implied_volatility, *quotes, self.faster_volatility
        )
        if not return_status:
            return volatility
        status = self._evaluate(self._quote_status, *quotes)
        return volatility, QuoteStatus(status) if isinstance(status, int) else status

    def _implied_volatility(self, market, time_to_expiry, price, strike, is_call):
        v = self.kernels.implied_total_volatility(
            price / market.discount_factor, market.forward, strike, is_call
        )
        return annualised(v, market, time_to_expiry)

    def _quote_status(self, market, time_to_expiry, price, strike, is_call):
        undiscounted = price / market.discount_factor
        time_value, complement, defined = self.kernels.distances_to_bounds(
            undiscounted, market.forward, strike, is_call
        )
        status = jnp.where(
            time_value == 0.0, QuoteStatus.ZERO_TIME_VALUE, QuoteStatus.FOUND
        )
        status = jnp.where(complement <= 0.0, QuoteStatus.TOO_HIGH, status)
        status = jnp.where(time_value < 0.0, QuoteStatus.TOO_LOW, status)
        defined &= _can_be_annualised(market, time_to_expiry)
        return jnp.where(defined, status, QuoteStatus.UNDEFINED)

    # Greeks

    @short_signature
    def delta(
        self,
        *,
        strike: ArrayLike,
        time_to_expiry: ArrayLike,
        volatility: ArrayLike,
        is_call: ArrayLike = True,
        **market: Unpack[MarketArguments],
    ) -> Numeric:
        r"""Derivative of the price in `spot`, or in `forward` in the forward form.

        Lognormal: $\pm D G N(\pm d_1)$. Normal: $\pm D G N(\pm d)$.

        Arguments and letters are those of `price`; units of the option per unit of the
        underlying. At expiry and without volatility $\pm D G$ in the money, zero out of
        it and half of the former at it.

        Examples:
            >>> from relu_options import bachelier, black_scholes
            >>> option = dict(strike=50.0, time_to_expiry=0.3846, volatility=0.2)
            >>> round(black_scholes.delta(spot=49.0, rate=0.05, **option), 3)  # Hull
            0.522
            >>> option = dict(strike=3.0, time_to_expiry=0.5, volatility=1.6)
            >>> round(bachelier.delta(forward=2.0, **option), 4)
            0.1884
        """
        return self._evaluate(
            self._delta, time_to_expiry, strike, volatility, is_call, market
        )

    def _delta(self, market, time_to_expiry, strike, volatility, is_call):
        v = volatility * root_of_time(time_to_expiry)
        undiscounted = self.kernels.forward_delta(market.forward, strike, v, is_call)
        return market.discount_factor * market.growth * undiscounted

    @short_signature
    def gamma(
        self,
        *,
        strike: ArrayLike,
        time_to_expiry: ArrayLike,
        volatility: ArrayLike,
        is_call: ArrayLike = True,
        **market: Unpack[MarketArguments],
    ) -> Numeric:
        r"""Second derivative of the price in `spot`, in the forward form in `forward`.

        Lognormal: $D G^2 n(d_1) / (F v)$. Normal: $D G^2 n(d) / v$.

        Arguments and letters are those of `price`; the same for calls and puts; per
        unit of the underlying squared. At expiry and without volatility infinite at the
        money and zero elsewhere.

        Examples:
            >>> from relu_options import bachelier, black_scholes
            >>> option = dict(strike=50.0, time_to_expiry=0.3846, volatility=0.2)
            >>> round(black_scholes.gamma(spot=49.0, rate=0.05, **option), 3)  # Hull
            0.066
            >>> option = dict(strike=3.0, time_to_expiry=0.5, volatility=1.6)
            >>> round(bachelier.gamma(forward=2.0, **option), 4)
            0.2386
        """
        return self._evaluate(
            self._gamma, time_to_expiry, strike, volatility, is_call, market
        )

    def _gamma(self, market, time_to_expiry, strike, volatility, is_call):
        v = volatility * root_of_time(time_to_expiry)
        undiscounted = self.kernels.gamma(market.forward, strike, v)
        return market.discount_factor * market.growth * market.growth * undiscounted

    @short_signature
    def vega(
        self,
        *,
        strike: ArrayLike,
        time_to_expiry: ArrayLike,
        volatility: ArrayLike,
        is_call: ArrayLike = True,
        **market: Unpack[MarketArguments],
    ) -> Numeric:
        r"""Derivative of the price in volatility, per 1.00 of it.

        Lognormal: $D F \sqrt{T} n(d_1)$. Normal: $D \sqrt{T} n(d)$.

        Arguments and letters are those of `price`; the same for calls and puts. Zero at
        expiry, and without volatility unless at the money.

        Examples:
            >>> from relu_options import bachelier, black_scholes
            >>> option = dict(strike=50.0, time_to_expiry=0.3846, volatility=0.2)
            >>> round(black_scholes.vega(spot=49.0, rate=0.05, **option), 1)  # Hull
            12.1
            >>> option = dict(strike=3.0, time_to_expiry=0.5, volatility=1.6)
            >>> round(bachelier.vega(forward=2.0, **option), 4)
            0.1909
        """
        return self._evaluate(
            self._vega, time_to_expiry, strike, volatility, is_call, market
        )

    def _vega(self, market, time_to_expiry, strike, volatility, is_call):
        root = root_of_time(time_to_expiry)
        undiscounted = self.kernels.vega(market.forward, strike, volatility * root)
        return market.discount_factor * root * undiscounted

    @short_signature
    def theta(
        self,
        *,
        strike: ArrayLike,
        time_to_expiry: ArrayLike,
        volatility: ArrayLike,
        is_call: ArrayLike = True,
        **market: Unpack[MarketArguments],
    ) -> Numeric:
        r"""Change of the price per year that passes: minus its derivative in time.

        Lognormal: $-D F n(d_1) \sigma / (2 \sqrt{T})$.
        Normal: $-D n(d) \sigma / (2 \sqrt{T})$.
        In the spot form $r P - (r - q) S \Delta$ is added.

        In the spot form spot, rate and dividend yield stay as they are; in the forward
        form forward and discount factor do. Arguments and letters are those of `price`.
        Minus infinity at the money on the day of expiry.

        Examples:
            >>> from relu_options import bachelier, black_scholes
            >>> option = dict(strike=50.0, time_to_expiry=0.3846, volatility=0.2)
            >>> round(black_scholes.theta(spot=49.0, rate=0.05, **option), 2)  # Hull
            -4.31
            >>> option = dict(strike=3.0, time_to_expiry=0.5, volatility=1.6)
            >>> round(bachelier.theta(forward=2.0, **option), 4)
            -0.3054
        """
        return self._evaluate(
            self._theta, time_to_expiry, strike, volatility, is_call, market
        )

    def _theta(self, market, time_to_expiry, strike, volatility, is_call):
        root = root_of_time(time_to_expiry)
        option = market.forward, strike, volatility * root
        change = -over(0.5 * volatility * self.kernels.vega(*option), root)
        if market.from_spot:
            change += market.rate * self.kernels.undiscounted_price(*option, is_call)
            slope = self.kernels.forward_delta(*option, is_call)
            change -= market.carry * market.forward * slope
        return market.discount_factor * change

    @short_signature
    def rho(
        self,
        *,
        strike: ArrayLike,
        time_to_expiry: ArrayLike,
        volatility: ArrayLike,
        is_call: ArrayLike = True,
        **market: Unpack[MarketArguments],
    ) -> Numeric:
        r"""Derivative of the price in the interest rate, per 1.00 of it.

        Spot form, lognormal: $\pm T D K N(\pm d_2)$. Normal: $T (S \Delta - P)$.
        Forward form: $-T P$.

        In the spot form the forward moves with the rate. In the forward form it stays,
        and the rate acts through the discount factor alone. Arguments and letters are
        those of `price`. Zero at expiry.

        Examples:
            >>> from relu_options import bachelier, black_scholes
            >>> option = dict(strike=50.0, time_to_expiry=0.3846, volatility=0.2)
            >>> round(black_scholes.rho(spot=49.0, rate=0.05, **option), 2)  # Hull
            8.91
            >>> option = dict(strike=3.0, time_to_expiry=0.5, volatility=1.6)
            >>> round(bachelier.rho(forward=2.0, **option), 4)
            -0.0585
        """
        return self._evaluate(
            self._rho, time_to_expiry, strike, volatility, is_call, market
        )

    def _rho(self, market, time_to_expiry, strike, volatility, is_call):
        v = volatility * root_of_time(time_to_expiry)
        option = market.forward, strike, v, is_call
        change = -self.kernels.undiscounted_price(*option)
        if market.from_spot:
            change = self.kernels.rate_sensitivity(*option)
        return time_to_expiry * market.discount_factor * change

    @short_signature
    def vanna(
        self,
        *,
        strike: ArrayLike,
        time_to_expiry: ArrayLike,
        volatility: ArrayLike,
        is_call: ArrayLike = True,
        **market: Unpack[MarketArguments],
    ) -> Numeric:
        r"""Derivative of delta in volatility, and of vega in `spot` or `forward`.

        Lognormal: $-D G \sqrt{T} n(d_1) d_2 / v$. Normal: $-D G \sqrt{T} n(d) d / v$.

        Arguments and letters are those of `price`; the same for calls and puts. Zero at
        expiry and without volatility.

        Examples:
            >>> from relu_options import bachelier, black_scholes
            >>> option = dict(strike=50.0, time_to_expiry=0.3846, volatility=0.2)
            >>> round(black_scholes.vanna(spot=49.0, rate=0.05, **option), 4)
            0.1391
            >>> option = dict(strike=3.0, time_to_expiry=0.5, volatility=1.6)
            >>> round(bachelier.vanna(forward=2.0, **option), 4)
            0.1491
        """
        return self._evaluate(
            self._vanna, time_to_expiry, strike, volatility, is_call, market
        )

    def _vanna(self, market, time_to_expiry, strike, volatility, is_call):
        root = root_of_time(time_to_expiry)
        undiscounted = self.kernels.vanna(market.forward, strike, volatility * root)
        return market.discount_factor * market.growth * root * undiscounted

    @short_signature
    def volga(
        self,
        *,
        strike: ArrayLike,
        time_to_expiry: ArrayLike,
        volatility: ArrayLike,
        is_call: ArrayLike = True,
        **market: Unpack[MarketArguments],
    ) -> Numeric:
        r"""Second derivative of the price in volatility.

        Lognormal: $D F T n(d_1) d_1 d_2 / v$. Normal: $D T n(d) d^2 / v$.

        Arguments and letters are those of `price`; the same for calls and puts. Zero at
        expiry and without volatility.

        Examples:
            >>> from relu_options import bachelier, black_scholes
            >>> option = dict(strike=50.0, time_to_expiry=0.3846, volatility=0.2)
            >>> round(black_scholes.volga(spot=49.0, rate=0.05, **option), 4)
            -0.2291
            >>> option = dict(strike=3.0, time_to_expiry=0.5, volatility=1.6)
            >>> round(bachelier.volga(forward=2.0, **option), 4)
            0.0932
        """
        return self._evaluate(
            self._volga, time_to_expiry, strike, volatility, is_call, market
        )

    def _volga(self, market, time_to_expiry, strike, volatility, is_call):
        v = volatility * root_of_time(time_to_expiry)
        undiscounted = self.kernels.volga(market.forward, strike, v)
        return market.discount_factor * time_to_expiry * undiscounted

    @short_signature
    def charm(
        self,
        *,
        strike: ArrayLike,
        time_to_expiry: ArrayLike,
        volatility: ArrayLike,
        is_call: ArrayLike = True,
        **market: Unpack[MarketArguments],
    ) -> Numeric:
        r"""Change of delta per year that passes: minus its derivative in time.

        Lognormal: $D G n(d_1) d_2 / (2 T)$. Normal: $D G n(d) d / (2 T)$.
        In the spot form $q \Delta - (r - q) S \Gamma$ is added.

        What is held fixed is said at `theta`. Arguments and letters are those of
        `price`. At expiry and without volatility zero but for the addition, which at
        the money is infinite as gamma is, and NaN where $r = q$.

        Examples:
            >>> from relu_options import bachelier, black_scholes
            >>> option = dict(strike=50.0, time_to_expiry=0.3846, volatility=0.2)
            >>> round(black_scholes.charm(spot=49.0, rate=0.05, **option), 4)
            -0.1968
            >>> option = dict(strike=3.0, time_to_expiry=0.5, volatility=1.6)
            >>> round(bachelier.charm(forward=2.0, **option), 4)
            -0.2386
        """
        return self._evaluate(
            self._charm, time_to_expiry, strike, volatility, is_call, market
        )

    def _charm(self, market, time_to_expiry, strike, volatility, is_call):
        v = volatility * root_of_time(time_to_expiry)
        option = market.forward, strike, v
        change = over(0.5 * v * self.kernels.vanna(*option), time_to_expiry)
        if market.from_spot:
            change += market.carry * market.forward * self.kernels.gamma(*option)
            slope = self.kernels.forward_delta(*option, is_call)
            change += (market.carry - market.rate) * slope
        return -market.discount_factor * market.growth * change

    @short_signature
    def greeks(
        self,
        *,
        strike: ArrayLike,
        time_to_expiry: ArrayLike,
        volatility: ArrayLike,
        is_call: ArrayLike = True,
        **market: Unpack[MarketArguments],
    ) -> Greeks:
        """Price and all Greeks at once; lognormal, at about the cost of three prices.

        Arguments and letters are those of `price`; each field is what the function of
        its name returns.

        Examples:
            >>> from relu_options import bachelier, black_scholes
            >>> option = dict(strike=50.0, time_to_expiry=0.3846, volatility=0.2)
            >>> all_at_once = black_scholes.greeks(spot=49.0, rate=0.05, **option)
            >>> round(all_at_once.delta, 3), round(all_at_once.theta, 2)
            (0.522, -4.31)
            >>> option = dict(strike=3.0, time_to_expiry=0.5, volatility=1.6)
            >>> all_at_once = bachelier.greeks(forward=2.0, **option)
            >>> round(all_at_once.delta, 4), round(all_at_once.gamma, 4)
            (0.1884, 0.2386)
        """
        option = time_to_expiry, strike, volatility, is_call
        return self._evaluate(self._greeks, *option, market, self.faster_greeks)

    def _greeks(self, *option) -> Greeks:
        return Greeks(
            price=self._price(*option),
            delta=self._delta(*option),
            gamma=self._gamma(*option),
            vega=self._vega(*option),
            theta=self._theta(*option),
            rho=self._rho(*option),
            vanna=self._vanna(*option),
            volga=self._volga(*option),
            charm=self._charm(*option),
        )

    # Derivatives in the strike

    @short_signature
    def strike_delta(
        self,
        *,
        strike: ArrayLike,
        time_to_expiry: ArrayLike,
        volatility: ArrayLike,
        is_call: ArrayLike = True,
        **market: Unpack[MarketArguments],
    ) -> Numeric:
        r"""Derivative of the price in the strike, volatility held fixed.

        Lognormal: $\mp D N(\pm d_2)$. Normal: $\mp D N(\pm d)$.

        Arguments and letters are those of `price`. Negative for calls, positive for
        puts.

        Examples:
            >>> from relu_options import bachelier, black_scholes
            >>> option = dict(strike=95.0, time_to_expiry=0.5, volatility=0.2)
            >>> market = dict(forward=100.0, discount_factor=0.98)
            >>> round(black_scholes.strike_delta(**option, **market), 4)
            -0.6026
            >>> option = dict(strike=3.0, time_to_expiry=0.5, volatility=1.6)
            >>> round(bachelier.strike_delta(forward=2.0, **option), 4)
            -0.1884
        """
        return self._evaluate(
            self._strike_delta, time_to_expiry, strike, volatility, is_call, market
        )

    def _strike_delta(self, market, time_to_expiry, strike, volatility, is_call):
        v = volatility * root_of_time(time_to_expiry)
        undiscounted = self.kernels.strike_delta(market.forward, strike, v, is_call)
        return market.discount_factor * undiscounted

    @short_signature
    def digital_price(
        self,
        *,
        strike: ArrayLike,
        time_to_expiry: ArrayLike,
        volatility: ArrayLike,
        is_call: ArrayLike = True,
        **market: Unpack[MarketArguments],
    ) -> Numeric:
        r"""Price of one unit of currency if the option finishes in the money.

        Lognormal: $D N(\pm d_2)$. Normal: $D N(\pm d)$.

        The limit of call (put) spreads of width zero: minus the derivative of the call
        price in the strike. Arguments and letters are those of `price`.

        Examples:
            A digital call and a digital put pay one unit together.

            >>> from relu_options import bachelier, black_scholes
            >>> option = dict(forward=100.0, strike=95.0, time_to_expiry=0.5,
            ...               volatility=0.2, discount_factor=0.98)
            >>> call = black_scholes.digital_price(**option)
            >>> put = black_scholes.digital_price(**option, is_call=False)
            >>> round(call, 4), round(call + put, 12)
            (0.6026, 0.98)
            >>> option = dict(strike=3.0, time_to_expiry=0.5, volatility=1.6)
            >>> round(bachelier.digital_price(forward=2.0, **option), 4)
            0.1884
        """
        return self._evaluate(
            self._digital_price, time_to_expiry, strike, volatility, is_call, market
        )

    def _digital_price(self, *option):
        return jnp.abs(self._strike_delta(*option))

    @short_signature
    def distribution(
        self,
        *,
        strike: ArrayLike,
        time_to_expiry: ArrayLike,
        volatility: ArrayLike,
        **market: Unpack[MarketArguments],
    ) -> Numeric:
        """Risk-neutral probability that the underlying finishes below `strike`.

        Lognormal: $N(-d_2)$. Normal: $N(-d)$.

        Arguments and letters are those of `price`.

        Examples:
            >>> from relu_options import bachelier, black_scholes
            >>> option = dict(strike=95.0, time_to_expiry=0.5, volatility=0.2)
            >>> round(black_scholes.distribution(forward=100.0, **option), 4)
            0.3851
            >>> option = dict(strike=3.0, time_to_expiry=0.5, volatility=1.6)
            >>> round(bachelier.distribution(forward=2.0, **option), 4)
            0.8116
        """
        return self._evaluate(
            self._distribution, time_to_expiry, strike, volatility, True, market
        )

    def _distribution(self, market, time_to_expiry, strike, volatility, is_call):
        v = volatility * root_of_time(time_to_expiry)
        is_put = jnp.zeros_like(is_call)
        return self.kernels.strike_delta(market.forward, strike, v, is_put)

    @short_signature
    def density(
        self,
        *,
        strike: ArrayLike,
        time_to_expiry: ArrayLike,
        volatility: ArrayLike,
        **market: Unpack[MarketArguments],
    ) -> Numeric:
        """Risk-neutral probability density of the underlying at `strike`, per currency.

        Lognormal: $n(d_2) / (K v)$. Normal: $n(d) / v$.

        The second derivative of price over discount factor in the strike. Arguments and
        letters are those of `price`.

        Examples:
            >>> from relu_options import bachelier, black_scholes
            >>> option = dict(strike=95.0, time_to_expiry=0.5, volatility=0.2)
            >>> round(black_scholes.density(forward=100.0, **option), 4)
            0.0285
            >>> option = dict(strike=3.0, time_to_expiry=0.5, volatility=1.6)
            >>> round(bachelier.density(forward=2.0, **option), 4)
            0.2386

        References:
            Breeden, D. and Litzenberger, R. (1978). Prices of state-contingent claims
            implicit in option prices. *Journal of Business*, 51, 621-651.
        """
        return self._evaluate(
            self._density, time_to_expiry, strike, volatility, True, market
        )

    def _density(self, market, time_to_expiry, strike, volatility, is_call):
        v = volatility * root_of_time(time_to_expiry)
        return self.kernels.density(market.forward, strike, v)

    @short_signature
    def strike_from_delta(
        self,
        *,
        delta: ArrayLike,
        time_to_expiry: ArrayLike,
        volatility: ArrayLike,
        is_call: ArrayLike = True,
        **market: Unpack[MarketArguments],
    ) -> Numeric:
        r"""Strike at which the option has a given delta, as `delta` defines it.

        With $d = \pm N^{-1}(\pm \Delta / (D G))$, lognormal: $F e^{v (v / 2 - d)}$.
        Normal: $F - v d$.

        Args:
            delta: Derivative of the price in `spot` or `forward`; negative for puts.
            time_to_expiry: Time to expiry, in years.
            volatility: Volatility of the option sought, as in `price`.
            is_call: True for calls, False for puts.
            **market: See `MarketArguments`.

        Returns:
            Strike, in currency units; NaN where no strike has this delta.

        Examples:
            >>> from relu_options import bachelier, black_scholes
            >>> option = dict(forward=100.0, time_to_expiry=0.25, volatility=0.2,
            ...               is_call=False)
            >>> strike = black_scholes.strike_from_delta(delta=-0.25, **option)
            >>> round(strike, 4)
            93.9461
            >>> round(black_scholes.delta(strike=strike, **option), 12)
            -0.25
            >>> option = dict(forward=2.0, time_to_expiry=0.5, volatility=1.6)
            >>> strike = bachelier.strike_from_delta(delta=0.25, **option)
            >>> round(bachelier.delta(strike=strike, **option), 12)
            0.25
        """
        return self._evaluate(
            self._strike_from_delta, time_to_expiry, delta, volatility, is_call, market
        )

    def _strike_from_delta(self, market, time_to_expiry, delta, volatility, is_call):
        v = volatility * root_of_time(time_to_expiry)
        sign = jnp.where(is_call, 1.0, -1.0)
        probability = sign * delta / (market.discount_factor * market.growth)
        deviation = sign * jax.scipy.special.ndtri(probability)
        return self.kernels.strike_from_deviation(market.forward, deviation, v)

    def _evaluate(
        self,
        formula: Callable,
        time_to_expiry,
        given,
        other,
        is_call,
        market: MarketArguments,
        faster: Shortcut | None = None,
    ):
        """`formula(market, time_to_expiry, given, other, is_call)` of anything."""
        form, numbers = market_in_use(**market)
        return _compiled(formula, form, faster)(
            time_to_expiry, *numbers, given, other, boolean(is_call, name="is_call")
        )


@functools.cache
def _compiled(
    formula: Callable, form: Callable[..., Market], faster: Shortcut | None
) -> Callable:
    """`formula`, with the market built from its numbers in the compiled code."""

    def with_market(formula: Callable) -> Callable:
        def kernel(time_to_expiry, *arguments):
            *numbers, given, other, is_call = arguments
            market = form(time_to_expiry, *numbers)
            return formula(market, time_to_expiry, given, other, is_call)

        return kernel

    if faster is not None:
        faster = faster._replace(kernel=with_market(faster.kernel))
    return elementwise(with_market(formula), faster)


# Time


@jax.custom_jvp
def root_of_time(time_to_expiry):
    """Square root, with derivative zero at expiry, where prices no longer change."""
    return square_root(time_to_expiry)


@root_of_time.defjvp
def _(primals, tangents):
    root = root_of_time(*primals)
    started = root > 0.0
    slope = jnp.where(started, 0.5 / jnp.where(started, root, 1.0), 0.0)
    return root, slope * tangents[0]


def annualised(v, market: Market, time_to_expiry):
    """Total volatility over the root of time; NaN where time or discounting is none."""
    valid = _can_be_annualised(market, time_to_expiry)
    root = square_root(jnp.where(valid, time_to_expiry, 1.0))
    return jnp.where(valid, v / root, jnp.nan)


def _can_be_annualised(market: Market, time_to_expiry):
    valid = (time_to_expiry > 0.0) & (time_to_expiry < jnp.inf)
    return valid & (market.discount_factor > 0.0) & (market.discount_factor < jnp.inf)
