"""Fixtures that every test file shares."""

import matplotlib
import numpy as np
import pytest

import relu_options  # noqa: F401  (switches JAX to float64 before any test runs)

matplotlib.use("Agg")


@pytest.fixture
def rng():
    """A generator with a fixed seed: every run draws the same numbers."""
    return np.random.default_rng(20190517)
