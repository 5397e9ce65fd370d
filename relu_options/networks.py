r"""One-layer ReLU networks, and their smooth relatives, as functions of one price.

Two kinds stand here, and they are dual to each other.

* A **payoff network** is a function of the *spot* at expiry,
  $f(S) = a + b S + \sum_i q_i \max(S - K_i, 0)$: its kinks are strikes and its output
  weights are quantities (`ReLUNetwork`; `BachelierNetwork` is the same with rounded
  kinks).
* A **price network** is a function of the *strike*,
  $C(K) = \sum_j p_j \max(s_j - K, 0)$: its kinks are possible values of the underlying
  and its output weights are their state prices (`PriceNetwork`, exact or smooth).

The price of a payoff is one inner product, which can be read in either direction
(`price_from_strikes`, `price_from_kinks`):

$$
\sum_j p_j f(s_j) = a \sum_j p_j + b \sum_j p_j s_j + \sum_i q_i C(K_i).
$$

References:
    Breeden, D. and Litzenberger, R. (1978). Prices of state-contingent claims implicit
    in option prices. *Journal of Business*, 51, 621-651.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.special import logsumexp, ndtr
from jax.scipy.stats import norm
from jax.typing import ArrayLike

from relu_options.formulas import bachelier, black_scholes
from relu_options.formulas.mills_ratio import log_normal_distribution

Kernel = Literal["black", "bachelier"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ReLUNetwork:
    r"""The function $f(x) = a + b x + \sum_i w_i \max(x - k_i, 0)$.

    Read as a payoff it is a portfolio: `a` in cash, `b` forwards (of strike zero) and
    `w_i` calls of strike `k_i`. It is convex if, and only if, no output weight is
    negative (after merging equal kinks).

    Attributes:
        intercept: `a`, a scalar.
        slope: `b`, a scalar; the slope to the left of every kink.
        kinks: `k`, of shape `(n,)`; where the slope changes.
        weights: `w`, of shape `(n,)`; by how much it changes.

    Examples:
        A long call struck at 90 and a short one at 110 are a call spread.

        >>> import numpy as np
        >>> spread = relu(90.0) - relu(110.0)
        >>> print(np.asarray(spread(np.array([80.0, 100.0, 150.0]))))
        [ 0. 10. 20.]
        >>> print(np.asarray(spread.derivative(np.array([80.0, 100.0, 150.0]))))
        [0. 1. 0.]
    """

    intercept: jax.Array | float
    slope: jax.Array | float
    kinks: jax.Array
    weights: jax.Array

    def __post_init__(self):
        _own_arrays(self)

    def __call__(self, x: ArrayLike) -> jax.Array:
        """Evaluate the network at `x`, of any shape."""
        x = jnp.asarray(x, float)
        hidden = jax.nn.relu(x[..., None] - self.kinks)
        return self.intercept + self.slope * x + hidden @ self.weights

    def derivative(self, x: ArrayLike) -> jax.Array:
        """Slope at `x`; at a kink, the mean of the slopes on its two sides."""
        x = jnp.asarray(x, float)
        active = jnp.heaviside(x[..., None] - self.kinks, 0.5)
        return self.slope + active @ self.weights

    def __add__(self, other: ReLUNetwork | float) -> ReLUNetwork:
        """Sum of two networks, or of a network and a constant."""
        if isinstance(other, ReLUNetwork):
            return ReLUNetwork(
                self.intercept + other.intercept,
                self.slope + other.slope,
                jnp.concatenate([self.kinks, other.kinks]),
                jnp.concatenate([self.weights, other.weights]),
            )
        return replace(self, intercept=self.intercept + other)

    __radd__ = __add__

    def __mul__(self, factor: jax.Array | float) -> ReLUNetwork:
        """The network times a number."""
        return ReLUNetwork(
            self.intercept * factor,
            self.slope * factor,
            self.kinks,
            self.weights * factor,
        )

    __rmul__ = __mul__

    def __neg__(self) -> ReLUNetwork:
        return self * -1.0

    def __sub__(self, other: ReLUNetwork | float) -> ReLUNetwork:
        return self + -1.0 * other

    def __rsub__(self, other: float) -> ReLUNetwork:
        return -self + other


def _own_arrays(network: ReLUNetwork | BachelierNetwork | PriceNetwork) -> None:
    """Copy NumPy arrays that others may write to: JAX would share their memory."""
    for name, value in vars(network).items():
        if isinstance(value, np.ndarray) and value.flags.writeable:
            copied = value.copy()
            copied.setflags(write=False)
            object.__setattr__(network, name, copied)


def relu(kink: ArrayLike) -> ReLUNetwork:
    r"""One hidden unit, $\max(x - k, 0)$: the payoff of a call struck at `kink`.

    Args:
        kink: Where the slope changes from 0 to 1, in the units of `x`.

    Returns:
        The network of one hidden unit.

    Examples:
        >>> import numpy as np
        >>> butterfly = relu(90.0) - 2.0 * relu(100.0) + relu(110.0)
        >>> print(np.asarray(butterfly(np.array([85.0, 95.0, 100.0, 120.0]))))
        [ 0.  5. 10.  0.]
    """
    return ReLUNetwork(0.0, 0.0, jnp.atleast_1d(jnp.array(kink, float)), jnp.ones(1))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BachelierNetwork:
    r"""The smooth network $f(x) = a + b x + \sum_i w_i \psi_{h_i}(x - k_i)$.

    Its hidden unit $\psi_h(y) = y N(y / h) + h n(y / h)$ is the price of a call under a
    normal law of standard deviation `h`; $\psi_0$ is the ReLU. Non-negative output
    weights make it convex, and its slope rises from `b` to $b + \sum_i w_i$.

    Attributes:
        intercept: `a`, a scalar.
        slope: `b`, a scalar; the slope far to the left.
        kinks: `k`, of shape `(n,)`.
        weights: `w`, of shape `(n,)`.
        bandwidths: `h`, of shape `(n,)`, in the units of `x`; zero for a sharp kink.

    Examples:
        Far from its kink, or with a vanishing bandwidth, the unit is a ReLU.

        >>> import jax.numpy as jnp
        >>> unit = BachelierNetwork(0.0, 0.0, jnp.array([100.0]), jnp.array([1.0]),
        ...                         jnp.array([2.0]))
        >>> print(unit(jnp.array([80.0, 100.0, 120.0])).round(6))
        [ 0.        0.797885 20.      ]
    """

    intercept: jax.Array | float
    slope: jax.Array | float
    kinks: jax.Array
    weights: jax.Array
    bandwidths: jax.Array

    def __post_init__(self):
        _own_arrays(self)

    def __call__(self, x: ArrayLike) -> jax.Array:
        """Evaluate the network at `x`, of any shape."""
        x = jnp.asarray(x, float)
        hidden = bachelier.undiscounted_price(
            x[..., None], self.kinks, self.bandwidths, True
        )
        return self.intercept + self.slope * x + hidden @ self.weights

    def derivative(self, x: ArrayLike) -> jax.Array:
        r"""First derivative, $b + \sum_i w_i N((x - k_i) / h_i)$."""
        x = jnp.asarray(x, float)
        deviations = _ratio(x[..., None] - self.kinks, self.bandwidths)
        return self.slope + ndtr(deviations) @ self.weights

    def second_derivative(self, x: ArrayLike) -> jax.Array:
        r"""Second derivative, $\sum_i w_i n((x - k_i) / h_i) / h_i$."""
        x = jnp.asarray(x, float)
        deviations = _ratio(x[..., None] - self.kinks, self.bandwidths)
        return _ratio(norm.pdf(deviations), self.bandwidths) @ self.weights

    @property
    def skeleton(self) -> ReLUNetwork:
        """The same kinks and weights with every bandwidth zero."""
        return ReLUNetwork(self.intercept, self.slope, self.kinks, self.weights)

    def __add__(self, other: BachelierNetwork | float) -> BachelierNetwork:
        """Sum of two networks, or of a network and a constant."""
        if isinstance(other, BachelierNetwork):
            return BachelierNetwork(
                self.intercept + other.intercept,
                self.slope + other.slope,
                jnp.concatenate([self.kinks, other.kinks]),
                jnp.concatenate([self.weights, other.weights]),
                jnp.concatenate([self.bandwidths, other.bandwidths]),
            )
        return replace(self, intercept=self.intercept + other)

    __radd__ = __add__

    def __mul__(self, factor: jax.Array | float) -> BachelierNetwork:
        """The network times a number."""
        return replace(
            self,
            intercept=self.intercept * factor,
            slope=self.slope * factor,
            weights=self.weights * factor,
        )

    __rmul__ = __mul__

    def __neg__(self) -> BachelierNetwork:
        return self * -1.0

    def __sub__(self, other: BachelierNetwork | float) -> BachelierNetwork:
        return self + -1.0 * other

    def __rsub__(self, other: float) -> BachelierNetwork:
        return -self + other


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PriceNetwork:
    r"""Call prices by strike, $C(K) = \sum_j p_j \varphi_{h_j}(s_j, K)$.

    The hidden unit $\varphi_h(s, K)$ is the undiscounted price of a call when the
    forward is `s` and the law around it has total volatility `h`; $\varphi_0(s, K) =
    \max(s - K, 0)$ is the ReLU. With the kernel `"black"` the law is lognormal and `h`
    is a lognormal total volatility,

    $$
    \varphi_h(s, K) = s N(d_+) - K N(d_-), \qquad
    d_\pm = \frac{\log(s / K)}{h} \pm \frac{h}{2},
    $$

    with `"bachelier"` it is normal and `h` is in currency. As long as no output weight
    is negative the prices fall with the strike and are convex in it, so that no call
    spread and no butterfly has a negative price: $p_j$ is today's price of 1 paid if
    the underlying finishes in the state of mean $s_j$.

    Attributes:
        kinks: `s`, of shape `(n,)`: possible values of the underlying, in currency.
        weights: `p`, of shape `(n,)`: state prices.
        bandwidths: `h`, of shape `(n,)`; zeros for the exact ReLU network.
        kernel: `"black"` or `"bachelier"`.
        tie: So near to a sharp kink, by the logarithm of the strike, is on it; of a
            class, whose strikes are exact here.

    Examples:
        Three states of the world, with sharp kinks and with rounded ones.

        >>> import jax.numpy as jnp
        >>> sharp = PriceNetwork(jnp.array([80.0, 100.0, 120.0]),
        ...                      jnp.array([0.25, 0.5, 0.25]), jnp.zeros(3))
        >>> print(sharp(jnp.array([70.0, 100.0, 130.0])))
        [30.  5.  0.]
        >>> rounded = PriceNetwork(sharp.kinks, sharp.weights, jnp.full(3, 0.1))
        >>> print(rounded(jnp.array([70.0, 100.0, 130.0])).round(3))
        [30.079  7.041  0.383]
    """

    kinks: jax.Array
    weights: jax.Array
    bandwidths: jax.Array
    kernel: Kernel = field(default="black", metadata={"static": True})
    tie: ClassVar[float] = 0.0

    def __post_init__(self):
        _own_arrays(self)

    def __call__(self, strike: ArrayLike) -> jax.Array:
        """Price of a call at `strike`, of any shape."""
        return self._hidden(strike, True) @ self.weights

    def put(self, strike: ArrayLike) -> jax.Array:
        """Price of a put at `strike`, with the digits that parity would lose."""
        return self._hidden(strike, False) @ self.weights

    def option(self, strike: ArrayLike, is_call: ArrayLike) -> jax.Array:
        """Price of a call where `is_call`, else of a put; both of one shape."""
        return self._hidden(strike, jnp.asarray(is_call)[..., None]) @ self.weights

    def derivative(self, strike: ArrayLike) -> jax.Array:
        """Derivative of the call price in the strike: minus `survival`.

        At a sharp kink, that from the right.
        """
        return -self.survival(strike)

    def survival(self, strike: ArrayLike) -> jax.Array:
        r"""Price of 1 paid above `strike`, $\sum_j p_j N(d_{-,j})$."""
        return ndtr(self._deviations(strike)) @ self.weights

    def cumulative(self, strike: ArrayLike) -> jax.Array:
        r"""Price of 1 paid at or below `strike`, $\sum_j p_j N(-d_{-,j})$."""
        return ndtr(-self._deviations(strike)) @ self.weights

    def distribution(self, strike: ArrayLike) -> jax.Array:
        """Probability of finishing at or below `strike`; never above one.

        It is `cumulative` over the sum of the two sides, than which rounding may put
        `mass` below.
        """
        below = self.cumulative(strike)
        return below / (below + self.survival(strike))

    def second_derivative(self, strike: ArrayLike) -> jax.Array:
        """State price density: the second derivative of the call price in the strike.

        Zero between the kinks, and infinite on them, where the bandwidths are zero.
        """
        strike = jnp.asarray(strike, float)[..., None]
        width = self.bandwidths * (strike if self.kernel == "black" else 1.0)
        sharp = self.bandwidths == 0.0
        smooth = _ratio(norm.pdf(self._deviations(strike[..., 0])), width)
        on_it = self.kinks == strike
        if self.tie:
            on_it = jnp.abs(jnp.log(self.kinks / strike)) <= self.tie
        atom = jnp.where(on_it, jnp.inf, 0.0)
        # A state that has no weight adds nothing, on its kink either.
        height = jnp.where(self.weights == 0.0, 0.0, jnp.where(sharp, atom, smooth))
        return height @ self.weights

    def moments(self) -> jax.Array:
        r"""Mean, variance, skewness and kurtosis of the underlying, of shape `(4,)`.

        The central moments of a mixture are means of those of its states: with
        distances $d_j = s_j - m$ from the mean and variances $v_j$, the second is
        $\sum_j p_j (d_j^2 + v_j) / \sum_j p_j$. Skewness and kurtosis are NaN without
        variance.

        Examples:
            >>> normal = PriceNetwork(jnp.array([100.0]), jnp.array([0.97]),
            ...                       jnp.array([5.0]), "bachelier")
            >>> print(normal.moments())
            [100.  25.   0.   3.]
        """
        shares = self.weights / self.mass
        mean = shares @ self.kinks
        second, third, fourth = self._state_moments()
        distance = self.kinks - mean
        variance = shares @ (distance**2 + second)
        skew = shares @ (distance**3 + 3.0 * distance * second + third)
        tail = distance**4 + 6.0 * distance**2 * second + 4.0 * distance * third
        tail = shares @ (tail + fourth)
        return jnp.stack([mean, variance, skew / variance**1.5, tail / variance**2])

    def _state_moments(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Second to fourth central moment of the law of every state."""
        second = self.bandwidths**2
        if self.kernel == "bachelier":
            return second, jnp.zeros_like(second), 3.0 * second**2
        growth, excess = jnp.exp(second), jnp.expm1(second)
        fourth = ((growth + 2.0) * growth + 3.0) * growth**2 - 3.0
        return (
            self.kinks**2 * excess,
            self.kinks**3 * excess**2 * (growth + 2.0),
            self.kinks**4 * excess**2 * fourth,
        )

    def states(self, deviations: ArrayLike) -> jax.Array:
        """Values so many bandwidths above the median of each state.

        Args:
            deviations: Of any shape.

        Returns:
            Of shape `deviations.shape + (n,)`, in currency.

        Examples:
            >>> states = PriceNetwork(jnp.array([80.0, 100.0]), jnp.ones(2) / 2.0,
            ...                       jnp.array([0.0, 5.0]), "bachelier")
            >>> print(states.states(-1.0))
            [80. 95.]
        """
        deviations = jnp.asarray(deviations, float)[..., None]
        return _states(self.kernel, self.kinks, self.bandwidths, deviations)

    def scaled_states(self, deviations: ArrayLike) -> jax.Array:
        """`states` on the scale of `SCALES`, where none overflows or vanishes.

        Examples:
            >>> wide = PriceNetwork(jnp.array([100.0]), jnp.ones(1), jnp.array([50.0]))
            >>> print(wide.states(-1.0), wide.scaled_states(-1.0).round(3))
            [0.] [-1295.395]
        """
        deviations = jnp.asarray(deviations, float)[..., None]
        shift = _shift(self.kernel, self.bandwidths, deviations)
        return SCALES[self.kernel][0](self.kinks) + shift

    def quantile(self, probability: ArrayLike) -> jax.Array:
        """The least value at or below which the underlying finishes so probably.

        It inverts `cumulative / mass` by bisection on the scale on which states are
        normal, in logarithms of the probability of the nearer tail: down to the
        smallest number, and up to the largest below one. Its derivatives are those of
        the inverse where there is a density.

        Args:
            probability: Of any shape.

        Returns:
            In currency: at 0 and 1 the ends of the law (for the lognormal kernel 0 and
            infinity), outside of [0, 1] NaN, as where a weight is negative.

        Examples:
            >>> normal = PriceNetwork(jnp.array([100.0]), jnp.array([0.97]),
            ...                       jnp.array([5.0]), "bachelier")
            >>> print(normal.quantile(jnp.array([0.025, 0.5])).round(4))
            [ 90.2002 100.    ]
        """
        return quantile_of_tail(self, tail_of(probability))

    def sample(self, key: jax.Array, n: int) -> jax.Array:
        """Draw `n` values of the underlying with a JAX random key.

        Examples:
            >>> atoms = PriceNetwork(jnp.array([80.0, 120.0]), jnp.ones(2) / 2.0,
            ...                      jnp.zeros(2))
            >>> sorted(set(atoms.sample(jax.random.key(0), 50).tolist()))
            [80.0, 120.0]
        """
        state, noise = jax.random.split(key)
        chosen = jax.random.categorical(state, jnp.log(self.weights), shape=(n,))
        deviations = jax.random.normal(noise, (n,))
        kinks, widths = self.kinks[chosen], self.bandwidths[chosen]
        return _states(self.kernel, kinks, widths, deviations)

    @property
    def mass(self) -> jax.Array:
        """Sum of the state prices: the discount factor."""
        return self.weights.sum()

    @property
    def mean(self) -> jax.Array:
        """State prices times kinks, summed: the discounted forward."""
        return self.weights @ self.kinks

    @property
    def skeleton(self) -> PriceNetwork:
        """The exact ReLU network with the same kinks and weights."""
        return replace(self, bandwidths=jnp.zeros_like(self.bandwidths))

    def to_relu(self) -> ReLUNetwork:
        r"""The skeleton as a function $a + b K + \sum_j p_j \max(K - s_j, 0)$."""
        return ReLUNetwork(self.mean, -self.mass, self.kinks, self.weights)

    def __add__(self, other: PriceNetwork) -> PriceNetwork:
        """Sum of two networks of one kernel: hidden units side by side."""
        if not isinstance(other, PriceNetwork):
            return NotImplemented
        if self.kernel != other.kernel:
            raise ValueError(
                f"cannot add networks with kernels {self.kernel!r} and "
                f"{other.kernel!r}; fit both with the same kernel"
            )
        return PriceNetwork(
            jnp.concatenate([self.kinks, other.kinks]),
            jnp.concatenate([self.weights, other.weights]),
            jnp.concatenate([self.bandwidths, other.bandwidths]),
            self.kernel,
        )

    def __mul__(self, factor: jax.Array | float) -> PriceNetwork:
        """The network times a number."""
        return replace(self, weights=self.weights * factor)

    __rmul__ = __mul__

    def __neg__(self) -> PriceNetwork:
        return self * -1.0

    def __sub__(self, other: PriceNetwork) -> PriceNetwork:
        return self + -1.0 * other

    def _hidden(self, strike: ArrayLike, is_call: ArrayLike) -> jax.Array:
        """Kernel prices, of shape `strike.shape + (n,)`."""
        strike = jnp.asarray(strike, float)[..., None]
        kernel = kernel_price(self.kernel)
        return kernel(self.kinks, strike, self.bandwidths, is_call)

    def _deviations(self, strike: ArrayLike) -> jax.Array:
        """`d_-`: how many bandwidths the median of each state is above the strike."""
        strike = jnp.asarray(strike, float)[..., None]
        width = self.bandwidths
        distance = self.kinks - strike
        if self.kernel == "black":
            distance = jnp.log(self.kinks / strike) - 0.5 * width**2
        # What is sharp and at the strike is not above it.
        sharp = jnp.where(distance > self.tie, jnp.inf, -jnp.inf)
        return jnp.where(
            width == 0.0, sharp, distance / jnp.where(width == 0.0, 1.0, width)
        )


