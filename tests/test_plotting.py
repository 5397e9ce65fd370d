"""Pictures: what is drawn, and where."""

import warnings
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.markers import CARETDOWN
from scipy.integrate import trapezoid

import relu_options as ro
from relu_options.plotting import plot_curve, plot_surface

QUOTES = pd.DataFrame(
    {
        "strike": [60.0, 80.0, 90.0, 95.0, 100.0, 105.0, 110.0, 120.0, 150.0],
        "option_type": ["put"] * 4 + ["call"] * 5,
        "bid": [0.0, 0.35, 1.75, 3.3, 5.5, 3.5, 2.1, 0.65, 0.0],
        "ask": [0.05, 0.45, 1.9, 3.5, 5.7, 3.7, 2.3, 0.75, 0.05],
        "currency": "EUR",
        "underlying": "XYZ",
        "expiry": "2025-09-19",
        "quote_time": "2025-03-14",
    }
)


@pytest.fixture(autouse=True)
def close_figures():
    """Each test starts and leaves without open figures."""
    assert plt.get_fignums() == []
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def curve():
    return ro.fit_curve(QUOTES, forward=100.0, discount_factor=1.0)


@pytest.fixture(scope="module")
def flat():
    return ro.BlackScholesCurve(volatility=0.2, forward=100.0, time_to_expiry=0.5)


def panels(axes: Axes) -> tuple[Axes, Axes]:
    """Volatilities above, density below; the figure has no others."""
    upper, lower = axes.get_figure().axes  # type: ignore[union-attr]
    assert upper is axes
    return upper, lower


def line(axes: Axes, label: str):
    """The x and y of the line with this label."""
    found = [one for one in axes.lines if one.get_label() == label]
    assert len(found) == 1, [one.get_label() for one in axes.lines]
    return (np.asarray(values, float) for values in found[0].get_data())


def legend(axes: Axes) -> list[str]:
    box = axes.get_legend()
    assert box is not None
    return [text.get_text() for text in box.get_texts()]


def bars(axes: Axes) -> dict[str, np.ndarray]:
    """Strike, bottom and top of the bars, by label."""
    found = {}
    for one in axes.collections:
        if isinstance(one, LineCollection):
            ends = np.array(one.get_segments())
            found[one.get_label()] = np.column_stack([ends[:, 0], ends[:, 1, 1]])
    return found


def test_a_new_figure_shows_volatilities_above_and_the_density_below(curve):
    upper, lower = panels(plot_curve(curve))
    assert upper.get_ylabel() == "implied volatility, %"
    assert lower.get_ylabel() == "density × forward"
    assert lower.get_xlabel() == "strike, EUR"
    assert upper.get_xlim() == lower.get_xlim()
    upper.figure.canvas.draw()
    assert upper.get_position().y0 >= lower.get_position().y1
    assert upper.get_title() == (
        "XYZ 2025-09-19 PM (0.518 years), forward 100, inside 9 of 9 spreads"
    )


