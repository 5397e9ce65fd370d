"""The certificate of a surface: settled, proved, and refused where anything is off."""

import ast
import copy
import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest

from relu_options import verify as verifier
from relu_options.arbitrage import (
    SurfaceCertificate,
    certify_surface,
    settle_weights,
)
from relu_options.surfaces import PriceSurface
from relu_options.verify import NotProved, verify, verify_surface

VERIFIER = Path(verifier.__file__)
PRECISE: Any = mpmath.MPContext()
PRECISE.dps = 50


def bandwidth(kernel_price):
    """The total volatility with this at-the-money price, to 50 digits."""
    return PRECISE.sqrt(8) * PRECISE.erfinv(kernel_price)


def log_grid(rng, n):
    """Kinks that widen in the wings, one of them 1, and convex kernel prices."""
    centre = int(rng.integers(1, n - 1))
    narrowest, widening = 10.0 ** rng.uniform(-3.0, -1.3), rng.uniform(0.03, 0.1)
    x = narrowest / widening * np.sinh(1.5 * widening * (np.arange(n) - centre))
    x *= min(1.0, 4.0 / np.abs(x).max())
    return np.exp(x), 0.4 * np.hypot(narrowest, widening * x)


def spread(rng, kinks, law):
    """A later law: a part of each interior weight moves to two kinks around it."""
    later = list(law)
    for j in range(1, len(kinks) - 1):
        part = law[j] * int(rng.integers(0, 9)) / 10  # a fraction of a fraction
        low, high = int(rng.integers(0, j)), int(rng.integers(j + 1, len(kinks)))
        share = (kinks[j] - kinks[low]) / (kinks[high] - kinks[low])
        later[j] -= part
        later[high] += part * share
        later[low] += part * (1 - share)
    return later


def ordered_laws(rng, kinks, count):
    """Laws with mean 1, each a spread of the one before."""
    law, laws = [type(s)(s == 1) for s in kinks], []
    for _ in range(count):
        law = spread(rng, kinks, spread(rng, kinks, law))
        laws.append(law)
    return laws


def certified(rng, count=4, n=12):
    """The certificate of a random surface whose expiries are in order."""
    kinks, kernel_prices = log_grid(rng, n)
    laws = ordered_laws(rng, kinks.tolist(), count)
    return certify_surface(
        kinks,
        settle_weights(laws, kinks),
        [float(bandwidth(p)) for p in kernel_prices],
        times=np.cumsum(rng.uniform(0.01, 0.5, count)),
        forwards=rng.uniform(50.0, 150.0, count),
        discount_factors=rng.uniform(0.8, 1.0, count),
        expiries=[f"expiry {i + 1}" for i in range(count)],
    )


def document(kinks, weights, kernel_prices=None):
    """A certificate as JSON holds it, of any numbers."""
    count = len(weights)
    return {
        "format": verifier.FORMAT,
        "expiries": [f"expiry {i + 1}" for i in range(count)],
        "times": [*range(1, count + 1)],
        "forwards": [100.0] * count,
        "discount_factors": [1.0] * count,
        "kinks": [plain(s) for s in kinks],
        "kernel_prices": [plain(p) for p in kernel_prices or [0.0] * len(kinks)],
        "weights": [[plain(w) for w in row] for row in weights],
    }


def plain(value):
    """Fractions as text."""
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    return float(value)


def is_proved(values):
    try:
        verify(values)
    except NotProved:
        return False
    return True


