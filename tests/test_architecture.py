"""The house: imports run one way, modules are short and well named, and importing the package loads little."""

from __future__ import annotations

import ast
import importlib
import json
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import mcp_policy_middleware

PACKAGE = "mcp_policy_middleware"
ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))

# Room of a module -> the rooms that it may import; a module's room is the first word of its name in the package.
VALUES = {"errors", "charges", "calls", "canonical", "clock", "printable", "recording", "steps", "views"}
RINGS = {"answers", "approving", "handover", "passage", "settlement", "sources", "selection", "guard", "watcher"}
HANDED = {"stores", "approvals", "telemetry", "audit"}  # what a guard is handed
MAY_IMPORT: dict[str, set[str]] = {
    "errors": VALUES,
    "charges": set(),
    "printable": set(),
    "steps": set(),
    "calls": VALUES,
    "recording": VALUES,
    "views": VALUES,
    "canonical": VALUES,
    "clock": VALUES,
    "policy": {*VALUES, "policy"},
    "engine": {*VALUES, "policy", "engine"},
    "backends": {*VALUES, "backends"},
    "stores": {*VALUES, "backends", "stores"},
    "approvals": {*VALUES, "backends", "approvals"},
    "notebook": {*VALUES, "notebook"},
    "telemetry": VALUES,
    "audit": {*VALUES, "backends", "audit"},
    **{ring: {*VALUES, *RINGS, *HANDED, "policy", "engine"} for ring in RINGS},
    "": {*VALUES, "policy", "guard", "telemetry"},
    "adapters": {*VALUES, *RINGS, *HANDED, "policy", "engine", "adapters"},
    "testing": {*VALUES, *RINGS, "policy", "stores", "telemetry"},
    "cli": {*VALUES, *RINGS, *HANDED, "policy", "engine", "adapters", "testing", "cli"},
}
LAZILY = {("testing", "adapters")}  # inside a function only
BACKENDS = {
    "approvals.redis": "redis",
    "approvals.sqlite": "sqlite3",
    "backends.redis_clients": "redis",
    "backends.redis_server": "redis",
    "backends.sqlite_contents": "sqlite3",
    "backends.sqlite_file": "sqlite3",
    "stores.sqlite": "sqlite3",
}
"""Modules that are loaded when their store is asked for, and what they may import at the top."""

FORBIDDEN_NAMES = (
    "utils",
    "util",
    "helpers",
    "helper",
    "common",
    "manager",
    "handler",
    "processor",
    "service",
    "base_",
)
NOT_LOADED = (
    "mcp", "langchain", "langchain_core", "langchain_mcp_adapters", "langgraph", "redis", "opentelemetry.sdk",
    "typer", "rich",
    "fastmcp", "matplotlib", "sqlite3", "watchfiles", "hypothesis", "pytest",
)  # fmt: skip


def name_of(file: Path) -> str:
    """A file's name as a module, inside the package: `policy.syntax.tree`, and empty for the package itself."""
    parts = file.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def room(module: str) -> str:
    """The first word of a module's name in the package."""
    return module.partition(".")[0]


def imports(file: Path) -> Iterator[tuple[str, str, str]]:
    """Each import of a file: the module's full name, the name taken from it, and `top`, `typing` or `inside`."""
    tree = ast.parse(file.read_text("utf-8"))
    module = name_of(file)
    package = [PACKAGE, *module.split(".")] if module else [PACKAGE]
    if file.name != "__init__.py":
        package.pop()

    def walk(node: ast.AST, where: str) -> Iterator[tuple[str, str, str]]:
        for child in ast.iter_child_nodes(node):
            inner = where
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                inner = "inside"
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                inner = "typing"
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield alias.name, "", where
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else []
                source = ".".join([*base, *([child.module] if child.module else [])])
                for alias in child.names:
                    yield source, alias.name, where
            yield from walk(child, inner)

    yield from walk(tree, "top")


def internal(file: Path) -> Iterator[tuple[str, str]]:
    """Each module of the package that a file imports, inside the package, and where in the file."""
    modules = {name_of(other) for other in FILES}
    for source, name, where in imports(file):
        if source == PACKAGE or source.startswith(PACKAGE + "."):
            inside = source.removeprefix(PACKAGE).removeprefix(".")
            deeper = f"{inside}.{name}".removeprefix(".")
            yield (deeper if deeper in modules else inside), where


def test_the_rooms_are_all_known() -> None:
    """A new room gets its place in the order before it is built."""
    assert {room(name_of(file)) for file in FILES} <= set(MAY_IMPORT)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_run_one_way(file: Path) -> None:
    """A module imports from its own room or from those before it, and nothing imports adapters but the command line."""
    mine = room(name_of(file))
    for imported, where in internal(file):
        target = room(imported)
        if (mine, target) in LAZILY and where != "top":
            continue
        allowed = MAY_IMPORT[mine] | ({mine} if mine else set())
        assert target in allowed, f"{name_of(file)} imports {imported}"


