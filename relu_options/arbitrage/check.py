"""Are the quotes of a whole chain free of arbitrage, and which prices would be?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Unpack

import numpy as np
import pandas as pd

from relu_options.arbitrage.excess import QuoteArbitrage, least_chain_excess
from relu_options.arbitrage.implied_forward import forward_range, imply_forward
from relu_options.arbitrage.quotes import ROUNDING, SHOWN, half_spreads
from relu_options.arbitrage.trade import Trade
from relu_options.errors import QuoteError
from relu_options.market_data import (
    ExpiryQuotes,
    OptionChain,
    Quotes,
    Reading,
    prepare_slices,
)
from relu_options.market_data.cleaning import RULE_NAMES, RULES, SOUND_RULES
from relu_options.market_data.clocks import expiry_label

Forwards = Literal["given", "free"]
Unit = Literal["currency", "half_spread"]


@dataclass(frozen=True, eq=False)
class QuoteCheck:
    """How near a surface without arbitrage can come to the quotes of a chain.

    Attributes:
        arbitrage: The same as arrays, with each trade as an object.
        slices: One row per expiry and settlement, in order of time: `time_to_expiry`
            (years), `forward`, `discount_factor`, `quotes` (how many), `outside` (how
            many of these the nearest surface is outside of) and `excess` (by how much
            together, in currency units paid today). Where forwards were free, also
            `own_excess`, the least of each expiry by itself, in `unit`.
        labels: Of the quotes, of shape `(m,)`: the user's index.
        unit: What `total_excess` counts: "currency" or "half_spread".
        skipped: Slices that could not be prepared, each with the reason.
        notes: What else a reader should know.

    Examples:
        The first expiry of a simulated chain is stale: calls and puts cost ten too
        much.

        >>> from relu_options.simulation import bundled_chain
        >>> table = bundled_chain().to_frame()
        >>> check_quotes(table).is_arbitrage_free
        True
        >>> stale = table["expiry"] == table["expiry"].min()
        >>> table.loc[stale, ["bid", "ask"]] += 10.0
        >>> check = check_quotes(table)
        >>> check.is_arbitrage_free, check.cost < 0.0, check.worst_payoff >= 0.0
        (False, True, True)
    """

    arbitrage: QuoteArbitrage = field(repr=False)
    slices: pd.DataFrame = field(repr=False)
    labels: pd.Index = field(repr=False)
    unit: Unit
    skipped: dict[str, str]
    notes: tuple[str, ...]

    @property
    def is_arbitrage_free(self) -> bool:
        """Whether a surface without arbitrage passes inside every bid and ask."""
        return self.arbitrage.is_arbitrage_free

    @property
    def share_inside(self) -> float:
        """Share of the quotes inside which the nearest surface passes."""
        return self.arbitrage.share_inside

    @property
    def total_excess(self) -> float:
        """By how much the nearest surface is outside of all quotes, in `unit`."""
        return self.arbitrage.total_excess

    @property
    def cost(self) -> float:
        """What `trade` costs today: negative, the least excess with a minus sign."""
        return 0.0 - self.arbitrage.earned

    @property
    def worst_payoff(self) -> float:
        """The least that `trade` pays, in currency units of today; never negative."""
        return float(sum(trade.worst_payoff for trade in self.arbitrage.trades))

    def to_frame(self) -> pd.DataFrame:
        """One row per quote, with the user's index.

        Columns are `expiry`, `settlement`, `strike`, `option_type`, `bid`, `ask`,
        `nearest_price` (on the nearest surface), `excess` (by how much that is outside)
        and `quantity` (what `trade` trades); prices in currency units paid today.
        """
        nearest = self.arbitrage
        keys = self.slices.index[nearest.expiry]
        return pd.DataFrame(
            {
                "expiry": keys.get_level_values("expiry"),
                "settlement": keys.get_level_values("settlement"),
                "strike": nearest.strike,
                "option_type": np.where(nearest.is_call, "call", "put"),
                "bid": nearest.bid,
                "ask": nearest.ask,
                "nearest_price": nearest.price,
                "excess": nearest.excess,
                "quantity": nearest.quantity,
            },
            index=self.labels,
        )

    @cached_property
    def outside(self) -> pd.DataFrame:
        """The quotes that the nearest surface is outside of, the worst first.

        Columns are `expiry`, `settlement`, `label` (in the user's index), `strike`,
        `option_type`, `bid`, `ask`, `nearest_price` and `excess`.
        """
        table = self.to_frame()
        table.insert(2, "label", self.labels)
        table = table.drop(columns="quantity").iloc[np.flatnonzero(table["excess"])]
        table = table.sort_values("excess", ascending=False, kind="stable")
        return table.reset_index(drop=True)

    @cached_property
    def calendar(self) -> pd.DataFrame:
        """Where, and how much, the order of the expiries binds.

        One row per strike at which `trade` holds calls of an expiry against calls of
        the one before it: `earlier_expiry`, `earlier_settlement`, `later_expiry`,
        `later_settlement`, `strike` (of the later), `quantity` (calls of the later; the
        dual variable: by how much the total excess would fall if these were allowed to
        be cheaper by one unit of currency) and `money` (what they are worth).
        """
        table = self.arbitrage.calendar
        at = table["expiry"].to_numpy()
        earlier, later = self.slices.index[at - 1], self.slices.index[at]
        return pd.DataFrame(
            {
                "earlier_expiry": earlier.get_level_values("expiry"),
                "earlier_settlement": earlier.get_level_values("settlement"),
                "later_expiry": later.get_level_values("expiry"),
                "later_settlement": later.get_level_values("settlement"),
                "strike": table["strike"],
                "quantity": table["quantity"],
                "money": table["quantity"] * table["price"],
            }
        )

    def trade(self) -> pd.DataFrame:
        """The portfolio of quotes that earns the excess today and cannot lose.

        See `relu_options.arbitrage.QuoteArbitrage.trade`. Legs with one number in
        `trade` cannot lose by themselves, exactly and on any path of the underlying, if
        forwards are entered at their expiries as `arbitrage.trades[...]
        .forwards_to_hold` says, rates are known, and dividends are a known share of the
        spot.

        Returns:
            One row per leg: `trade` (numbered, the most profitable first), `expiry`,
            `settlement`, `strike`, `option_type` ("call", "put", "forward" or "cash"),
            `side`, `quantity` (positive is long), `price` (paid today: asks where
            bought, bids where sold) and `cash_flow` (received today). A forward costs
            nothing and pays the spot minus its strike; a unit of cash pays 1 at its
            expiry. No rows if the quotes are free of arbitrage.
        """
        return self._legs(self.arbitrage.trades)

    def simplest_trade(self) -> pd.DataFrame:
        """The trade with the fewest options that earns something and cannot lose.

        Its smallest option leg is 1. See `trade` for the columns.
        """
        simplest = self.arbitrage.simplest
        return self._legs(() if simplest is None else (simplest,))

    def forward_ranges(self) -> pd.DataFrame:
        """Forwards and discount factors with which each expiry's quotes can be met.

        Only the quotes decide, those in the money included, so the check must have been
        made with `forwards="free"`. Quotes that the nearest surface is outside of may
        be left by as much as it leaves them.

        Returns:
            One row per slice: `lowest_forward`, `highest_forward`,
            `lowest_discount_factor` and `highest_discount_factor`.

        Raises:
            ValueError: If the forwards were given.
        """
        if "own_excess" not in self.slices:
            raise ValueError(
                'forwards were given; use `check_quotes(..., forwards="free")`'
            )
        nearest = self.arbitrage
        lines = []
        for i in range(len(self.slices)):
            own = nearest.expiry == i
            ranges = forward_range(
                strike=nearest.strike[own],
                bid=nearest.bid[own],
                ask=nearest.ask[own],
                is_call=nearest.is_call[own],
                forward=float(nearest.forwards[i]),
                discount_factor=float(nearest.discount_factors[i]),
                excess=nearest.excess[own],
            )
            lines.append((*ranges.forward, *ranges.discount_factor))
        names = [
            f"{end}_{name}"
            for name in ("forward", "discount_factor")
            for end in ("lowest", "highest")
        ]
        return pd.DataFrame(lines, index=self.slices.index, columns=names)

    def describe(self) -> str:
        """What is wrong with the quotes, in one sentence that names the trade."""
        return self.arbitrage.describe(self._names)

    def __repr__(self) -> str:
        nearest = self.arbitrage
        inside = int(np.count_nonzero(nearest.excess == 0.0))
        unit = "half-spreads" if self.unit == "half_spread" else "in currency"
        lines = [
            f"QuoteCheck({inside:,} of {len(nearest.excess):,} quotes of "
            f"{len(self.slices)} expiries inside, least excess "
            f"{nearest.total_excess:.6g} {unit})"
        ]
        if not self.is_arbitrage_free:
            words = nearest.simplest_in_words(self._names)
            lines.append(f"  {nearest.family}: {words} and cannot lose")
            table = self.slices.assign(name=self._names)
            table = table[table["outside"] > 0].nlargest(SHOWN, "excess")
            lines += [
                f"  {row.name}: outside {row.outside} of {row.quotes}, "
                f"by {row.excess:.6g}"
                for row in table.itertuples(index=False)
            ]
        lines += [f"  skipped {name}: {why}" for name, why in self.skipped.items()]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    @property
    def _names(self) -> list[str]:
        """Of the expiries, in words."""
        return [expiry_label(*key) for key in self.slices.index]

    def _legs(self, trades: tuple[Trade, ...]) -> pd.DataFrame:
        """Legs of trades, with their numbers and dates."""
        legs = self.arbitrage.legs(*trades)
        keys = self.slices.index[legs["expiry"].to_numpy()]
        legs["expiry"] = keys.get_level_values("expiry")
        legs.insert(2, "settlement", keys.get_level_values("settlement"))
        return legs


def check_quotes(
    quotes: Quotes | ExpiryQuotes | Iterable[Quotes | ExpiryQuotes],
    *,
    forwards: Forwards = "given",
    unit: Unit = "currency",
    calendar: bool = True,
    **reading: Unpack[Reading],
) -> QuoteCheck:
    r"""Is there a surface without arbitrage inside every bid and ask of a chain?

    If not, the nearest surface minimises the sum of the distances by which it is
    outside of quotes, over all surfaces free of static arbitrage, calendar arbitrage
    included. Rates are taken as known and dividends as a known share of the spot, so
    that expiries are compared at equal strikes over forwards. The answer is proved from
    both sides, up to `arbitrage.gap`: by the surface, and by a trade that earns as much
    as the surface is outside and that cannot lose. See
    `relu_options.arbitrage.excess` for the program.

    Args:
        quotes: A chain; what `read_chain` reads; or prepared quotes of several
            expiries, in any order.
        forwards: "given" takes forwards and discount factors as `prepare_quotes` finds
            them, and the out-of-the-money quotes that it chooses. "free" takes every
            quote, and makes forward and discount factor of each expiry unknowns; those
            with the least excess are used, the nearest to parity's among these, and
            the expiries are compared at them. So an excess within one expiry is then
            one for all forwards, while other forwards might do without one between
            expiries (`QuoteCheck.forward_ranges`).
        unit: "currency" counts each excess in currency units paid today,
            "half_spread" in half-spreads of its quote, a bid below intrinsic value
            counting as that value where forwards are given.
        calendar: False to leave the expiries unrelated.
        **reading: What is known of the quotes, and how to read them, as for
            `read_chain`: `quote_time`, `rate`, `columns` and so on.

    Returns:
        The least excess, the quotes in conflict, and the trade. Slices that cannot be
        prepared are in its `skipped`.

    Raises:
        QuoteError: If no slice can be prepared, or with `unit="half_spread"` the quotes
            of an expiry have no spreads.
        ValueError: If an option is unknown, or quotes are already prepared and forwards
            are to be free.
        FitError: If HiGHS does not solve a program.

    Examples:
        A call is worth less in the second month than in the first.

        >>> quotes = pd.DataFrame({
        ...     "expiry": ["2025-01-31"] * 3 + ["2025-02-28"] * 3,
        ...     "strike": [90.0, 100.0, 110.0] * 2, "option_type": "call",
        ...     "bid": [11.0, 4.0, 1.0, 11.2, 3.0, 1.2],
        ...     "ask": [11.2, 4.1, 1.1, 11.4, 3.2, 1.3], "forward": 100.0,
        ...     "discount_factor": 1.0})
        >>> check = check_quotes(quotes, quote_time="2025-01-02")
        >>> check  # doctest: +NORMALIZE_WHITESPACE
        QuoteCheck(5 of 6 quotes of 2 expiries inside, least excess 0.8 in currency)
          calendar_spread: sell 1 call 100 2025-01-31 PM at 4,
            buy 1 call 100 2025-02-28 PM at 3.2 earns 0.8 and cannot lose
          2025-01-31 PM: outside 1 of 3, by 0.8
        >>> print(check.trade()[["expiry", "strike", "quantity", "cash_flow"]])
              expiry  strike  quantity  cash_flow
        0 2025-01-31   100.0      -1.0        4.0
        1 2025-02-28   100.0       1.0       -3.2
    """
    _check_request(forwards, unit)
    ready = _slices_of(quotes, forwards, reading)
    weights = [_weights(one, unit) for one in ready.slices]
    implied = None
    if forwards == "free":
        ready, implied = _imply_forwards(ready, weights)
    nearest = least_chain_excess(
        [one.arguments for one in ready.slices], weights=weights, calendar=calendar
    )
    outside, excess = (
        np.bincount(nearest.expiry, values, len(ready.slices))
        for values in (nearest.excess > 0.0, nearest.excess)
    )
    table = pd.DataFrame(
        {
            "time_to_expiry": [one.time_to_expiry for one in ready.slices],
            "forward": nearest.forwards,
            "discount_factor": nearest.discount_factors,
            "quotes": np.bincount(nearest.expiry),
            "outside": outside.astype(int),
            "excess": excess,
        },
        index=pd.MultiIndex.from_tuples(
            [one.key for one in ready.slices], names=["expiry", "settlement"]
        ),
    )
    if implied is not None:
        table["own_excess"] = implied
    labels = [one.labels for one in ready.slices]
    return QuoteCheck(
        arbitrage=nearest,
        slices=table,
        labels=labels[0].append(labels[1:]),
        unit=unit,
        skipped=ready.skipped,
        notes=ready.notes,
    )


def repair_quotes(
    quotes: Quotes | ExpiryQuotes | Iterable[Quotes | ExpiryQuotes],
    *,
    forwards: Forwards = "given",
    calendar: bool = True,
    **reading: Unpack[Reading],
) -> pd.DataFrame:
    r"""The nearest prices without arbitrage, inside bid and ask wherever possible.

    First the least sum of excesses, in half-spreads, is found, as by `check_quotes`.
    Then, among prices that leave no quote by more than its excess, those are taken that
    minimise

    $$ \sum_i \frac{|p_i - \text{mid}_i|}{\text{half-spread}_i}. $$

    Where only mids are known, distances count in currency. The prices are free of
    arbitrage whatever the programs' tolerances: they are read off the surface that is
    the highest below them, `relu_options.arbitrage.excess` says how.

    Args:
        quotes: As for `check_quotes`, like all the others.
        forwards: "given", or "free", with which all quotes are repaired together: calls
            and puts then agree on one forward.
        calendar: False to leave the expiries unrelated.
        **reading: As for `read_chain`.

    Returns:
        The user's rows that were used, in order of expiry, with columns `forward` and
        `discount_factor`, `repaired` (the price, in currency units paid today), `moved`
        (that minus the mid) and `excess` (by how much it is outside of bid and ask).

    Raises:
        QuoteError: If no slice can be prepared.
        ValueError: As `check_quotes`.
        FitError: If HiGHS does not solve a program.

    Examples:
        The butterfly at 90, 100 and 110 costs 12.1 - 2 * 8.0 + 3.6 at the mids, which
        is -0.3, and the price in its middle falls by half of that.

        >>> quotes = pd.DataFrame({
        ...     "strike": [80.0, 90.0, 100.0, 110.0], "option_type": "call",
        ...     "bid": [20.8, 12.0, 7.8, 3.5], "ask": [21.0, 12.2, 8.2, 3.7],
        ...     "forward": 100.0, "discount_factor": 1.0, "time_to_expiry": 0.5})
        >>> print(repair_quotes(quotes)[["strike", "repaired", "moved", "excess"]])
           strike  repaired  moved  excess
        0    80.0     20.90   0.00     0.0
        1    90.0     12.10   0.00     0.0
        2   100.0      7.85  -0.15     0.0
        3   110.0      3.60   0.00     0.0
    """
    _check_request(forwards, "currency")
    ready = _slices_of(quotes, forwards, reading)
    weights = [_weights(one, "half_spread", strict=False) for one in ready.slices]
    if forwards == "free":
        ready, _ = _imply_forwards(ready, weights)
    nearest = least_chain_excess(
        [one.arguments for one in ready.slices],
        weights=weights,
        calendar=calendar,
        nearest_to_mids=True,
    )
    rows = pd.concat([one.rows for one in ready.slices])
    moved = nearest.price - 0.5 * (nearest.bid + nearest.ask)
    moved[np.abs(moved) <= ROUNDING * nearest.forwards[nearest.expiry]] = 0.0
    rows["forward"] = nearest.forwards[nearest.expiry]
    rows["discount_factor"] = nearest.discount_factors[nearest.expiry]
    return rows.assign(repaired=nearest.price, moved=moved, excess=nearest.excess)


@dataclass(frozen=True, eq=False)
class _Slice:
    """Quotes of one expiry and settlement, as they enter the programs.

    Attributes:
        key: Expiry and settlement; where there is no date, the years to expiry.
        time_to_expiry: Years.
        labels: The user's index.
        rows: The user's rows.
        used: Their places among the rows of the slice.
        arguments: Of `least_excess`.
        spread: Bid and ask between which a half-spread is counted.
        errors: Standard errors of forward and discount factor; None if given.
    """

    key: tuple[pd.Timestamp | float, str | None]
    time_to_expiry: float
    labels: pd.Index
    rows: pd.DataFrame
    used: np.ndarray
    arguments: dict[str, Any]
    spread: tuple[np.ndarray, np.ndarray]
    errors: tuple[float, float] | None

    @classmethod
    def of(cls, quotes: ExpiryQuotes) -> _Slice:
        """Prepared quotes."""
        parity, listed = quotes.parity, quotes.listed
        terms = {"forward": quotes.forward, "discount_factor": quotes.discount_factor}
        return cls(
            key=(
                quotes.time_to_expiry if quotes.expiry is None else quotes.expiry,
                quotes.settlement,
            ),
            time_to_expiry=quotes.time_to_expiry,
            labels=quotes.labels,
            rows=quotes.table,
            used=np.flatnonzero(quotes.report.codes == 0),
            arguments=listed | terms,
            spread=(listed["bid"], listed["ask"]),
            errors=None
            if parity is None
            else (parity.forward_standard_error, parity.discount_standard_error),
        )

    def of_all_rows(self, chain: OptionChain, rows: pd.DataFrame) -> _Slice:
        """All rows of the slice that were read, at the same terms; `rows` are its."""
        used = np.flatnonzero(chain.codes == 0)
        arrays = _arrays(chain.rows.iloc[used])
        rows = rows.iloc[used]
        return replace(
            self,
            labels=rows.index,
            rows=rows,
            used=used,
            arguments=self.arguments | arrays,
            spread=(arrays["bid"], arrays["ask"]),
        )


@dataclass(frozen=True, eq=False)
class _Slices:
    """What is checked, in order of time, and what is not."""

    slices: list[_Slice]
    skipped: dict[str, str]
    notes: tuple[str, ...]


def _check_request(forwards: str, unit: str) -> None:
    """Raise `ValueError` unless the options are known."""
    if forwards not in ("given", "free"):
        raise ValueError(f'`forwards` must be "given" or "free", not {forwards!r}')
    if unit not in ("currency", "half_spread"):
        raise ValueError(f'`unit` must be "currency" or "half_spread", not {unit!r}')


def _slices_of(
    quotes: Quotes | ExpiryQuotes | Iterable[Quotes | ExpiryQuotes],
    forwards: Forwards,
    reading: Reading,
) -> _Slices:
    """Prepared slices of whatever was given, in order of time."""
    prepared = prepare_slices(quotes, as_given=True, **reading)
    prepared.require_any()
    slices, skipped, kept = [], dict(prepared.skipped), []
    sources = zip(prepared.quotes, prepared.chains, prepared.rows, strict=True)
    for one, chain, rows in sources:
        one.require_lognormal(
            "expiries are compared in multiples of their forwards: check each with "
            "`least_excess(..., signed=True)`, or `fit_curve(...).quote_arbitrage`"
        )
        has_prices = one.implied_volatility is None
        part = _Slice.of(one)
        if forwards == "free":
            if chain is None or rows is None:
                raise ValueError(
                    "prepared quotes are those out of the money, which do not tell the "
                    'forward; pass the chain or the table with `forwards="free"`'
                )
            if not has_prices:
                skipped[one.label] = (
                    "quotes are volatilities, which do not tell the forward"
                )
                continue
            part = part.of_all_rows(chain, rows)
        elif has_prices and chain is not None:
            # With the bids of the chain's rows, also those below intrinsic value.
            quoted = _arrays(chain.rows.iloc[part.used])
            part = replace(part, arguments=part.arguments | quoted)
        slices.append(part)
        kept.append((one, chain))
    if not slices:
        name, why = next(iter(skipped.items()))
        raise QuoteError(
            f"none of {len(skipped)} slices can be prepared: {name}: {why}; see "
            "`chain.report()`"
        )
    slices.sort(key=lambda one: one.time_to_expiry)
    return _Slices(slices, skipped, _notes(kept, prepared.chain, forwards))


def _notes(
    prepared: list[tuple[ExpiryQuotes, OptionChain | None]],
    chain: OptionChain | None,
    forwards: Forwards,
) -> tuple[str, ...]:
    """Rows left out before, and options that can be exercised early."""
    counts = Counter[str]()
    if chain is not None:
        counts.update(_read_counts(chain))
    if forwards == "given":
        for one, part in prepared:
            counts.update(one.report.counts)
            if chain is not None and part is not None:
                counts.subtract(_read_counts(part))
    dropped = [
        (rule, n)
        for rule, n in counts.most_common()
        if n > 0 and rule not in SOUND_RULES
    ]
    notes = []
    if dropped:
        total = sum(n for _, n in dropped)
        shown = ", ".join(f"{n:,} {RULES[rule]}" for rule, n in dropped[:SHOWN])
        more = ", ..." if len(dropped) > SHOWN else ""
        notes.append(f"{total:,} rows were dropped before: {shown}{more}")
    if any(one.american for one, _ in prepared):
        notes.append(
            "American options can be exercised early: forwards are approximate, and a "
            "trade that sells them can be broken"
        )
    return tuple(notes)


def _read_counts(chain: OptionChain) -> dict[str, int]:
    """Rows that reading put under each rule."""
    counts = np.bincount(chain.codes, minlength=len(RULE_NAMES))
    return dict(zip(RULE_NAMES[1:], counts[1:].tolist(), strict=True))


def _arrays(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Canonical rows of one slice as arguments of `least_excess`."""
    bid, ask = rows["bid"].to_numpy(), rows["ask"].to_numpy()
    if not np.isfinite(bid).any():
        bid = ask = rows["mid"].to_numpy()
    return {
        "strike": rows["strike"].to_numpy(),
        "bid": bid,
        "ask": ask,
        "is_call": (rows["option_type"] == "call").to_numpy(dtype=bool),
    }


def _weights(one: _Slice, unit: Unit, *, strict: bool = True) -> np.ndarray:
    """How much a unit of excess of each quote counts.

    Without `strict`, an expiry without spreads counts in currency.
    """
    bid, ask = one.spread
    if unit == "currency" or not (strict or (ask > bid).any()):
        return np.ones(len(bid))
    return 1.0 / half_spreads(bid, ask)


def _imply_forwards(
    ready: _Slices, weights: list[np.ndarray]
) -> tuple[_Slices, list[float]]:
    """The slices at the forwards that serve best, and the excess of each at these."""
    slices, excess = [], []
    for one, weight in zip(ready.slices, weights, strict=True):
        forward_error, discount_error = one.errors or (None, None)
        implied = imply_forward(
            **one.arguments,
            weights=weight,
            forward_error=forward_error or None,
            discount_error=discount_error or None,
        )
        terms = {
            "forward": implied.forward,
            "discount_factor": implied.discount_factor,
        }
        slices.append(replace(one, arguments=one.arguments | terms))
        excess.append(implied.total_excess)
    return replace(ready, slices=slices), excess
