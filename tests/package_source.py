"""What the source of the package says of itself, read with `ast` alone.

`python tests/package_source.py` prints the measures that `test_layers.py` bounds.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "relu_options"
Function = ast.FunctionDef | ast.AsyncFunctionDef
BRANCHES = (ast.If, ast.For, ast.While, ast.ExceptHandler, ast.IfExp, ast.Assert)


@dataclass(frozen=True)
class Import:
    """A name imported by a file.

    Attributes:
        importer: The module that imports.
        module: The module imported, or of which the name is an attribute.
        name: The attribute; empty where it is the module that is imported.
        function: The function in which the import stands; empty at the top.
        line: Where it stands.
    """

    importer: str
    module: str
    name: str
    function: str
    line: int

    @property
    def for_plot(self) -> bool:
        """Whether only a `plot` method needs it."""
        return self.function == "plot"


@dataclass(frozen=True)
class Module:
    """A file of the package.

    Attributes:
        path: Of the file.
        text: Its contents.
    """

    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """As `ast` reads it."""
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[tuple[ast.AST, str]]:
        """All nodes, each with the innermost function around it."""
        return list(_walk(self.tree, ""))

    @property
    def name(self) -> str:
        """As it is imported, without the package's own name."""
        parts = self.path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def functions(self) -> Iterator[Function]:
        """All of them: methods and those inside of others as well."""
        return (node for node, _ in self.nodes if isinstance(node, Function))

    @property
    def constants(self) -> list[str]:
        """Names at module level of a number, or of a tuple or an expression of some."""
        names = []
        for node in self.tree.body:
            if isinstance(node, ast.Assign):
                name = node.targets[0]
            elif isinstance(node, ast.AnnAssign):
                name = node.target
            else:
                continue
            if isinstance(name, ast.Name) and node.value and _is_numeric(node.value):
                names.append(name.id)
        return names

    def code_lines(self, function: Function) -> int:
        """Lines of a function without blank lines, comments and its docstring."""
        count = self._code_lines(function)
        first = function.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            count -= self._code_lines(first)
        return count

    @cached_property
    def _is_code(self) -> list[bool]:
        """Of each line, whether it is neither blank nor a comment."""
        lines = map(str.strip, self.text.splitlines())
        return [bool(line) and not line.startswith("#") for line in lines]

    def _code_lines(self, node: ast.stmt) -> int:
        return sum(self._is_code[node.lineno - 1 : node.end_lineno])


def complexity(function: Function) -> int:
    """One more than the number of ways in which a function can branch."""
    count = 1
    for node in ast.walk(function):
        if isinstance(node, (*BRANCHES, ast.match_case)):
            count += 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
    return count


def read_package() -> dict[str, Module]:
    """All modules, by name."""
    paths = sorted((ROOT / PACKAGE).rglob("*.py"))
    modules = [Module(path, path.read_text(encoding="utf-8")) for path in paths]
    return {module.name: module for module in modules}


def imports(modules: dict[str, Module]) -> list[Import]:
    """What each module imports, type hints included."""
    found = []
    for module in modules.values():
        for node, function in module.nodes:
            if isinstance(node, ast.Import):
                names = [(alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "", alias.name) for alias in node.names]
            else:
                continue
            for source, name in names:
                if f"{source}.{name}".removeprefix(f"{PACKAGE}.") in modules:
                    source, name = f"{source}.{name}", ""
                source = source.removeprefix(PACKAGE).removeprefix(".")
                found.append(Import(module.name, source, name, function, node.lineno))
    return found


def circle(edges: set[tuple[str, str]]) -> list[str]:
    """Modules that import each other in a ring; none if there is no ring."""
    graph = defaultdict(set)
    for importer, module in edges:
        if importer != module:
            graph[importer].add(module)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def measures(package: dict[str, Module]) -> dict[str, int]:
    """The size of the package, and how much of it is hard to read."""
    modules = package.values()
    functions = [(module, each) for module in modules for each in module.functions]
    return {
        "files": len(modules),
        "lines": sum(module.text.count("\n") for module in modules),
        "numeric constants": sum(len(module.constants) for module in modules),
        "functions over 60 code lines": sum(
            module.code_lines(each) > 60 for module, each in functions
        ),
        "functions of complexity over 15": sum(
            complexity(each) > 15 for _, each in functions
        ),
    }


def _walk(node: ast.AST, function: str) -> Iterator[tuple[ast.AST, str]]:
    for child in ast.iter_child_nodes(node):
        yield child, function
        yield from _walk(child, child.name if isinstance(child, Function) else function)


def _is_numeric(value: ast.expr) -> bool:
    if not isinstance(value, ast.Constant | ast.UnaryOp | ast.BinOp | ast.Tuple):
        return False
    leaves = [node.value for node in ast.walk(value) if isinstance(node, ast.Constant)]
    return bool(leaves) and all(type(leaf) in (int, float) for leaf in leaves)


if __name__ == "__main__":
    for measure, number in measures(read_package()).items():
        print(f"{number:>7,}  {measure}")  # noqa: T201
