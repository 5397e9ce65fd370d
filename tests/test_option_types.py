"""What option types mean: prices of calls fall with the strike, those of puts rise."""

import ast
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from relu_options import black_scholes
from relu_options.errors import QuoteError
from relu_options.greeks_table import add_greeks
from relu_options.market_data import OptionChain, read_chain

WORDS = [("call", "put"), ("C", "P"), ("CE", "PE")]
CODES = [(1, 0), (1.0, 0.0), ("1", "0"), (1, -1), (True, False)]
HOW: dict[str, Any] = {"quote_time": "2025-03-14 16:00", "rate": 0.03}


def quoted(rng, *, of=("call", "put"), strikes=9, american=False) -> pd.DataFrame:
    """Two expiries with spreads, every tenth quote stale, in any order."""
    parts = []
    for expiry, years in (("2025-06-20", 0.27), ("2025-12-19", 0.77)):
        forward, volatility = rng.uniform(90, 110), rng.uniform(0.1, 0.5)
        deviations = np.sort(rng.uniform(-1.5, 1.5, strikes))
        for kind in of:
            strike = (forward * np.exp(deviations * volatility * years**0.5)).round(2)
            price = black_scholes.price(
                forward=forward * np.where(rng.random(strikes) < 0.1, 1.01, 1.0),
                strike=strike,
                time_to_expiry=years,
                volatility=volatility,
                is_call=kind == "call",
            )
            half = rng.uniform(0.01, 0.04, strikes)
            part = {"strike": strike, "type": kind, "expiry": expiry}
            parts.append(
                part | {"bid": np.maximum(price - half, 0), "ask": price + half}
            )
    table = pd.concat(map(pd.DataFrame, parts)).sample(frac=1.0, random_state=rng)
    return table.assign(style="american" if american else "european")


def written(table: pd.DataFrame, call: Any, put: Any) -> pd.DataFrame:
    return table.assign(type=table["type"].map({"call": call, "put": put}))


@pytest.mark.parametrize("american", [False, True])
@pytest.mark.parametrize(("call", "put"), WORDS + CODES)
def test_types_that_prices_contradict_are_refused_with_the_map_that_mends_them(
    call, put, american, rng
):
    table = quoted(rng, american=american)
    right = read_chain(written(table, call, put), **HOW)
    assert not [note for note in right.notes if "option types" in note]
    wrong = written(table, put, call)
    with pytest.raises(QuoteError, match="prices say the reverse") as refused:
        read_chain(wrong, **HOW)
    message = str(refused.value)
    assert {f"{call!r} = call", f"{put!r} = put"} <= {
        *re.findall(r"\S+ = \w+", message)
    }
    wrong["type"] = wrong["type"].map(_remedy(message))
    pd.testing.assert_frame_equal(read_chain(wrong, **HOW).table, right.table)


@pytest.mark.parametrize("kind", ["call", "put"])
@pytest.mark.parametrize(("call", "put"), CODES)
def test_prices_of_one_kind_tell_what_a_code_means(call, put, kind, rng):
    table = quoted(rng, of=(kind,))
    assert _types(read_chain(written(table, call, put), **HOW)) == {kind}
    wrong = written(table, put, call)
    with pytest.raises(QuoteError, match="prices say the reverse") as refused:
        read_chain(wrong, **HOW)
    wrong["type"] = wrong["type"].map(_remedy(str(refused.value)))
    assert _types(read_chain(wrong, **HOW)) == {kind}


def test_a_word_of_one_kind_stands_whatever_prices_say(rng):
    """Calls that rise with the strike are an arbitrage, not puts."""
    chain = read_chain(quoted(rng, of=("put",)).assign(type="call"), **HOW)
    assert _types(chain) == {"call"}


@pytest.mark.parametrize(
    ("call", "put", "noted"), [(1, 0, True), ("0", "1", True), (1, -1, False)]
)
def test_where_prices_do_not_tell_zeros_and_ones_are_noted(call, put, noted, rng):
    """One strike of each expiry; the map in the note gives the other reading."""
    table = written(quoted(rng, strikes=1), call, put)
    chain = read_chain(table, **HOW)
    notes = [note for note in chain.notes if "prices do not tell" in note]
    assert len(notes) == noted
    if noted:
        assert notes[0] in repr(chain.report())
        table["type"] = table["type"].map(_remedy(notes[0]))
        other = read_chain(table, **HOW)
        assert (other.table["option_type"] != chain.table["option_type"]).all()


def test_greeks_are_of_the_types_that_prices_tell(rng):
    table = written(quoted(rng), 0, 1).rename(columns={"type": "option_type"})
    table["time_to_expiry"] = table.pop("expiry").map(
        {"2025-06-20": 0.27, "2025-12-19": 0.77}
    )
    with pytest.raises(QuoteError, match="prices say the reverse") as refused:
        add_greeks(table, forward=100.0)
    table["option_type"] = table["option_type"].map(_remedy(str(refused.value)))
    calls = table["option_type"] == "call"
    delta = add_greeks(table, forward=100.0)["delta"]
    assert (delta[calls].dropna() > 0.0).all()
    assert (delta[~calls].dropna() < 0.0).all()


def _remedy(message: str) -> dict:
    found = re.search(r"`\.map\((\{.*\})\)`", message)
    assert found is not None
    return ast.literal_eval(found[1])


def _types(chain: OptionChain) -> set[str]:
    return {*chain.table["option_type"]}
