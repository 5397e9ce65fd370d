"""The layouts of vendors and exchanges, registered when this package is imported.

Names of columns are the vendors' own, as published in their documentation; where two
layouts could recognise one table, the more particular one is registered later.
"""

from relu_options.market_data.layouts import register_layout
from relu_options.market_data.vendors import (
    barchart,
    cboe,
    coins,
    india,
    lean,
    us_history,
    wide,
    yahoo,
)

for _layout in (
    *wide.LAYOUTS,
    *us_history.LAYOUTS,
    *coins.LAYOUTS,
    *india.LAYOUTS,
    *lean.LAYOUTS,
    *barchart.LAYOUTS,
    *yahoo.LAYOUTS,
    *cboe.LAYOUTS,
):
    register_layout(_layout)
