"""A remedy that a message names can be taken: some public function has the argument."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

import relu_options

PACKAGE = Path(relu_options.__file__).parent
REMEDY = re.compile(
    r"(?:pass|name (?:it|them) with|choose one with|add|give|use|or) `(\w+)="
)
# Ways in that are methods or modules of formulas, beside the names at the root.
ENTRIES = {"__init__", "from_json", "to_json", "plot", "prepare_quotes"}
CALLS = re.compile(r"`(?:ro\.|relu_options\.)?([a-z]\w+)\(")


class Function:
    """A function of the package: what it takes, what it says, whom it calls."""

    def __init__(self, node: ast.FunctionDef, owner: str | None, path: Path):
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        self.takes = {argument.arg for argument in every}
        self.open_ended = arguments.kwarg is not None
        self.name, self.owner, self.module = node.name, owner, path.stem
        self.is_layout = path.parent.name == "vendors"
        self.says: list[str] = []
        self.calls: set[str] = set()
        docstring = ast.get_docstring(node, clean=False)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                if inner.value != docstring:
                    self.says.append(inner.value)
            elif isinstance(inner, ast.Name):
                self.calls.add(inner.id)
            elif isinstance(inner, ast.Attribute):
                self.calls.add(inner.attr)


def functions() -> list[Function]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                found.append(Function(node, None, path))
            elif isinstance(node, ast.ClassDef):
                fields = {
                    field.target.id
                    for field in node.body
                    if isinstance(field, ast.AnnAssign)
                    and isinstance(field.target, ast.Name)
                }
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef):
                        method = Function(inner, node.name, path)
                        if inner.name in ("__post_init__", "__init__"):
                            method.takes |= fields
                        found.append(method)
    return found


EVERY = functions()
REMEDIES = sorted(
    {
        (function.module, function.owner or "", function.name, argument)
        for function in EVERY
        for text in function.says
        for argument in REMEDY.findall(text)
    }
)


def public_names() -> set[str]:
    formulas = {"option_model", "black_scholes", "bachelier"}
    names = set(dir(relu_options)) | ENTRIES
    names |= {one.name for one in EVERY if one.module in formulas}
    classes = {one for one in dir(relu_options) if one[0].isupper()}
    return names | {
        one.name for one in EVERY if one.owner in classes and one.name[0] != "_"
    }


@pytest.fixture(scope="module")
def reached_from() -> dict[str, set[str]]:
    """Of each name, those of the functions through which it may be reached."""
    callers = defaultdict(set)
    for function in EVERY:
        if function.is_layout:  # registered, and called as a value
            callers[function.name].add("read_chain")
        for name in function.calls:
            callers[name].add(function.name)
            if function.name in ("__post_init__", "__init__", "of"):
                callers[name].add(function.owner or "")
    reached = {}
    for start in {one.name for one in EVERY}:
        seen, waiting = {start}, [start]
        while waiting:
            for caller in callers[waiting.pop()] - seen:
                seen.add(caller)
                waiting.append(caller)
        reached[start] = seen
    return reached


def test_there_are_remedies_to_check():
    assert len(REMEDIES) > 30


@pytest.mark.parametrize(("module", "owner", "name", "argument"), REMEDIES)
def test_an_argument_that_a_message_names_can_be_passed(
    reached_from, module, owner, name, argument
):
    """By a public function through which the message is reached, or the class."""
    ways = reached_from[name] | {owner} | reached_from.get(owner, set())
    public = public_names()
    takers = {
        one.owner if one.name in ("__post_init__", "__init__") else one.name
        for one in EVERY
        if argument in one.takes
    }
    reading = {one.name for one in EVERY if one.open_ended}
    assert takers & (ways & public | {owner}) or (
        # What is read is described once, and handed on whole.
        reading & ways & public and "read_chain" in takers
    ), f"{module}.{name} says `{argument}=`, and nothing public there takes it"


def test_functions_that_messages_name_exist():
    known = {one.name for one in EVERY} | {"len", "list", "dict", "sorted", "sum"}
    missing = {
        (function.module, function.name, called)
        for function in EVERY
        for text in function.says
        for called in CALLS.findall(text)
        if called not in known and not hasattr(__import__("pandas"), called)
    }
    assert not missing