def test_a_picture_can_be_written_without_a_warning(curve, flat, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        axes = curve.plot(comparators=[flat])
        axes.get_figure().savefig(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 10_000


def test_given_axes_are_drawn_into_and_nothing_else_is(curve):
    figure, (left, right) = plt.subplots(1, 2)
    before = left.get_position().bounds
    assert plot_curve(curve, left) is left
    assert plt.get_fignums() == [figure.number]
    assert len(figure.axes) == 3
    assert not right.lines
    assert not right.collections
    figure.canvas.draw()
    upper, lower = left.get_position(), figure.axes[2].get_position()
    x, y, width, height = before
    assert x - 1e-9 <= lower.x0 <= lower.x1 <= x + width + 1e-9
    assert lower.y0 == pytest.approx(y)
    assert upper.y1 == pytest.approx(y + height)


def test_the_line_is_the_curve_and_the_area_its_density(curve):
    upper, lower = panels(plot_curve(curve))
    strikes, volatility = line(upper, "network of 64 kinks")
    shown = np.isfinite(volatility)
    np.testing.assert_allclose(
        volatility[shown], 100 * curve.implied_volatility(strikes[shown])
    )
    # Solid between the quotes with a bid, dotted beyond.
    assert strikes[shown].min() == pytest.approx(80.0, abs=0.5)
    assert strikes[shown].max() == pytest.approx(120.0, abs=0.5)
    strikes, density = line(lower, "network of 64 kinks")
    np.testing.assert_allclose(density, 100.0 * curve.density(strikes))
    shown = np.diff(curve.distribution(strikes[[0, -1]]))[0]
    assert trapezoid(density, strikes / 100.0) == pytest.approx(shown, abs=1e-5)
    assert shown > 0.9


def test_bars_are_the_spreads_and_a_zero_bid_is_a_caret_at_its_ask(curve):
    """No bar goes down to a volatility of zero."""
    axes = plot_curve(curve)
    table = bars(axes)["bid to ask"]
    assert list(table[:, 0]) == [80.0, 90.0, 95.0, 100.0, 105.0, 110.0, 120.0]
    fitted = 100 * curve.implied_volatility(table[:, 0])
    assert np.all((table[:, 1] < fitted) & (fitted < table[:, 2]))
    carets = [one for one in axes.lines if one.get_marker() == CARETDOWN]
    strikes, asks = (np.asarray(values) for values in carets[0].get_data())
    assert list(strikes) == [60.0, 150.0]
    assert np.all(asks > table[:, 1].min())
    bottom, top = axes.get_ylim()
    assert 0.5 * fitted.min() < bottom < table[:, 1].min()
    assert table[:, 2].max() < top < 2.0 * table[:, 2].max()


def test_strikes_are_shown_where_the_quotes_are(curve):
    """Neither the strikes of 60 and 150, without a bid, nor the tails of the law."""
    low, high = plot_curve(curve).get_xlim()
    assert 65.0 < low < 80.0
    assert 120.0 < high < 135.0


def test_comparators_are_in_both_panels_and_both_legends(curve, flat):
    upper, lower = panels(plot_curve(curve, comparators=[flat]))
    for axes in (upper, lower):
        assert {"network of 64 kinks", "Black-Scholes, 20 %"} <= {*legend(axes)}
    strikes, volatility = line(upper, "Black-Scholes, 20 %")
    np.testing.assert_allclose(volatility, 20.0)
    _, density = line(lower, "Black-Scholes, 20 %")
    np.testing.assert_allclose(density, 100.0 * flat.density(strikes))


def test_comparators_may_have_names(curve, flat):
    axes = plot_curve(curve, comparators={"last night": curve, "flat": flat})
    assert {"last night", "flat"} <= {*legend(axes)}


def test_quotes_that_the_curve_leaves_are_set_apart():
    quotes = QUOTES.copy()
    quotes.loc[6, ["bid", "ask"]] += 0.8
    spoiled = ro.fit_curve(quotes, forward=100.0, discount_factor=1.0)
    axes = plot_curve(spoiled)
    assert list(bars(axes)["bid to ask, left by the curve"][:, 0]) == [110.0]
    assert "inside 8 of 9 spreads" in axes.get_title()


def test_mids_are_dots():
    mids = QUOTES.assign(mid=0.5 * (QUOTES["bid"] + QUOTES["ask"]))
    curve = ro.fit_curve(
        mids.drop(columns=["bid", "ask"]), forward=100.0, discount_factor=1.0
    )
    axes = plot_curve(curve)
    strikes, _ = line(axes, "quoted mid")
    assert list(strikes) == list(QUOTES["strike"])
    assert "spreads" not in axes.get_title()


def test_sharp_kinks_are_a_histogram_whose_area_is_one(curve):
    sharp = ro.fit_curve(QUOTES, forward=100.0, discount_factor=1.0, smoothing=0.0)
    _, lower = panels(plot_curve(sharp, comparators=[curve]))
    steps: Any = [one for one in lower.patches if hasattr(one, "get_data")]
    values, edges, _ = steps[0].get_data()
    assert np.sum(values * np.diff(edges)) / 100.0 == pytest.approx(1.0, abs=1e-6)


def test_a_curve_without_quotes_is_drawn_over_its_distribution(flat):
    upper, lower = panels(flat.plot())
    low, high = upper.get_xlim()
    assert flat.distribution(low) < 0.01 < 0.99 < flat.distribution(high)
    assert legend(upper) == ["Black-Scholes, 20 %"]
    assert upper.get_title() == "0.5 years, forward 100"
    assert lower.get_xlabel() == "strike, currency units"


def test_a_bid_of_zero_is_in_the_legend_where_it_is_in_the_picture(curve):
    label = "ask, with a bid of zero"
    assert label not in legend(plot_curve(curve))
    near = QUOTES.replace({"strike": {60.0: 75.0}})
    assert label in legend(plot_curve(ro.fit_curve(near, forward=100.0)))


@pytest.mark.parametrize(
    "times", [[0.25], [0.1, 0.12], [0.01, 0.5, 3.0], np.geomspace(0.02, 2.0, 12)]
)
def test_a_heat_map_ends_with_the_last_expiry_and_is_read_in_plain_years(times):
    surface = ro.BlackScholesSurface(volatilities=0.2, times=times, forwards=100.0)
    axes = plot_surface(surface, "local_volatility")
    bottom, top = axes.get_ylim()
    assert top == pytest.approx(times[-1])
    assert bottom == pytest.approx(times[0] if len(times) > 1 else times[0] / 3.0)
    axes.figure.canvas.draw()
    shown = [tick.get_text() for tick in axes.get_yticklabels()]
    places = [float(text) for text in shown if text]
    assert sum(bottom <= place <= top for place in places) >= 2
    assert not any(tick.get_text() for tick in axes.get_yticklabels(minor=True))


@pytest.mark.parametrize("kind", ["smiles", "total_variance"])
def test_a_legend_says_how_many_expiries_it_leaves_out(kind):
    times = np.linspace(0.1, 1.0, 10)
    surface = ro.BlackScholesSurface(volatilities=0.2, times=times, forwards=100.0)
    box = plot_surface(surface, kind).get_legend()
    assert box is not None
    assert box.get_title().get_text() == "9 of 10 expiries"
    few = ro.BlackScholesSurface(volatilities=0.2, times=times[:9], forwards=100.0)
    box = plot_surface(few, kind).get_legend()
    assert box is not None
    assert box.get_title().get_text() == ""
