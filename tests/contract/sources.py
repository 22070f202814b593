"""The product's own source as the contract tests see it: every module, its text and what it imports.

Read by `ast`, never imported: what the tests here say must hold for a module that fails to import, too.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = (*sorted(ROOT.glob("services/*/src")), ROOT / "shared/src", ROOT / "deploy/local/src")


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module. `at_start` is false for an import inside a function or for the type checker only."""

    name: str
    line: int
    at_start: bool


@dataclass(frozen=True)
class Module:
    """One file of source."""

    name: str
    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def shown(self) -> str:
        """How a failure names the file."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def imports(self) -> list[Import]:
        return list(_imports(self.tree.body, at_start=True))

    @property
    def strings(self) -> Iterator[tuple[int, str]]:
        """Line and text of string constants, parts of f-strings included, docstrings and other bare strings not."""
        bare = {id(node.value) for node in ast.walk(self.tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
                yield node.lineno, node.value


@cache
def modules() -> tuple[Module, ...]:
    """Every module of the product, tests and examples excepted."""
    return tuple(
        Module(_name(path.relative_to(folder)), path, path.read_text())
        for folder in FOLDERS
        for path in sorted(folder.rglob("*.py"))
    )


def python_files() -> list[Path]:
    """Every Python file of the repository, tests and examples included."""
    folders = (*FOLDERS, ROOT / "tests", ROOT / "examples")
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(nodes: list[ast.stmt], *, at_start: bool) -> Iterator[Import]:
    for node in nodes:
        match node:
            case ast.Import():
                yield from (Import(each.name, node.lineno, at_start) for each in node.names)
            case ast.ImportFrom():
                assert node.level == 0, f"a relative import in line {node.lineno}: write the whole name"
                assert node.module is not None
                # `from a.b import c` may import the module a.b.c.
                yield from (Import(f"{node.module}.{each.name}", node.lineno, at_start) for each in node.names)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _imports(node.body, at_start=False)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield from _imports(node.body, at_start=False)
                yield from _imports(node.orelse, at_start=at_start)
            case _:
                for _, value in ast.iter_fields(node):
                    inner = [each for each in value if isinstance(each, ast.AST)] if isinstance(value, list) else []
                    yield from _imports(_statements(inner), at_start=at_start)


def _statements(nodes: list[ast.AST]) -> list[ast.stmt]:
    """Statements among these nodes or inside their handlers and cases."""
    found: list[ast.stmt] = []
    for node in nodes:
        if isinstance(node, ast.stmt):
            found.append(node)
        elif isinstance(node, ast.ExceptHandler | ast.match_case):
            found += node.body
    return found