def _states(
    kernel: Kernel, kinks: jax.Array, bandwidths: jax.Array, deviations: jax.Array
) -> jax.Array:
    """Values so many bandwidths above the medians of states."""
    shift = _shift(kernel, bandwidths, deviations)
    if kernel == "bachelier":
        return kinks + shift
    return jnp.where(kinks == 0.0, 0.0, kinks * jnp.exp(shift))


def _shift(kernel: Kernel, bandwidths: jax.Array, deviations: jax.Array) -> jax.Array:
    """From means to values so many bandwidths above medians, where states are normal.

    Where they are normal, see `SCALES`.
    """
    shift = jnp.where(bandwidths == 0.0, 0.0, bandwidths * deviations)
    return shift if kernel == "bachelier" else shift - 0.5 * bandwidths**2


Map = Callable[[ArrayLike], jax.Array]
SCALES: dict[Kernel, tuple[Map, Map]] = {
    "black": (jnp.log, jnp.exp),
    "bachelier": (jnp.asarray, jnp.asarray),
}
"""To and from the scale on which the states of a kernel are normal."""
FARTHEST = 40.0  # bandwidths: beyond, a tail is less than the smallest number
HALVINGS = 64  # of a bracket, to its last digit
EXPONENTIAL_ROUNDING = 1e-14  # of a strike that is taken from its logarithm
ROUNDINGS = 4.0 * np.finfo(float).eps  # of a sum of few probabilities, and its log


