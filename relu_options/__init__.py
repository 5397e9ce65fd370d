"""Arbitrage-free option prices as one-layer ReLU networks.

Importing the package switches JAX to float64, for the whole process: a price curve
fitted in 64 bits and evaluated in 32 would silently lose half of its digits.
"""

import jax

jax.config.update("jax_enable_x64", True)

__version__ = "0.1.0"
