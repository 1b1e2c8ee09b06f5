"""Who may import whom, read from the sources and seen in a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "runtime": set(),
    "export": {"runtime"},
    "devices": {"runtime"},
    "toolkit": {"runtime", "export", "devices"},
}
# What others' packages a room may import at the top of a module; the rest inside functions, when needed.
AT_THE_TOP = {
    "runtime": {"numpy"},
    "export": {"numpy"},
    "devices": {"numpy"},
    "toolkit": {"numpy"},
}
NEVER = {"runtime": {"keras", "flatbuffers", "onnx", "pandas", "rich", "tf2onnx"}, "devices": {"tensorflow", "keras"}}


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def package_of(path: Path) -> tuple[str, ...]:
    return ("edgelstm", *path.relative_to(ROOT).parts[:-1])


def imports(tree: ast.AST, package: tuple[str, ...]) -> set[tuple[str, ...]]:
    """Absolute names of all that a tree imports, relative ones resolved."""
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module or "").split("."))
            found |= {(*module, alias.name) for alias in node.names}
    return {tuple(part for part in name if part) for name in found}


def top_level(tree: ast.Module) -> ast.Module:
    """The statements that run on import: type-checking blocks and function bodies left out."""
    kept = [
        node
        for node in tree.body
        if not isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    return ast.Module(kept, [])


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_those_below(room):
    assert sources(room)
    for path in sources(room):
        for name in imports(ast.parse(path.read_text()), package_of(path)):
            if name[0] == "edgelstm":
                assert name[1] in MAY_IMPORT[room] | {room}, f"{path.name} imports {'.'.join(name)}"


@pytest.mark.parametrize("room", AT_THE_TOP)
def test_heavy_packages_are_imported_when_needed(room):
    for path in sources(room):
        tree = ast.parse(path.read_text())
        for name in imports(top_level(tree), package_of(path)):
            allowed = name[0] in AT_THE_TOP[room] | {"edgelstm"} or name[0] in sys.stdlib_module_names
            assert allowed, f"{path} imports {name[0]} at the top"
        everywhere = {name[0] for name in imports(tree, package_of(path))}
        assert not everywhere & NEVER.get(room, set()), path


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        (
            "edgelstm.runtime",
            {"tensorflow", "keras", "onnxruntime", "ai_edge_litert", "flatbuffers", "edgelstm.export"},
        ),
        ("edgelstm.export", {"tensorflow", "keras", "onnxruntime", "onnx", "tf2onnx"}),
        ("edgelstm.toolkit.cli", {"tensorflow", "keras", "numpy", "pandas", "rich"}),
    ],
)
def test_an_import_brings_in_no_more_than_it_needs(module, absent):
    code = f"import sys, {module}; print(' '.join(sys.modules))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert module in loaded
    assert not loaded & absent
