"""The laws that an underlying may have at expiry, with the models of their options."""

from typing import Literal, TypeAlias

from relu_options.formulas import bachelier, black_scholes
from relu_options.formulas.option_model import OptionModel

Law: TypeAlias = Literal["lognormal", "normal"]
"""Of an underlying that is positive, or of one that may be negative."""

MODELS: dict[Law, OptionModel] = {
    "lognormal": black_scholes.model,
    "normal": bachelier.model,
}
"""The models by the law."""
