"""Docstrings below the members of a class, which Python itself forgets; read from the class's source."""

import ast
import inspect
import textwrap
from itertools import pairwise


def attribute_docs(described: type) -> dict[str, str]:
    """By name of the member, for each one that has a docstring, on one line."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(described))).body[0]
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for statement, following in pairwise(definition.body):
        match statement, following:
            case (
                ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = " ".join(text.split())
    return found