def run_alone(path):
    """The verifier as a program, without site-packages and environment."""
    return subprocess.run(
        [sys.executable, "-I", "-S", str(VERIFIER), str(path)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


# --- what the verifier accepts and refuses


def test_surfaces_in_order_are_proved(rng):
    for _ in range(100):
        count, n = int(rng.integers(1, 7)), int(rng.integers(3, 25))
        certificate = certified(rng, count, n)
        assert certificate, certificate
        lines = certificate.verify()
        assert lines[0].startswith("proved: no butterfly, call-spread or calendar")
        assert f"{count * n} weights" in lines[2]
        assert f"{(count - 1) * n} calendar" in lines[3]


def weight_off_by_a_little(rng, values):
    i, j = some_weight(rng, values)
    step = Fraction(int(rng.choice([-1, 1])), 10**12)
    values["weights"][i][j] = plain(Fraction(values["weights"][i][j]) + step)
    return "sum of weights is not 1|weights of .* below 0"


def weight_scaled(rng, values):
    i, j = some_weight(rng, values)
    factor = Fraction(1.0 + rng.choice([-1, 1]) * 10.0 ** rng.uniform(-12, -1))
    values["weights"][i][j] = plain(Fraction(values["weights"][i][j]) * factor)
    return "sum of weights is not 1"


def expiries_swapped(rng, values):
    i, j = rng.choice(len(values["times"]), 2, replace=False)
    rows = values["weights"]
    rows[i], rows[j] = rows[j], rows[i]
    return "skeleton of expiry . below the one before"


def times_swapped(rng, values):
    i, j = rng.choice(len(values["times"]), 2, replace=False)
    times = values["times"]
    times[i], times[j] = times[j], times[i]
    return "times not rising"


def kink_moved(rng, values):
    _, j = some_weight(rng, values)
    values["kinks"][j] *= 1.0 + 1e-12 * float(rng.choice([-1, 1]))
    return "no kink is 1|mean of weights is not 1"


def kernel_price_grown(rng, values):
    """To a millionth above the chord of its neighbours."""
    j = int(rng.integers(1, len(values["kinks"]) - 1))
    values["kernel_prices"][j] = (1.0 + 1e-6) * on_line(values, j - 1, j + 1, j)
    return f"kernel prices not convex in log s: kink {j + 1} of"


def kernel_price_shrunk(rng, values):
    """To a millionth below the line that its two neighbours on one side continue."""
    n = len(values["kinks"])
    j = int(rng.integers(1, n - 1))
    side = 1 if j < n / 2 else -1
    below = on_line(values, j + side, j + 2 * side, j) * (1.0 - 1e-6)
    values["kernel_prices"][j] = below
    if below < 0.0:
        return f"kernel prices below 0: kink {j + 1} of"
    return f"kernel prices not convex in log s: kink ({j}|{j + 2}) of"


def negative_weight_with_both_identities(rng, values):
    i = int(rng.integers(len(values["weights"])))
    row, kinks = values["weights"][i], [Fraction(s) for s in values["kinks"]]
    low, middle, high = sorted(rng.choice(len(kinks), 3, replace=False).tolist())
    amount = Fraction(row[middle]) + Fraction(10.0 ** -rng.uniform(0, 30))
    share = (kinks[middle] - kinks[low]) / (kinks[high] - kinks[low])
    for j, change in ((low, 1 - share), (middle, Fraction(-1)), (high, share)):
        row[j] = plain(Fraction(row[j]) + amount * change)
    return f"weights of expiry {i + 1} below 0: kink {middle + 1} of"


def some_weight(rng, values):
    """Expiry and kink of a weight that is not zero."""
    rows = [[float(Fraction(w)) for w in row] for row in values["weights"]]
    return tuple(int(x) for x in rng.choice(np.argwhere(np.array(rows) > 0.0)))


def on_line(values, i, j, k):
    """Kernel price at kink `k` of the line through those of two others, in log s."""
    x, p = np.log(values["kinks"]), values["kernel_prices"]
    return float(p[i] + (p[j] - p[i]) * (x[k] - x[i]) / (x[j] - x[i]))


@pytest.mark.parametrize(
    "mutate",
    [
        weight_off_by_a_little,
        weight_scaled,
        expiries_swapped,
        times_swapped,
        kink_moved,
        kernel_price_grown,
        kernel_price_shrunk,
        negative_weight_with_both_identities,
    ],
)
def test_whatever_is_changed_is_refused_and_named(mutate, rng):
    """Of each kind 125 times."""
    originals = [json.loads(certified(rng).to_json()) for _ in range(25)]
    for original in originals * 5:
        changed = copy.deepcopy(original)
        claim = mutate(rng, changed)
        with pytest.raises(NotProved, match=claim):
            verify(changed)


def test_another_surface_without_arbitrage_is_accepted(rng):
    """Scaling a forward or all times describes another market, not a false proof."""
    values = json.loads(certified(rng).to_json())
    values["forwards"][1] *= 2.0
    values["times"] = [2.0 * time for time in values["times"]]
    assert is_proved(values)


def test_two_expiries_may_have_one_label_but_not_one_time(rng):
    """The morning's and the afternoon's settlement of one date."""
    values = json.loads(certified(rng).to_json())
    values["expiries"] = ["2026-06-19"] * 4
    assert is_proved(values)
    values["weights"][1], values["weights"][2] = values["weights"][2:0:-1]
    assert not is_proved(values)
    values["times"][1] = values["times"][0]
    with pytest.raises(NotProved, match="times not rising: 2026-06-19, by 0"):
        verify(values)


def test_calendar_verdict_is_that_of_the_definition(rng):
    """Skeletons summed from their definition in fractions, with and without ties."""
    kinks = [Fraction(int(s), 8) for s in (1, 3, 5, 7, 8, 9, 12, 16, 24)]
    verdicts = []
    for _ in range(200):
        first = spread(rng, kinks, ordered_laws(rng, kinks, 1)[0])
        second = spread(rng, kinks, first) if rng.random() < 0.5 else list(first)
        if rng.random() < 0.8:  # a contraction, tiny or not
            amount = Fraction(10.0 ** -rng.uniform(0, 20)) * min(second[2], second[6])
            for j, part in ((2, -4), (4, 4 + 3), (6, -3)):
                second[j] += amount * part / 7
        in_order = all(
            sum(
                (b - a) * max(s - k, 0)
                for a, b, s in zip(first, second, kinks, strict=True)
            )
            >= 0
            for k in kinks
        )
        assert is_proved(document(kinks, [first, second])) == in_order
        verdicts.append(in_order)
    assert 20 < sum(verdicts) < 180


def test_convexity_verdict_is_that_of_fifty_digits(rng):
    """Points on a line in log s up to rounding: the sign of the rounding decides."""
    verdicts = []
    for _ in range(200):
        kinks, _ = log_grid(rng, 5)
        line = 0.3 + rng.uniform(-0.05, 0.05) * np.log(kinks)
        logs = [PRECISE.log(s) for s in kinks]
        slopes = [
            (PRECISE.mpf(line[j + 1]) - line[j]) / (logs[j + 1] - logs[j])
            for j in range(4)
        ]
        convex = all(slopes[j + 1] >= slopes[j] for j in range(3))
        one = [[float(s == 1.0) for s in kinks]]
        assert is_proved(document(kinks, one, line.tolist())) == convex
        verdicts.append(convex)
    assert 10 < sum(verdicts) < 190


@pytest.mark.parametrize("bits", [64, 256])
def test_logarithms_are_enclosed(bits, rng):
    for exponent in rng.uniform(-15.0, 3.0, 60):
        ratio = 1.0 + 10.0**exponent
        low, high = verifier._log(Fraction(ratio), bits)
        with mpmath.workdps(120):
            value = 2**bits * mpmath.log(mpmath.mpf(ratio))
            assert low <= value <= high
        assert ratio > 4.0 or high - low < 300  # of 2**bits


def test_a_tie_of_logarithms_is_not_proved_but_equal_prices_are():
    """1/4, 1/2 and 3/4 rise evenly over 1/2, 1 and 2, which no enclosure decides."""
    kinks, one = [0.5, 1.0, 2.0], [[0.0, 1.0, 0.0]]
    assert not is_proved(document(kinks, one, [0.25, 0.5, 0.75]))
    assert is_proved(document(kinks, one, [0.25, 0.5, 0.75 + 2**-53]))
    assert is_proved(document(kinks, one, [0.5, 0.5, 0.5]))


def test_kinks_and_kernel_prices_have_bounds():
    kinks, law = [0.0, 1.0, 2.0], [[0.25, 0.5, 0.25]]
    assert is_proved(document(kinks, law))  # a plain ReLU network may have an atom at 0
    for wrong, claim in (
        (document(kinks, law, [0.1, 0.1, 0.1]), "kinks not positive: kink 1 of 3"),
        (document([0.5, 1.0, 1.5], law, [0.2, 0.1, 1.0]), "kernel prices not below 1"),
        (document([0.5, 1.0, 1.5], law, [0.2, -0.1, 0.2]), "kernel prices below 0"),
        (document([0.5, 1.5, 1.0], law), "kinks not rising: kink 3 of 3"),
        (document([0.5, 1.25, 2.0], law), "no kink is 1: the nearest, by 0.25"),
        ({**document(kinks, law), "forwards": [0.0]}, "forwards not positive"),
        ({**document(kinks, law), "times": [-1]}, "times not positive: expiry 1, by 1"),
    ):
        with pytest.raises(NotProved, match=claim):
            verify(wrong)


# --- the verifier as a program


def test_program_needs_only_python(rng, tmp_path):
    tree = ast.parse(VERIFIER.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else node.names
            for name in names:
                assert getattr(name, "name", name) in sys.stdlib_module_names
    assert len(VERIFIER.read_text().splitlines()) <= 210
    certificate = certified(rng)
    path = tmp_path / "surface.json"
    certificate.to_json(path)
    done = run_alone(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == certificate.verify()
    early, *others = certificate.weights
    replace(certificate, weights=(*others, early)).to_json(path)
    done = run_alone(path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("not proved: skeleton of expiry 4 below the one")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.75", "NaN", "weights[0]: cannot convert NaN"),
        ("0.75", "-Infinity", "weights[0]: cannot convert Infinity"),
        ("0.75", "1e999", "weights[0]: cannot convert Infinity"),
        ("0.75", "1" + "0" * 400, "weights[0]: "),
        ("0.75", '"0.75"', "weights[0]: '0.75' is not a number"),
        ("0.75", '"3/0"', "weights[0]: Fraction(3, 0)"),
        ("0.75", '"3//4"', "weights[0]: Invalid literal for Fraction"),
        ("0.75", '"three"', "weights[0]: 'three' is not a number"),
        ("0.75", "true", "weights[0]: True is not a number"),
        ("0.75", "null", "weights[0]: None is not a number"),
        ("0.75", "[0.75]", "weights[0]: [0.75] is not a number"),
        ("0.75, ", "", "weights[0]: not a list of 3"),
        ('"kinks"', '"knots"', "kinks: not a list"),
        ('"weights"', '"masses"', "weights: not a list"),
        ('["June"]', '["June", "July"]', "times: not a list of 2"),
        ('["June"]', "[]", "expiries: not a list"),
        ('["June"]', '["June\\nproved: "]', "expiries: a label is not a text of one"),
        ('["June"]', "[6]", "expiries: a label is not a text of one"),
        ("0.75", '"' + "1" * 5000 + '/3"', "weights[0]: Exceeds the limit"),
        ("[100]", "100", "forwards: not a list of 1"),
        ("[[", '{"a": [', "Expecting ',' delimiter"),
        ("Certificate/1", "Certificate/2", "not a certificate: `format` is not"),
        ("{", "[{", "Expecting"),
    ],
)
def test_what_is_no_certificate_exits_with_two_and_one_line(
    old, new, message, tmp_path
):
    text = (
        '{"format": "relu_options.SurfaceCertificate/1", "expiries": ["June"], '
        '"times": [0.5], "forwards": [100], "discount_factors": [1], '
        '"kinks": [0.5, 1, 2], "kernel_prices": [0.2, 0.1, 0.2], '
        '"weights": [["1/6", 0.75, "1/12"]]}'
    )
    path = tmp_path / "surface.json"
    path.write_text(text)
    assert run_alone(path).returncode == 0
    assert old in text
    path.write_text(text.replace(old, new, 1))
    done = run_alone(path)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("no certificate: ")
    assert message.lower() in done.stdout.lower()
    assert done.stdout.count("\n") == 1


def test_what_is_no_text_exits_with_two(tmp_path):
    path = tmp_path / "surface.json"
    path.write_bytes(b"\xff\xfe\x00")
    outcomes = [run_alone(path), run_alone(tmp_path), run_alone(tmp_path / "none.json")]
    path.write_text("[" * 200_000)
    outcomes.append(run_alone(path))
    assert [(done.returncode, done.stderr) for done in outcomes] == [(2, "")] * 4


def surface_document(rng, count=4, n=12):
    """A surface as its file holds it, with the certificate in one field."""
    certificate = certified(rng, count, n)
    surface = PriceSurface(
        np.array(certificate.kinks),
        np.array([[float(w) for w in row] for row in certificate.weights]),
        np.array([float(bandwidth(p)) for p in certificate.kernel_prices]),
        np.array(certificate.times),
        np.array(certificate.forwards),
        np.array(certificate.discount_factors),
        certificate.expiries,
        spot=100.0,
    )
    return json.loads(surface.to_json())


def add(amount):
    """A change of the third number of a list, or of a list's first list."""

    def change(values):
        row = values[0] if isinstance(values[0], list) else values
        row[2] += amount
        return values

    return change


@pytest.mark.parametrize(
    ("name", "change", "code", "message"),
    [
        ("forwards", add(1e-9), 1, "forwards of surface and certificate differ"),
        ("kinks", add(1e-15), 1, "kinks of surface and certificate differ"),
        ("bandwidths", add(1e-9), 1, "prices change by more than 1e-13"),
        ("weights", add(1e-9), 1, "prices change by more than 1e-13"),
        ("weights", add(-2.0), 1, "weights of the surface below 0: expiry 1, by"),
        ("bandwidths", add(-2.0), 1, "bandwidths below 0: the least, by"),
        ("spot", lambda spot: -spot, 1, "spot not positive: time zero, by 100"),
        ("spot", str, 2, "spot: '100.0' is not a number"),
        ("times", lambda times: [str(times[0]), *times[1:]], 2, "is not a number"),
        ("kinks", lambda kinks: [*kinks, 9.0], 1, "kinks of surface and certificate"),
        ("expiries", lambda labels: labels[::-1], 1, "expiries of surface and"),
        ("weights", lambda rows: rows[1:], 2, "weights: not a list of 4"),
        ("format", lambda name: name + "0", 2, "not a surface: `format` is not"),
        ("certificate", str, 2, "not a certificate: `format` is not"),
    ],
)
def test_a_surface_must_be_the_one_that_was_certified(
    name, change, code, message, rng, tmp_path
):
    """A file may hold a surface in floats, with its certificate in one field."""
    surface = surface_document(rng)
    path = tmp_path / "surface.json"
    for spot, labels in ((100.0, surface["expiries"]), (None, [])):
        path.write_text(json.dumps({**surface, "spot": spot, "expiries": labels}))
        done = run_alone(path)
        assert (done.returncode, done.stderr) == (0, "")
    path.write_text(json.dumps({**surface, name: change(copy.deepcopy(surface[name]))}))
    done = run_alone(path)
    assert (done.returncode, done.stderr) == (code, "")
    assert message in done.stdout
    del surface[name]
    path.write_text(json.dumps(surface))
    assert (run_alone(path).returncode == 0) == (name == "spot")


def test_prices_and_not_numbers_must_be_the_certified_ones():
    """A weight of 9e-13 at a far kink makes a calendar spread worth -9 per cent."""
    surface = PriceSurface(
        np.array([0.5, 1.0, 1.5, 1e11]),
        np.array([[0.25, 0.5, 0.25, 0.0]] * 2),
        np.full(4, 0.1),
        np.array([1.0, 2.0]),
        np.full(2, 100.0),
        np.ones(2),
    )
    values = json.loads(surface.to_json())
    assert verify_surface(values)[-1].startswith("the surface's own prices: the same")
    values["weights"][0][3] = 9e-13
    with pytest.raises(NotProved, match="of the forward: 1, by"):
        verify_surface(values)
    text = json.dumps(values)
    assert surface_violation(text, [2.0]) == pytest.approx(0.09)
    assert not PriceSurface.from_json(text).certificate


def test_what_would_take_minutes_is_refused_at_once():
    """Fractions of 4,000 digits whose common denominator has a million bits."""
    parts = [Fraction(1, 10**3999 + 2 * i + 1) for i in range(700)]
    values = document([i / 100 for i in range(1, 701)], [parts])
    with pytest.raises(ValueError, match="weights: 700 numbers over a denominator of"):
        verify(values)


def test_program_runs_as_a_module(rng, tmp_path):
    """Without a warning that the package had imported it."""
    certified(rng).to_json(tmp_path / "surface.json")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "relu_options.verify", "surface.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("proved")


# --- whatever is in a file, what is proved has no arbitrage


def unit_price(s, k, h):
    """Of a call on a lognormal variable of mean `s`, a limit included."""
    if s == 0 or h == 0:
        return max(s - k, PRECISE.mpf(0))
    return unit(s, k, h)


def rational(value):
    """To 50 digits."""
    return PRECISE.mpf(value.numerator) / value.denominator


def violation(kinks, weights, bandwidths, strikes):
    """The largest in discounted forwards, of laws, of skeletons and of prices.

    Laws and skeletons are those of the definition, in fractions; prices of calls are
    summed in fifty digits.
    """
    s = [Fraction(x) for x in kinks]
    laws = [[Fraction(w) for w in row] for row in weights]
    worst = Fraction(0)
    for law in laws:
        mean = sum(w * x for w, x in zip(law, s, strict=True))
        below = [-w * (1 + x) for w, x in zip(law, s, strict=True)]
        worst = max(worst, abs(sum(law) - 1), abs(mean - 1), *below)
    units = [
        [
            unit_price(rational(x), rational(Fraction(k)), h)
            for x, h in zip(s, bandwidths, strict=True)
        ]
        for k in strikes
    ]
    worst = rational(worst)
    for early, late in pairwise(laws):
        change = [b - a for a, b in zip(early, late, strict=True)]
        for k in s:
            skeleton = sum(d * max(x - k, 0) for d, x in zip(change, s, strict=True))
            worst = max(worst, -rational(skeleton))
        moved = [rational(d) for d in change]
        for prices in units:
            worst = max(worst, -PRECISE.fdot(moved, prices))
    return worst


def surface_violation(text, strikes):
    """That of a surface as it is read."""
    surface = PriceSurface.from_json(text)
    assert surface.spot is None or surface.spot > 0.0
    widths = [PRECISE.mpf(h) for h in surface.bandwidths.tolist()]
    rows = surface.weights.tolist()
    return violation(surface.kinks.tolist(), rows, widths, strikes)


def some_document(rng):
    """A surface of a few kinks, one of which may be far away and have no weight."""
    values = surface_document(rng, int(rng.integers(1, 4)), int(rng.integers(3, 8)))
    if rng.random() < 0.6:
        far = 10.0 ** rng.choice([rng.uniform(1, 20), rng.uniform(20, 300)])
        slope = np.diff(values["bandwidths"])[-1] / np.diff(np.log(values["kinks"]))[-1]
        rise = slope * np.log(far / values["kinks"][-1])
        width = min(values["bandwidths"][-1] + 1.5 * max(rise, 0.0), 6.0)
        surface = PriceSurface(
            np.append(values["kinks"], far),
            np.pad(values["weights"], ((0, 0), (0, 1))),
            np.append(values["bandwidths"], width),
            times=np.array(values["times"]),
            forwards=np.array(values["forwards"]),
            discount_factors=np.array(values["discount_factors"]),
        )
        values = json.loads(surface.to_json())
    return values


ODD = (
    *(0, 1, -1, 0.0, -0.0, 5e-324, 1e-300, 1e-13, 1e-12, 1e300, -1e300, 1.7e308),
    *(10**17 + 1, 10**400, float("nan"), float("inf"), -float("inf"), True, False),
    *(None, "", "0", "1", "1/2", "-1/3", "1/0", "nan", "0.5", "x", "1/" + "7" * 4000),
    *([], [[]], [0.5], [[[0.5]]], {}, {"a": 1}),
)


def places_of(values, path=()):
    """The paths to everything in a document."""
    found: list[tuple] = [path] if path else []
    if isinstance(values, dict | list):
        keys = values if isinstance(values, dict) else range(len(values))
        for key in keys:
            found += places_of(values[key], (*path, key))
    return found


def mutate_anything(rng, values: Any):
    """Put something else, or a number near by, in one place; or take it away."""
    places = places_of(values)
    *path, last = places[int(rng.integers(len(places)))]
    holder = values
    for key in path:
        holder = holder[key]
    old, dice = holder[last], rng.random()
    if dice < 0.1:
        del holder[last]
    elif dice < 0.5 and isinstance(old, float | str):
        holder[last] = nearby(rng, old)
    elif dice < 0.6 and isinstance(holder, list):
        holder.append(copy.deepcopy(old))
    else:
        holder[last] = copy.deepcopy(ODD[int(rng.integers(len(ODD)))])


def nearby(rng, value):
    """A number a little or much off, relative or absolute."""
    try:
        value = float(Fraction(value))
    except (ValueError, ArithmeticError):
        return value
    change = float(rng.choice([-1, 1])) * 10.0 ** -rng.choice(
        [rng.uniform(0, 17), rng.uniform(10, 320)]
    )
    return value + change if rng.random() < 0.5 else value * (1.0 + change)


def mutate_weights(rng, values):
    """Weights of the surface alone, by hardly anything, at any kink."""
    rows = values["weights"]
    for _ in range(int(rng.integers(1, 4))):
        row = rows[int(rng.integers(len(rows)))]
        j = int(rng.integers(len(row)))
        row[j] = nearby(rng, row[j])


def mutate_both(rng, values):
    """Surface and certificate alike, so that they agree on something else."""
    name = str(rng.choice([*verifier.TERMS, "kinks", "weights"]))
    mine, proof = values[name], values["certificate"][name]
    if name == "weights":
        i = int(rng.integers(len(mine)))
        mine, proof = mine[i], proof[i]
    j = int(rng.integers(len(mine)))
    mine[j] = proof[j] = nearby(rng, mine[j])


def mutate_bandwidths(rng, values):
    """All of them, wide or narrow; kernel prices fit, nearly or not at all."""
    scale = 10.0 ** rng.uniform(-8, 2.5)
    flat = rng.random() < 0.5
    widths = [scale if flat else scale * h for h in values["bandwidths"]]
    values["bandwidths"] = widths
    prices = [float(2 * PRECISE.ncdf(PRECISE.mpf(h) / 2) - 1) for h in widths]
    prices = [min(p, 1.0 - 2.0**-53) for p in prices]
    if rng.random() < 0.5:
        j = int(rng.integers(len(prices)))
        prices[j] = nearby(rng, prices[j])
    values["certificate"]["kernel_prices"] = prices


def mutation(rng, values):
    kinds = (mutate_anything, mutate_weights, mutate_both, mutate_bandwidths)
    for _ in range(int(rng.integers(1, 3))):
        kinds[int(rng.integers(4))](rng, values)


def outcome(prove, values):
    """Whether proved; whatever else happens must be an error that the program names."""
    try:
        return bool(prove(values))
    except (ValueError, TypeError, ArithmeticError):
        return False


def assert_no_false_proofs(rng, draws):
    """Of mutated surfaces and of mutated certificates; returns how many were proved."""
    surfaces = certificates = 0
    for _ in range(draws):
        values = some_document(rng)
        strikes = np.exp(rng.uniform(-1.5, 1.5, 4)).tolist()
        for _ in range(20):
            changed = copy.deepcopy(values)
            try:
                mutation(rng, changed)
            except (AttributeError, IndexError, KeyError, TypeError, ValueError):
                continue  # the first of two mutations left no place for the second
            text = json.dumps(changed)
            changed = json.loads(text)
            if outcome(verify_surface, changed):
                surfaces += 1
                assert surface_violation(text, strikes) <= 1e-12, text
            proof = changed.get("certificate")
            if outcome(verify, proof):
                certificates += 1
                numbers = SurfaceCertificate.from_json(json.dumps(proof))
                widths = [
                    bandwidth(rational(Fraction(p))) for p in numbers.kernel_prices
                ]
                found = violation(numbers.kinks, numbers.weights, widths, strikes)
                assert found <= 1e-40, text
    return surfaces, certificates


def test_no_mutated_surface_or_certificate_is_proved_falsely(rng):
    """400 of each."""
    surfaces, certificates = assert_no_false_proofs(rng, 20)
    assert surfaces > 20
    assert certificates > 60


# --- the certificate object


def test_certified_identities_are_exact_and_changes_are_rounding(rng):
    for _ in range(30):
        kinks, kernel_prices = log_grid(rng, 20)
        weights = settle_weights(ordered_laws(rng, kinks.tolist(), 3), kinks)
        certificate = certify_surface(
            kinks, weights, kernel_prices, [0.1, 0.2, 0.4], np.ones(3), np.ones(3)
        )
        sites = [Fraction(s) for s in kinks.tolist()]
        changes = []
        for row, given in zip(certificate.weights, weights.tolist(), strict=True):
            exact = [Fraction(w) for w in row]
            assert sum(exact) == 1
            assert sum(w * s for w, s in zip(exact, sites, strict=True)) == 1
            moved = [abs(w - Fraction(g)) for w, g in zip(exact, given, strict=True)]
            assert sum(change > 0 for change in moved) <= 2
            changes.append(sum(d * (1 + s) for d, s in zip(moved, sites, strict=True)))
        assert float(max(changes)) < certificate.largest_change < 1e-14
        assert certificate.expiries == ("0.1 years", "0.2 years", "0.4 years")


def test_kernel_prices_are_those_of_the_hidden_units():
    widths = np.array([0.0, 1e-12, 0.003, 0.2, 1.5, 6.0])
    kinks = np.array([0.5, 0.8, 1.0, 1.25, 1.5, 2.0])
    law = [[0.0, 0.0, 1.0, 0.0, 0.0, 0.0]]
    certificate = certify_surface(kinks, law, widths, [1.0], [1.0], [1.0])
    for price, width in zip(certificate.kernel_prices, widths, strict=True):
        true = 2 * PRECISE.ncdf(PRECISE.mpf(width) / 2) - 1
        assert price == pytest.approx(float(true), rel=3e-16, abs=0.0)


def test_no_weight_at_the_forward_is_certified_by_others():
    """Rounding is then taken up below and above the forward."""
    kinks = [0.9, 1.0, 1.1]
    certificate = certify_surface(
        kinks, [[0.5, 0.0, 0.5]], [0.1] * 3, [1.0], [100.0], [1.0]
    )
    assert certificate
    assert certificate.weights[0][1] == 0.0
    assert 0.0 < certificate.largest_change < 1e-14


def test_one_hidden_unit_is_certified():
    flat = certify_surface([1.0], [[1.0], [1.0]], [0.2], [1.0, 2.0], [1, 1], [1, 1])
    assert flat
    assert flat.largest_change < 1e-15  # of the kernel price
    assert not certify_surface([1.0], [[0.9]], [0.2], [1.0], [1.0], [1.0])
    assert not certify_surface([1.1], [[1.0]], [0.2], [1.0], [1.0], [1.0])


def test_json_round_trip_loses_nothing(rng, tmp_path):
    certificate = certified(rng)
    assert SurfaceCertificate.from_json(certificate.to_json()) == certificate
    path = tmp_path / "surface.json"
    certificate.to_json(path)
    assert SurfaceCertificate.from_json(path) == certificate
    assert SurfaceCertificate.from_json(str(path)) == certificate
    for old, new, message in (
        ("Certificate/1", "Certificate/9", "no format"),
        ('"kinks"', '"knots"', "no field 'kinks'"),
        ('"expiries"', '"weights": [[null]], "expiries"', "no field|NoneType"),
    ):
        text = certificate.to_json()
        if "null" in new:
            text = json.dumps({**json.loads(text), "weights": [[None]]})
        with pytest.raises(ValueError, match=message):
            SurfaceCertificate.from_json(text.replace(old, new, 1))


def test_frame_shows_how_far_from_failing(rng):
    kinks = [0.5, 1.0, 1.5]
    certificate = certify_surface(
        kinks,
        [[0.125, 0.75, 0.125], [0.25, 0.5, 0.25]],
        [0.1] * 3,
        [1.0, 2.0],
        [100.0, 101.0],
        [0.99, 0.98],
        ["May", "June"],
    )
    frame = certificate.to_frame()
    assert frame.index.tolist() == ["May", "June"]
    assert frame["least_weight"].tolist() == [0.125, 0.25]
    assert frame["mass_is_one"].all()
    assert frame["mean_is_one"].all()
    assert np.isnan(frame["least_slack"].iloc[0])
    assert frame["least_slack"].iloc[1] == 0.5  # 1/16 and 1/8 at the forward
    assert frame["tightest_kink"].iloc[1] == 1.0
    off = replace(certificate, weights=((0.125, 0.75, 0.25), (0.25, 0.5, 0.25)))
    assert off.to_frame()["mass_is_one"].tolist() == [False, True]
    assert repr(off) == (
        "not proved free of arbitrage: sum of weights is not 1: May, by 0.125"
    )


def test_a_certificate_holds_only_for_the_network_it_was_made_of():
    """Two weights replaced by others are another network, with other prices."""
    off: Any = {"kinks": [0.5, 1.0, 1.5], "weights": [[0.25, 0.25, 0.5]]}
    terms: Any = {"times": [1.0], "forwards": [100.0], "discount_factors": [1.0]}
    certificate = certify_surface(**off, bandwidths=[0.1] * 3, **terms)
    assert certificate.largest_change == pytest.approx(0.25 * 2.0 + 0.25 * 2.5)
    assert "1e-13 of the forward: the given network, by 1.125" in repr(certificate)
    again = SurfaceCertificate.from_json(certificate.to_json())
    assert not again
    # A law of the right weights whose widths cannot be told from kernel prices.
    right: Any = {"kinks": [0.5, 1.0, 1.5], "weights": [[0.25, 0.5, 0.25]]}
    assert certify_surface(**right, bandwidths=[6.0] * 3, **terms)
    assert not certify_surface(**right, bandwidths=[7.0] * 3, **terms)
    # Replacing a negative weight would hide it.
    negative = [[-(2.0**-60), 1.0, 2.0**-60]]
    assert not certify_surface([0.5, 1.0, 1.5], negative, bandwidths=[0.1] * 3, **terms)


def test_a_certificate_of_lists_cannot_be_changed_afterwards():
    row, kinks = [0.25, 0.5, 0.25], [0.5, 1.0, 1.5]
    certificate = SurfaceCertificate(
        *([1.0], [100.0], [1.0], kinks, [0.0] * 3),  # type: ignore[arg-type]
        weights=[row],  # type: ignore[arg-type]
        expiries=["June"],  # type: ignore[arg-type]
    )
    assert certificate
    row[0], kinks[1] = 9.0, 2.0
    assert certificate.verify()


def test_certify_refuses_shapes_and_proves_no_nonsense():
    terms: Any = {"times": [1.0], "forwards": [1.0], "discount_factors": [1.0]}
    good: Any = {"kinks": [0.5, 1.0, 1.5], "weights": [[0.25, 0.5, 0.25]]}
    with pytest.raises(ValueError, match="must be of shapes"):
        certify_surface(**good, bandwidths=[0.1, 0.1], **terms)
    with pytest.raises(ValueError, match="2 expiries for 1 times"):
        certify_surface(**good, bandwidths=[0.1] * 3, expiries=["a", "b"], **terms)
    for name, value in (
        ("weights", [[0.25, np.nan, 0.25]]),
        ("kinks", [0.5, 1.0, np.inf]),
        ("kinks", [0.5, np.nan, 1.5]),
        ("bandwidths", [0.1, np.nan, 0.1]),
        ("times", [np.inf]),
    ):
        given: Any = {**good, "bandwidths": [0.1] * 3, **terms, name: value}
        certificate = certify_surface(**given)
        assert not certificate
        assert "cannot convert" in repr(certificate)


# --- settling


def without_centre(laws, kinks):
    """The laws with nothing at the forward, and no order left."""
    above, below = kinks > 1.0, kinks < 1.0
    laws = np.where(kinks == 1.0, 0.0, np.maximum(laws, 0.0))
    puts, calls = (
        laws[:, below] @ (1 - kinks[below]),
        laws[:, above] @ (kinks[above] - 1),
    )
    laws[:, above] *= (puts / calls)[:, None]
    return laws / laws.sum(axis=1, keepdims=True)


def test_what_was_settled_is_proved_whatever_the_noise(rng):
    """Repeated expiries, noise of a solver, wings without weight, crossed wings."""
    refused = 0
    for draw in range(1500):
        count, n = int(rng.integers(2, 6)), int(rng.integers(3, 22))
        kinks, _ = log_grid(rng, n)
        laws = np.array(ordered_laws(rng, kinks.tolist(), count))
        laws = np.repeat(laws, rng.integers(1, 3, count), axis=0)
        laws *= 1.0 + 1e-12 * rng.standard_normal(laws.shape)
        laws += 1e-17 * rng.standard_normal(laws.shape)
        laws[rng.random(laws.shape) < 0.03] += 1e-25
        emptied = rng.random() < 0.2 and laws[:, kinks == 1.0].max() < 0.9
        if emptied:
            laws = without_centre(laws, kinks)
        settled = settle_weights(laws, kinks)
        assert emptied or np.abs(settled - laws).max() < 1e-9
        times = np.arange(1.0, 1.0 + len(laws))
        ones = np.ones(len(laws))
        certificate = certify_surface(kinks, settled, np.zeros(n), times, ones, ones)
        assert certificate, certificate
        np.testing.assert_allclose(
            settle_weights(settled, kinks), settled, rtol=0.0, atol=1e-14
        )
        if draw % 30 == 0:
            raw = certify_surface(kinks, laws, np.zeros(n), times, ones, ones)
            refused += not raw
    assert refused > 25  # of 50, as they were


def test_tiny_weights_are_proved():
    """Down to 1e-300, where denominators have a thousand bits."""
    kinks = np.exp(0.05 * np.arange(-30, 31))
    kinks[30] = 1.0
    spots = np.log(kinks)
    laws = []
    for volatility in np.linspace(0.05, 0.3, 40):
        law = np.exp(-0.5 * (spots / volatility) ** 2)
        above, below = kinks > 1.0, kinks < 1.0
        law[above] *= (
            law[below] @ (1 - kinks[below]) / (law[above] @ (kinks[above] - 1))
        )
        laws.append(law / law.sum())
    laws = np.array(laws)
    assert 0.0 < laws.min() < 1e-190
    laws[0, 0] = 1e-300
    settled = settle_weights(laws, kinks)
    ones = np.ones(40)
    raw = certify_surface(kinks, laws, np.full(61, 0.02), np.arange(1, 41), ones, ones)
    assert raw
    assert raw.weights[0][0] == 1e-300
    assert certify_surface(
        kinks, settled, np.full(61, 0.02), np.arange(1, 41), ones, ones
    )


def test_settled_weights_are_proved_where_products_underflow(rng):
    """Weights of a few times 5e-324, which have no digits to compare."""
    kinks = np.array([0.25, 0.3, 0.7, 1.0, 1.3, 2.0])
    for _ in range(50):
        laws = np.tile([0.0, 0.0, 0.1, 0.8, 0.1, 0.0], (3, 1))
        laws[:, [0, 1, 5]] = 5e-324 * rng.integers(0, 9, (3, 3))
        settled = settle_weights(laws, kinks)
        assert certify_surface(
            kinks, settled, np.zeros(6), [1.0, 2.0, 3.0], np.ones(3), np.ones(3)
        )


def test_settling_leaves_alone_what_is_settled(rng):
    kinks, _ = log_grid(rng, 15)
    laws = np.array([row for row in ordered_laws(rng, kinks.tolist(), 9)[::4]])
    np.testing.assert_allclose(
        settle_weights(laws, kinks), laws, atol=1e-15, rtol=1e-13
    )


def test_settling_takes_the_kinkwise_maximum(rng):
    """Of the skeletons so far, summed from their definition; to a part in 1e11."""
    raised = 0
    for _ in range(50):
        kinks, _ = log_grid(rng, 12)
        laws = [ordered_laws(rng, kinks.tolist(), 3)[-1] for _ in range(3)]
        above = np.maximum(kinks[:, None] - kinks, 0.0)
        options = np.where(kinks < 1.0, np.maximum(kinks - kinks[:, None], 0.0), above)
        given = np.array(laws) @ options
        highest = np.maximum.accumulate(given, axis=0)
        settled = settle_weights(laws, kinks)
        np.testing.assert_allclose(settled @ options, highest, rtol=1e-11, atol=1e-18)
        assert (settled >= 0.0).all()
        raised += np.sum(highest > 1.01 * given)
    assert raised > 100


@pytest.mark.parametrize(
    ("weights", "kinks", "message"),
    [
        ([0.25, 0.5, 0.25], [0.5, 1.0, 1.5], r"shapes \(N, n\) and \(n,\)"),
        ([[0.25, 0.5, 0.25]], [0.5, 1.0], r"shapes \(N, n\) and \(n,\)"),
        ([[0.25, 0.5, 0.25]], [0.5, 1.5, 1.0], "kinks must increase"),
        ([[0.25, 0.5, 0.25]], [0.5, 1.1, 1.5], "with 1.0 between"),
        ([[0.25, 0.5, 0.25]], [1.0, 1.1, 1.5], "with 1.0 between"),
        (
            [[0.25, 0.5, 0.25], [0.2, 0.5, 0.3]],
            [0.5, 1.0, 1.5],
            "0.05 at expiry 2 of 2",
        ),
        ([[0.25, np.nan, 0.25]], [0.5, 1.0, 1.5], "off by nan at expiry 1"),
        ([[0.25, 0.5, 0.26]], [0.5, 1.0, 1.5], "mass or mean"),
    ],
)
def test_settling_refuses_what_is_no_law(weights, kinks, message):
    with pytest.raises(ValueError, match=message):
        settle_weights(weights, kinks)


# --- the theorems


def unit(s, k, width, sign=1):
    """Price of a call (put: sign -1) on a lognormal variable with mean `s`."""
    d_minus = PRECISE.log(s / k) / width - width / 2
    in_the_money = PRECISE.ncdf(sign * d_minus)
    return sign * (s * PRECISE.ncdf(sign * (d_minus + width)) - k * in_the_money)


def bend(kernel_price, x, k):
    """Second difference in `s` of the unit whose kernel price is a function of x.

    That of the call and of the put are one; the one out of the money has more digits.
    """
    step = PRECISE.mpf(10) ** -12
    s, sign = PRECISE.exp(x), 1 if PRECISE.log(k) > x else -1
    moved = [x + PRECISE.log(1 + i * step) for i in (-1, 0, 1)]
    low, middle, high = (
        unit(PRECISE.exp(y), k, bandwidth(kernel_price(y)), sign) for y in moved
    )
    return (low - 2 * middle + high) / (s * step) ** 2


def critical_strike(kernel_price, x):
    """Where the unit is least convex: one over h' widths of log-moneyness away."""
    slope = PRECISE.diff(lambda y: bandwidth(kernel_price(y)), x)
    return PRECISE.exp(x - bandwidth(kernel_price(x)) / slope)


def test_units_are_convex_in_the_kink_where_kernel_prices_are_in_its_logarithm(rng):
    """A hyperbola, into wings where it is a straight line to a part in 1e6."""
    for _ in range(25):
        a, b = 10.0 ** rng.uniform(-3, -1), rng.uniform(0.02, 0.2)
        x = PRECISE.mpf(rng.choice([-1, 1]) * 10.0 ** rng.uniform(-2.0, 0.6))

        def hyperbola(y, a=a, b=b):
            return PRECISE.sqrt(a**2 + (b * y) ** 2)

        h = bandwidth(hyperbola(x))
        strikes = [PRECISE.exp(x + h * z) for z in rng.uniform(-6.0, 6.0, 3)]
        for k in (critical_strike(hyperbola, x), *strikes):
            assert bend(hyperbola, x, k) > 0


@pytest.mark.parametrize("curvature", [-1e-2, -1e-5, 1e-5, 1e-2])
def test_curvature_of_the_kernel_price_decides(curvature):
    """At the critical strike the sign is that of p'', however small it is."""
    for x in (-0.7, -0.1, 0.2, 0.9):

        def parabola(y, x=x):
            return 0.15 + 0.08 * (y - x) + curvature * (y - x) ** 2 / 2

        x = PRECISE.mpf(x)
        value = bend(parabola, x, critical_strike(parabola, x))
        assert value * curvature > 0


def test_ordered_skeletons_with_convex_kernel_prices_are_ordered_at_every_strike(rng):
    """400 pairs of laws in exact order, at 25 strikes in and beyond the kinks."""
    for grid in range(20):
        kinks = sorted(
            {Fraction(1), *(Fraction(int(s), 64) for s in range(20, 160, 17))}
        )
        x = [PRECISE.log(PRECISE.mpf(s.numerator) / s.denominator) for s in kinks]
        if grid % 2:
            prices = [PRECISE.hypot(0.02, 0.1 * y) for y in x]
        else:  # straight between kinks, falling and rising
            slopes = np.sort(rng.uniform(-0.2, 0.2, len(x) - 1))
            prices = [PRECISE.mpf(0)]
            for slope, low, high in zip(slopes, x[:-1], x[1:], strict=True):
                prices.append(prices[-1] + slope * (high - low))
            least = min(prices)
            prices = [p - least + 0.001 for p in prices]
        widths = [bandwidth(p) for p in prices]
        units = [
            [
                unit(PRECISE.exp(y), PRECISE.exp(z), h)
                for y, h in zip(x, widths, strict=True)
            ]
            for z in rng.uniform(-2.0, 2.0, 25)
        ]
        for _ in range(20):
            early, late = ordered_laws(rng, kinks, 2)
            change = [
                PRECISE.mpf((b - a).numerator) / (b - a).denominator
                for a, b in zip(map(Fraction, early), map(Fraction, late), strict=True)
            ]
            for values in units:
                assert PRECISE.fdot(change, values) >= -(PRECISE.mpf(10) ** -45)


def test_a_concave_kernel_price_breaks_the_calendar_order():
    """Spreading mass from the kink at 1 makes some call cheaper."""
    kinks = [Fraction(9, 10), Fraction(1), Fraction(11, 10)]
    laws = [[0, 1, 0], [Fraction(1, 4), Fraction(1, 2), Fraction(1, 4)]]
    x = [PRECISE.log(PRECISE.mpf(s.numerator) / s.denominator) for s in kinks]
    for middle, ordered in ((0.1, True), (0.16, False)):
        prices = [0.1, middle, 0.2]
        differences = []
        for z in np.linspace(-0.5, 0.5, 101):
            early, *late = (
                sum(
                    PRECISE.mpf(float(w))
                    * unit(PRECISE.exp(y), PRECISE.exp(z), bandwidth(p))
                    for w, y, p in zip(law, x, prices, strict=True)
                )
                for law in laws
            )
            differences.append(late[0] - early)
        assert (min(differences) >= 0) == ordered
        assert is_proved(document(kinks, laws, prices)) == ordered
