"""The project keeps what it says of itself: what it needs, and what its tests need."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TESTS = sorted((ROOT / "tests").glob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))


def canonical(name: str) -> str:
    """A distribution's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(extra: str) -> set[str]:
    """The distributions that an extra names, those of the package among them."""
    found = set()
    for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"][extra]:
        name, *extras = re.findall(r"[\w.-]+", re.split("[<>=!~; ]", line)[0])
        found.add(canonical(name))
        for other in extras if name == PROJECT["name"] else ():
            found |= requirements(other)
    return found


def imports(path: Path) -> Iterator[str]:
    """The packages that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield f"{node.module}"
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            names = (getattr(argument, "value", None) for argument in node.args)
            yield from (name for name in names if isinstance(name, str))


def files_imported(paths: list[Path]) -> set[Path]:
    """These files, and those of the benchmarks that they import."""
    found: set[Path] = set()
    waiting = list(paths)
    while waiting:
        path = waiting.pop()
        found.add(path)
        for name in imports(path):
            home = ROOT.joinpath(*name.split("."))
            inside = [home.with_suffix(".py"), *home.glob("*.py")]
            waiting += [one for one in inside if one in BENCHMARKS and one not in found]
    return found


def test_the_test_extra_brings_all_that_tests_import():
    """So that no test skips, and none fails, after the README's command."""
    brought = requirements("test")
    ours = {path.stem for path in [*TESTS, *BENCHMARKS]} | {"benchmarks", "peers"}
    homes = packages_distributions()
    missing = {}
    for path in files_imported(TESTS):
        for name in {name.split(".")[0] for name in imports(path)} - ours:
            if name in sys.stdlib_module_names:
                continue
            if not brought & {canonical(home) for home in homes.get(name, [name])}:
                missing[name] = path.name
    assert missing == {}


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_only_one_reason_excuses_a_test_from_what_the_extra_brings(path):
    """Real quotes, asked for by `real_quotes`; nothing else may be missing."""
    if path.stem in ("real_quotes", Path(__file__).stem):
        return
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"importorskip|pytest\.skip\(|ImportError:\n", text)
    assert not re.search(r"""["']shared["'/]""", text)
