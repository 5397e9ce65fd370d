"""The rules of CONTRIBUTING that the source itself can be asked about."""

import ast

from package_source import ROOT, circle, complexity, imports, measures, read_package

MODULES = read_package()
IMPORTS = imports(MODULES)

SEE_ALL = {"plotting", "plotting_backtest"}

UPWARD = {
    # A report says whether the quotes admit arbitrage, when it is asked.
    ("market_data.chain", "arbitrage.check"),
    # A slice is prepared from a chain, whose report prepares each slice.
    ("market_data.expiry_quotes", "market_data.chain"),
    # A curve says what no other can better, by a second fit, when it is asked.
    ("curves", "fitting.curve"),
}
"""Imports from a room below."""

DEFERRED = {
    ("market_data.chain", "arbitrage.check"),
    ("curves", "fitting.curve"),
    # Half a second, for those who train.
    ("fitting.curve", "fitting.curve_training"),
    ("fitting.curve", "fitting.training"),
    ("fitting.surface", "fitting.surface_training"),
    # A second, for those who draw.
    ("__main__", "matplotlib"),
    ("__main__", "matplotlib.pyplot"),
    ("backtest.command", "plotting_backtest"),
    # Optional, or warns while it is imported.
    ("market_data.stored_chain", "pyarrow"),
    ("progress", "tqdm.auto"),
}
"""Imports inside of functions, other than of `plot` methods and of `verify`."""

HARD = {
    # One page that stands alone, read from the first line to the last.
    "verify.verify",
}
"""Functions that are long or branch much: the list only becomes shorter."""

MOST = {"files": 161, "lines": 47_550, "numeric constants": 212}
"""What the package may have: lower it when it has less, and do not raise it."""


def test_no_module_imports_one_that_imports_it():
    edges = {
        (each.importer, each.module)
        for each in IMPORTS
        if each.module in MODULES
        and not (each.for_plot and each.module in SEE_ALL)
        and (each.importer, each.module) not in UPWARD
    }
    assert circle(edges) == []


def test_rooms_import_rooms_above_them():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = text.split("```rooms\n")[1].split("```")[0]
    rooms = [
        name for line in block.splitlines() for name in line.split("  ")[0].split()
    ]
    assert sorted(rooms) == sorted({name.split(".")[0] for name in MODULES if name})
    below = {
        (each.importer, each.module)
        for each in IMPORTS
        if each.importer
        and each.module in MODULES
        and each.module
        and not (each.for_plot and each.module in SEE_ALL)
        and rooms.index(each.module.split(".")[0])
        > rooms.index(each.importer.split(".")[0])
    }
    assert below <= UPWARD | DEFERRED


def test_a_circle_is_found():
    assert set(circle({("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")})) == set("abc")


def test_only_plots_import_what_draws():
    for each in IMPORTS:
        if each.module in SEE_ALL and each.importer not in SEE_ALL:
            assert each.for_plot or (each.importer, each.module) in DEFERRED, each


def test_deferred_imports_have_a_reason():
    deferred = {
        (each.importer, each.module)
        for each in IMPORTS
        if each.function and not each.for_plot and each.module != "verify"
    }
    assert deferred == DEFERRED


def test_no_private_name_crosses_a_file():
    crossing = {
        (each.importer, each.module, each.name)
        for each in IMPORTS
        if each.module in MODULES
        and each.name.startswith("_")
        and not each.name.startswith("__")
    }
    assert crossing == set()


def test_functions_are_short_and_branch_little():
    hard = {
        f"{name}.{each.name}"
        for name, module in MODULES.items()
        for each in module.functions
        if module.code_lines(each) > 60 or complexity(each) > 15
    }
    assert hard == HARD


def test_what_counts_as_code_and_as_a_branch():
    (module, *_), text = (
        MODULES.values(),
        '''
def f(x):
    """Text.

    More text.
    """
    # A comment.
    if x and x > 1:  # two

        return [y for y in x if y]
    return 0
''',
    )
    example = type(module)(module.path, text)
    (function,) = example.functions
    assert example.code_lines(function) == 4
    assert complexity(function) == 5
    numbers = type(module)(module.path, "A = 1\nB: int = -2\nC = (1, 2.0)\nD = 'x'\n")
    assert numbers.constants == ["A", "B", "C"]
    assert isinstance(example.tree, ast.Module)


def test_the_package_does_not_grow():
    found = measures(MODULES)
    assert {name: found[name] for name in MOST if found[name] > MOST[name]} == {}
