"""`help()` says what the stubs say."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import tldr_loader as tldr
import tldr_loader_captioner

FILES = [
    Path(tldr.__file__).parent / "_native.pyi",
    Path(tldr_loader_captioner.__file__).parent / "_captioner.pyi",
]


def documented() -> list[tuple[str, str]]:
    """Names of the stubs and their docstrings; a class's `__iter__` and the like have none at run time."""
    found = []
    for node in [node for file in FILES for node in ast.parse(file.read_text()).body]:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            inner = node.body if isinstance(node, ast.ClassDef) else []
            members = [m for m in inner if isinstance(m, ast.FunctionDef) and not m.name.startswith("__")]
            for name, item in [(node.name, node), *((f"{node.name}.{m.name}", m) for m in members)]:
                text = ast.get_docstring(item)
                if not node.name.startswith("_"):
                    assert text, f"{name} has no docstring"
                    found.append((name, text))
    return found


@pytest.mark.parametrize(("name", "text"), documented(), ids=[name for name, _ in documented()])
def test_docstrings_at_run_time_are_those_of_the_stubs(name: str, text: str) -> None:
    item: object = tldr
    for part in name.split("."):
        item = getattr(item, part)
    assert inspect.getdoc(item) == text