def tail_of(probability: ArrayLike) -> jax.Array | np.ndarray:
    r"""A probability by its nearer tail: $\log 2p$ up to one half, $-\log 2(1 - p)$.

    Taken by NumPy unless it is traced: compiled code has no numbers below 2e-308.

    Examples:
        >>> print(tail_of(np.array([0.25, 0.5, 0.75])).round(4))
        [-0.6931  0.      0.6931]
    """
    if isinstance(probability, Tracer):
        low = jnp.minimum(probability, 1.0 - probability)
        size = jnp.log(2.0 * low)
        return jnp.where(probability <= 0.5, size, -size)
    probability = np.asarray(probability, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.log(2.0 * np.minimum(probability, 1.0 - probability))
    return np.where(probability <= 0.5, size, -size)


def quantile_of_tail(network: PriceNetwork, tail: ArrayLike) -> jax.Array:
    """`PriceNetwork.quantile` of a probability that `tail_of` has turned.

    Examples:
        >>> atoms = PriceNetwork(jnp.array([80.0, 120.0]), jnp.ones(2) / 2.0,
        ...                      jnp.zeros(2))
        >>> print(quantile_of_tail(atoms, tail_of(np.array([0.5, 0.51]))))
        [ 80. 120.]
    """
    return _quantile(network, jnp.asarray(tail, float))


@jax.custom_jvp
def _quantile(network: PriceNetwork, tail: jax.Array) -> jax.Array:
    """The quantile by bisection, of `tail` of any shape."""
    back = SCALES[network.kernel][1]
    held = network.weights > 0.0
    logs = jnp.where(held, jnp.log(jnp.where(held, network.weights, 1.0)), -jnp.inf)
    log_mass = jnp.log(network.mass)
    logs = logs - log_mass
    lower, half = tail <= 0.0, jnp.log(0.5)

    def lack(strike):
        """What is at or below a strike lacks of the probability, by the logarithm."""
        deviations = network._deviations(strike)
        sign = jnp.where(lower, -1.0, 1.0)[..., None]
        size = logsumexp(logs + log_normal_distribution(sign * deviations), axis=-1)
        return jnp.where(lower, half + tail - size, size - half + tail)

    inner = held & ((network.kinks > 0.0) | (network.kernel == "bachelier"))
    low = jnp.min(jnp.where(inner, network.scaled_states(-FARTHEST), jnp.inf))
    high = jnp.max(jnp.where(inner, network.scaled_states(FARTHEST), -jnp.inf))
    room = 1e-12 * (1.0 + jnp.abs(jnp.stack([low, high])))
    ends = jnp.full(tail.shape, low - room[0]), jnp.full(tail.shape, high + room[1])
    # An atom is the answer if what is at or below it lacks no more than rounding took
    # from both: of probabilities near one a part of one, whatever is left above.
    terms = ROUNDINGS * (1.0 + jnp.log(jnp.maximum(jnp.sum(held), 1)))
    rounding = terms + ROUNDINGS * (jnp.abs(tail) + jnp.abs(log_mass))
    rounding = rounding + jnp.log1p(terms * 2.0 * jnp.exp(tail))
    sharp = held & (network.bandwidths == 0.0)
    atoms = jnp.sort(jnp.where(sharp, network.kinks, jnp.inf))
    atoms = jnp.append(atoms, jnp.inf)  # below which there is everything
    searched = HALVINGS + len(atoms).bit_length()

    def ask(step, state):
        """Halve the bracket, then that of atoms, and ask for the lower end at last.

        One loop, since what is in a loop is compiled once.
        """
        low, high, first, last, _ = state
        middle, place = 0.5 * (low + high), (first + last) // 2
        halving, searching = step < HALVINGS, (step >= HALVINGS) & (step < searched)
        strike = back(jnp.where(halving, middle, ends[0]))
        missing = lack(jnp.where(searching, atoms[place], strike))
        less = missing > jnp.where(searching, rounding, 0.0)
        return (
            jnp.where(halving & less, middle, low),
            jnp.where(halving & ~less, middle, high),
            jnp.where(searching & less, place + 1, first),
            jnp.where(searching & ~less, place, last),
            less,
        )

    places = jnp.zeros(tail.shape, int), jnp.full(tail.shape, len(atoms) - 1)
    state = *ends, *places, jnp.zeros(tail.shape, bool)
    _, high, _, place, above_end = jax.lax.fori_loop(0, searched + 1, ask, state)
    above, atom = back(high), atoms[place]
    reached = atom <= above + EXPONENTIAL_ROUNDING * jnp.abs(above)
    value = jnp.where(reached, atom, above)
    least = jnp.min(jnp.where(held, network.states(-jnp.inf), jnp.inf))
    most = jnp.max(jnp.where(held, network.states(jnp.inf), -jnp.inf))
    value = jnp.where((tail == -jnp.inf) | ~above_end, least, value)
    value = jnp.where(tail == jnp.inf, most, value)
    valid = ~jnp.isnan(tail) & ~jnp.any(network.weights < 0.0)
    return jnp.where(valid, value, jnp.nan)


@_quantile.defjvp
def _(primals, tangents):
    """The derivative of the inverse, which bisection does not have."""
    network, tail = primals
    value = _quantile(network, tail)

    def missing(network, tail):
        size = 0.5 * jnp.exp(-jnp.abs(tail))
        probability = jnp.where(tail <= 0.0, size, 1.0 - size)
        return probability - network.cumulative(value) / network.mass

    _, change = jax.jvp(missing, primals, tangents)
    height = network.second_derivative(value) / network.mass
    known = jnp.isfinite(value) & (height > 0.0) & jnp.isfinite(height)
    return value, jnp.where(known, change / jnp.where(known, height, 1.0), 0.0)


def kernel_price(kernel: Kernel) -> Callable[..., jax.Array]:
    """Undiscounted price `(forward, strike, bandwidth, is_call)` of a kernel.

    Args:
        kernel: `"black"`, whose bandwidth is a lognormal total volatility, or
            `"bachelier"`, whose bandwidth is in currency.

    Returns:
        The function, which broadcasts its arguments.

    Raises:
        ValueError: If there is no such kernel.

    Examples:
        With a small bandwidth both kernels give nearly the same price.

        >>> print(f"{kernel_price('black')(100.0, 105.0, 0.1, True):.4f}")
        2.0640
        >>> print(f"{kernel_price('bachelier')(100.0, 105.0, 10.0, True):.4f}")
        1.9780
    """
    if kernel == "black":
        return black_scholes.undiscounted_price
    if kernel == "bachelier":
        return bachelier.undiscounted_price
    raise ValueError(f"kernel must be 'black' or 'bachelier', not {kernel!r}")


def price_from_strikes(payoff: ReLUNetwork, prices: PriceNetwork) -> jax.Array:
    r"""Price of a payoff as a portfolio, $a\,p(1) + b\,p(S) + \sum_i q_i C(K_i)$.

    Args:
        payoff: A function of the spot at expiry.
        prices: Call prices by strike for that expiry.

    Returns:
        The price today, a scalar; equal to `price_from_kinks` up to rounding.

    Examples:
        >>> import jax.numpy as jnp
        >>> prices = PriceNetwork(jnp.array([80.0, 120.0]), jnp.array([0.5, 0.5]),
        ...                       jnp.full(2, 0.05))
        >>> straddle = 2.0 * relu(100.0) + ReLUNetwork(100.0, -1.0, *jnp.zeros((2, 1)))
        >>> print(price_from_strikes(straddle, prices).round(10))
        20.0001808454
        >>> print(price_from_kinks(straddle, prices).round(10))
        20.0001808454
    """
    linear = payoff.intercept * prices.mass + payoff.slope * prices.mean
    return linear + prices(payoff.kinks) @ payoff.weights


def price_from_kinks(payoff: ReLUNetwork, prices: PriceNetwork) -> jax.Array:
    r"""Price of a payoff as an expectation, $\sum_j p_j f_{h_j}(s_j)$.

    $f_h(s)$ is the payoff averaged over the kernel around `s`: the payoff itself where
    the bandwidth is zero.

    Args:
        payoff: A function of the spot at expiry.
        prices: Call prices by strike for that expiry.

    Returns:
        The price today, a scalar; equal to `price_from_strikes` up to rounding.

    Examples:
        A digital spread pays in one of two states, at a state price of 0.49.

        >>> import jax.numpy as jnp
        >>> prices = PriceNetwork(jnp.array([80.0, 120.0]), jnp.array([0.49, 0.49]),
        ...                       jnp.zeros(2))
        >>> digital = 0.1 * (relu(95.0) - relu(105.0))
        >>> print(f"{price_from_kinks(digital, prices):.2f}")
        0.49
    """
    kernel = kernel_price(prices.kernel)
    hidden = kernel(
        prices.kinks[:, None], payoff.kinks, prices.bandwidths[:, None], True
    )
    averaged = payoff.intercept + payoff.slope * prices.kinks + hidden @ payoff.weights
    return prices.weights @ averaged


def _ratio(numerator: jax.Array, width: jax.Array) -> jax.Array:
    """`numerator / width`, with its limit at zero width: ±inf, or zero on the kink."""
    safe = jnp.where(width > 0.0, width, 1.0)
    limit = jnp.where(numerator == 0.0, 0.0, jnp.sign(numerator) * jnp.inf)
    return jnp.where(width > 0.0, numerator / safe, limit)