def test_nothing_imports_itself_in_a_circle() -> None:
    """The imports that run when the package is loaded have no cycle, adapters included."""
    graph = {
        name_of(file): {imported for imported, where in internal(file) if where == "top"} - {name_of(file)}
        for file in FILES
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for imported in sorted(graph.get(module, ())):
                visit(imported, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_pydantic_lives_in_policy(file: Path) -> None:
    """Only `policy` knows pydantic; adapters may turn values into JSON with its serializer."""
    for source, name, _ in imports(file):
        if source.partition(".")[0] in ("pydantic", "pydantic_core"):
            mine = room(name_of(file))
            jsonable = mine == "adapters" and (source, name) == ("pydantic_core", "to_jsonable_python")
            assert mine == "policy" or jsonable, f"{source}.{name}"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_frameworks_are_imported_where_they_belong(file: Path) -> None:
    """Outside adapters, the command line, backends and functions, nothing imports a framework or an SDK."""
    mine = room(name_of(file))
    backend = BACKENDS.get(name_of(file))
    for source, _, where in imports(file):
        for foreign in NOT_LOADED:
            if source == foreign or source.startswith(foreign + "."):
                assert mine in ("adapters", "cli") or foreign == backend or where != "top", source


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_module_is_short_well_named_and_described(file: Path) -> None:
    """A module has at most 300 lines, a name that says what it holds, a docstring, and future annotations."""
    text = file.read_text("utf-8")
    assert len(text.splitlines()) <= 300
    for part in name_of(file).split("."):
        assert part not in FORBIDDEN_NAMES
        assert not part.startswith("base_")
    assert ast.get_docstring(ast.parse(text))
    assert "from __future__ import annotations" in text or not ast.parse(text).body[1:]


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_module_says_what_is_public(file: Path) -> None:
    """Each module's `__all__` is sorted, without doubles, and names what is there."""
    tree = ast.parse(file.read_text("utf-8"))
    listed: list[str] | None = None
    defined: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            listed = ast.literal_eval(node.value)
        for part in ast.walk(node):
            if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                defined.add(part.name)
            elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                defined.add(part.id)
            elif isinstance(part, (ast.Import, ast.ImportFrom)):
                defined |= {(alias.asname or alias.name).partition(".")[0] for alias in part.names}
    if listed is None:
        assert file.name in ("__main__.py", "__init__.py"), "no `__all__`"
        return
    assert len(listed) == len(set(listed))
    # ruff's order: CONSTANTS, then Classes, then functions
    rank = {True: 0, False: 1}
    assert listed == sorted(listed, key=lambda n: (rank[n.isupper()], rank[n[0].isupper()], n))
    assert set(listed) <= defined


@pytest.mark.parametrize(
    "module", [name_of(file) for file in FILES if room(name_of(file)) not in ("adapters", "cli", "testing")]
)
def test_what_a_core_module_says_is_there_is_there(module: str) -> None:
    """Importing a core module, which needs no framework, gives every name of its `__all__`."""
    loaded = importlib.import_module(f"{PACKAGE}.{module}".removesuffix("."))
    for name in getattr(loaded, "__all__", ()):
        assert hasattr(loaded, name)


def test_importing_the_package_loads_no_framework() -> None:
    """`import mcp_policy_middleware` loads its own dependencies and no framework, SDK or store's backend."""
    program = f"import json, sys, {PACKAGE}; print(json.dumps(sorted(sys.modules)))"
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    loaded = set(json.loads(printed))
    assert not loaded & set(NOT_LOADED)
    assert not {module for module in loaded if module.startswith(f"{PACKAGE}.adapters")}


def test_importing_the_package_changes_nothing() -> None:
    """An import sets no tracer provider, installs no log handler and starts no thread."""
    program = f"""
import logging, threading
from opentelemetry import trace
handlers = list(logging.getLogger().handlers)
import {PACKAGE}
assert trace._TRACER_PROVIDER is None
assert logging.getLogger().handlers == handlers
assert logging.getLogger({PACKAGE!r}).handlers == []
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], timeout=60, check=True)


def test_public_names_are_those_documented() -> None:
    """The names of the package are exactly those in the first table of `docs/reference.md`."""
    text = (ROOT / "docs" / "reference.md").read_text("utf-8")
    (table, *_) = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    documented = re.findall(r"^\| *`(\w+)`", table, flags=re.MULTILINE)
    assert sorted(documented) == sorted(mcp_policy_middleware.__all__)


def test_the_package_is_typed() -> None:
    """A `py.typed` marker is there for type checkers."""
    assert (ROOT / PACKAGE / "py.typed").exists()


def test_other_peoples_tests_are_pinned() -> None:
    """Each suite of `make peers` is one file by its hash, run against the same version of what it tests."""
    suites = runpy.run_path(str(ROOT / "peers" / "run.py"))["suites"]((ROOT / "peers" / "suites.toml").read_text())
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    assert suites
    for suite in suites:
        assert re.fullmatch(r"[0-9a-f]{64}", suite.sha256), suite.name
        assert suite.sdist in {re.sub(r"\[.*\]", "", wanted) for wanted in groups[f"peers-{suite.world}"]}
        assert all(held.calls > 0 and held.denied and all(held.explained.values()) for held in suite.guards.values())
