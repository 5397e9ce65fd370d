"""What the two models of options share: each formula, as its docstring states it."""

import copy
import inspect
import pickle
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import norm

from relu_options import bachelier, black_scholes
from relu_options.formulas.option_model import OptionModel

MODULES = {"black_scholes": black_scholes, "bachelier": bachelier}
QUANTITIES = [name for name in vars(OptionModel) if name[0] != "_" and name != "name"]
QUANTITIES = [
    name for name in QUANTITIES if inspect.isfunction(vars(OptionModel)[name])
]
N, n = norm.cdf, norm.pdf


def random_options(rng, model, form, size=200):
    """Options and the market that they have, in the letters of the docstrings."""
    option = {
        "time_to_expiry": rng.uniform(0.02, 5.0, size),
        "is_call": rng.random(size) < 0.5,
    }
    deviation = rng.uniform(-3.0, 3.0, size)
    root = np.sqrt(option["time_to_expiry"])
    base = rng.uniform(20.0, 300.0, size)
    if form == "spot":
        r, q = rng.uniform(-0.02, 0.1, size), rng.uniform(0.0, 0.06, size)
        market = {"spot": base, "rate": r, "dividend_yield": q}
        G = np.exp((r - q) * option["time_to_expiry"])
        D = np.exp(-r * option["time_to_expiry"])
    else:
        r = q = np.zeros(size)
        G, D = np.ones(size), rng.uniform(0.8, 1.02, size)
        market = {"forward": base, "discount_factor": D}
    F = base * G
    if model == "black_scholes":
        option["volatility"] = rng.uniform(0.08, 0.9, size)
        option["strike"] = F * np.exp(deviation * option["volatility"] * root)
    else:
        option["volatility"] = rng.uniform(2.0, 40.0, size)
        option["strike"] = F + deviation * option["volatility"] * root
    return option, market, (D, F, G, r, q)


def as_stated(model, form, option, letters) -> dict[str, np.ndarray]:
    """The docstrings' formulas, with SciPy's normal law."""
    D, F, G, r, q = letters
    K, T, sigma = option["strike"], option["time_to_expiry"], option["volatility"]
    sign = np.where(option["is_call"], 1.0, -1.0)
    v, S = sigma * np.sqrt(T), F / G
    if model == "black_scholes":
        d1 = np.log(F / K) / v + v / 2
        d2 = d1 - v
        found = {
            "price": D * sign * (F * N(sign * d1) - K * N(sign * d2)),
            "gamma": D * G**2 * n(d1) / (F * v),
            "vega": D * F * np.sqrt(T) * n(d1),
            "theta": -D * F * n(d1) * sigma / (2 * np.sqrt(T)),
            "rho": sign * T * D * K * N(sign * d2),
            "vanna": -D * G * np.sqrt(T) * n(d1) * d2 / v,
            "volga": D * F * T * n(d1) * d1 * d2 / v,
            "density": n(d2) / (K * v),
        }
    else:
        d1 = d2 = (F - K) / v
        found = {
            "price": D * v * (n(d1) + sign * d1 * N(sign * d1)),
            "gamma": D * G**2 * n(d1) / v,
            "vega": D * np.sqrt(T) * n(d1),
            "theta": -D * n(d1) * sigma / (2 * np.sqrt(T)),
            "vanna": -D * G * np.sqrt(T) * n(d1) * d1 / v,
            "volga": D * T * n(d1) * d1**2 / v,
            "density": n(d1) / v,
        }
    delta = sign * D * G * N(sign * d1)
    found |= {
        "delta": delta,
        "charm": D * G * n(d1) * d2 / (2 * T),
        "strike_delta": -sign * D * N(sign * d2),
        "digital_price": D * N(sign * d2),
        "distribution": N(-d2),
    }
    if form == "spot":
        found["theta"] += r * found["price"] - (r - q) * S * delta
        found["charm"] += q * delta - (r - q) * S * found["gamma"]
        found.setdefault("rho", T * (S * delta - found["price"]))
    else:
        found["rho"] = -T * found["price"]
    return found


@pytest.mark.parametrize("form", ["forward", "spot"])
@pytest.mark.parametrize("model", MODULES)
def test_quantities_are_the_formulas_of_their_docstrings(rng, model, form):
    option, market, letters = random_options(rng, model, form)
    stated = as_stated(model, form, option, letters)
    inverse = {"implied_volatility", "strike_from_delta", "greeks"}
    assert stated.keys() == set(QUANTITIES) - inverse
    for name, expected in stated.items():
        given = dict(option)
        if name in ("distribution", "density"):
            del given["is_call"]
        result = getattr(MODULES[model], name)(**given, **market)
        scale = np.max(np.abs(expected))
        np.testing.assert_allclose(
            result, expected, rtol=1e-9, atol=1e-13 * scale, err_msg=name
        )


def test_a_model_shows_each_of_its_quantities_in_its_module():
    for name, module in MODULES.items():
        assert module.model.name == name
        bound = {
            value.__name__
            for value in vars(module).values()
            if inspect.ismethod(value) and value.__self__ is module.model
        }
        assert bound == set(QUANTITIES)


@pytest.mark.parametrize("model", MODULES)
def test_help_of_a_formula_fits_a_line_and_has_an_example(model):
    for name in MODULES[model].__all__:
        value = getattr(MODULES[model], name)
        if inspect.ismethod(value) or hasattr(value, "__signature__"):
            assert len(str(inspect.signature(value))) <= 88
            assert ">>> " in (inspect.getdoc(value) or "")


@pytest.mark.parametrize("model", MODULES)
def test_formulas_go_to_other_processes(model):
    """By name: what is compiled belongs to the one model."""
    module = MODULES[model]
    assert copy.deepcopy(module.model) is module.model
    assert pickle.loads(pickle.dumps(module.gamma)) == module.gamma
    formula = pickle.dumps(module.price)
    script = (
        f"import pickle; price = pickle.loads({formula!r});"
        "print(price(forward=1.0, strike=1.0, time_to_expiry=1.0, volatility=0.2) > 0)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert run.stdout == "True\n"
