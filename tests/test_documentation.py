"""Everything a reader may paste - docstrings, README, notebooks - runs as written."""

import doctest
import importlib
import inspect
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import matplotlib.pyplot as plt
import nbclient
import nbformat
import pytest

import relu_options as ro

ROOT = Path(__file__).resolve().parent.parent
MODULES = ["relu_options"] + [
    module.name for module in pkgutil.walk_packages(ro.__path__, "relu_options.")
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
USED = inspect.isclass, inspect.isfunction, inspect.ismethod


def exported_modules():
    """The modules that a user imports from: none is private, nor of the solver."""
    for name in MODULES:
        parts = name.split(".")[1:]
        if any(part.startswith("_") for part in parts) or parts[:1] == ["fitting"]:
            continue
        module = importlib.import_module(name)
        if len(parts) > 1 and not hasattr(module, "__all__"):
            continue  # its package exports what is for users
        yield module


def exported_names():
    """What these modules define or export, with its object: functions and classes."""
    found = {}
    for module in exported_modules():
        names = getattr(module, "__all__", None)
        if names is None:
            names = [
                name
                for name, value in vars(module).items()
                if not name.startswith("_")
                and getattr(value, "__module__", None) == module.__name__
            ]
        for name in names:
            value = getattr(module, name)
            if any(kind(value) for kind in USED):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


def blocks(language):
    """The code blocks of the README in one language."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def shell_commands():
    """The commands of the README's shell blocks, `&&` and comments taken apart."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    commands = [part.strip() for line in lines for part in line.split("&&")]
    return [shlex.split(command, comments=True) for command in commands if command]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    results = doctest.testmod(importlib.import_module(name))
    plt.close("all")
    assert results.failed == 0


def test_every_exported_name_has_an_example():
    names = exported_names()
    assert {"relu_options.curves.PriceCurve", "relu_options.networks.relu"} <= {*names}
    without = [
        name
        for name, value in names.items()
        if ">>>" not in (inspect.getdoc(value) or "")
    ]
    assert without == []


def test_readme_examples_run(tmp_path, monkeypatch):
    """From top to bottom, as one script."""
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    plt.close("all")
    assert namespace["portfolio"].price(namespace["curve"]) == pytest.approx(
        namespace["curve"].discount_factor
        * namespace["curve"].expectation(namespace["payoff"]),
        rel=1e-10,
    )


def test_readme_names_only_what_is_there():
    """Files it links to, and names of the package in its table."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert all((ROOT / link).is_file() for link in links)
    names = re.findall(r"`ro\.(\w+)", text)
    assert names
    assert all(hasattr(ro, name) for name in names)
    for module, name in re.findall(r"`relu_options\.(\w+)(?:\.(\w+))?`", text):
        home = importlib.import_module(f"relu_options.{module}")
        assert not name or hasattr(home, name)


def test_readme_commands_are_two_that_install_and_run():
    """One installs and fits, one installs and tests, each with extras that exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installs = [command for command in shell_commands() if command[0] == "pip"]
    others = [command for command in shell_commands() if command[0] != "pip"]
    assert others == [
        ["relu-options", "fit"],
        ["python", "-m", "pytest"],
    ]
    for command in installs:
        assert command[:3] == ["pip", "install", "-e"]
        extras = re.fullmatch(r"\.(?:\[(\w+(?:,\w+)*)\])?", command[3])
        assert extras is not None, command
        if extras[1]:
            assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
    assert len(installs) == 2


@pytest.mark.parametrize(
    "command",
    [command for command in shell_commands() if command[0] == "relu-options"],
    ids=" ".join,
)
def test_readme_command_writes_what_it_promises(command, tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "relu_options", *command[1:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert all(
        word in run.stdout
        for word in ("forward", "discount factor", "inside spread", "certificate")
    )
    assert (tmp_path / "fit.png").stat().st_size > 10_000
    assert ro.PriceCurve.from_json(tmp_path / "fit.json").certificate


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_top_to_bottom(path, tmp_path):
    """Every cell runs without a word on standard error, and as it was committed."""
    shutil.copy(path, tmp_path)
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": tmp_path}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    complaints = [
        output.text for output in outputs if output.get("name", "") == "stderr"
    ]
    assert complaints == []
    assert path.stat().st_size < 400_000
