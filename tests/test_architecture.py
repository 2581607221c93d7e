"""The house's rules, held against the code: floors, light import, public names, no asserts on input."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import toolkit

PACKAGE = Path(toolkit.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# A module imports from floors below its own, and from its own room.
FLOORS = {
    "errors": 0,
    "files": 0,
    "key_hosts": 0,
    "progress": 0,
    "redact": 0,
    "space": 0,
    "vectors": 0,
    "wire": 0,
    "embedding": 1,
    "data": 1,
    "search": 1,
    "measure": 1,
    "experiment": 2,
    "judge": 3,  # below the decisions, for which judgements are evidence
    "decide": 4,
    "at_scale": 5,
    "capacity": 5,
    "report": 5,
    "deploy": 5,
    "mteb_adapter": 5,
    "serve": 5,
    "conformance": 5,
    "scale": 5,
    "claims": 6,  # its page has the report's style
    "notebook": 6,  # shows the report's charts and markup
    "__init__": 7,
    "cli": 8,
    "__main__": 9,
}
# Nouns may build on each other; their order is the order of this list.
GROUND = ["errors", "redact", "files", "key_hosts", "progress", "space", "vectors", "wire"]


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module] if node.module != "toolkit" else [f"toolkit.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("toolkit.")}
    return {room if room in FLOORS else "__init__" for room in rooms}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_the_floors(path):
    own = room_of(path)
    assert own in FLOORS, f"{own} has no floor; give it one here and in docs/architecture.md"
    for room in imported_rooms(path) - {own}:
        if own in GROUND and room in GROUND:
            assert GROUND.index(room) < GROUND.index(own), f"{path} imports {room}"
        else:
            assert FLOORS[room] < FLOORS[own], f"{path} imports toolkit.{room}, not below its floor"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_assert_and_no_blanket_except(path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Assert), f"{path}:{node.lineno} asserts; raise an error that helps"
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else ""
            place = f"{path}:{node.lineno}"
            assert caught not in {"", "Exception", "BaseException"}, f"{place} catches {caught or 'all'}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_mteb_is_imported_in_one_room_and_its_private_names_in_one_file(path):
    found = imported_modules(path, "mteb")
    if room_of(path) != "mteb_adapter":
        assert not found
    if path.name != "compat.py":
        assert not [name for name in found if any(part.startswith("_") for part in name.split("."))]


def imported_modules(path: Path, package: str) -> list[str]:
    """Everything imported from a package, dotted down to the name."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.split(".")[0] == package]


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, names: set[str]) -> set[str]:
    """The package's modules that a module imports, within functions too; not for type checkers alone."""

    def statements(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
                yield from (inner for other in child.orelse for inner in [other, *statements(other)])
            else:
                yield child
                yield from statements(child)

    found = set()
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names} & names
            # `from package import module` needs the package's own __init__ only where it takes more from it.
            found |= whole if len(whole) == len(node.names) else whole | {node.module}
    return found & names


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules that import each other, directly or by way of others."""

    def reached(start: str) -> set[str]:
        seen, left = set(), [start]
        while left:
            new = graph[left.pop()] - seen
            seen |= new
            left += new
        return seen

    reach = {name: reached(name) for name in graph}
    found = {frozenset(other for other in reach[name] if name in reach[other]) for name in graph}
    return [set(group) for group in found if group]


def test_no_modules_import_each_other():
    names = {module_name(path) for path in MODULES}
    graph = {module_name(path): imports_of(path, names) for path in MODULES}
    assert sum(map(len, graph.values())) > len(MODULES), "imports are found"
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [{"b", "c"}]
    assert circles(graph) == []


def test_import_loads_nothing_heavy():
    probe = "import sys, toolkit; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    heavy = {"torch", "faiss", "mteb", "ray", "transformers", "sentence_transformers", "pandas", "matplotlib"}
    assert heavy.isdisjoint(done.stdout.split())


def test_command_line_starts_without_heavy_packages():
    probe = "import sys, toolkit.cli; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert {"torch", "faiss", "mteb", "transformers"}.isdisjoint(done.stdout.split())


def test_public_names():
    assert sorted(toolkit.__all__) == [
        "EmbeddingSpace",
        "Instruction",
        "PairSet",
        "RetrievalSet",
        "Role",
        "SweepPlan",
        "ToolkitError",
        "ToolkitWarning",
        "Vectors",
        "__version__",
        "check",
        "compare",
        "compare_instructions",
        "embed",
        "load_dataset",
        "load_results",
        "open_embedder",
        "pair_set",
        "recommend",
        "retrieval_set",
        "scale_test",
        "sweep",
        "sweep_several",
        "texts",
    ]
    for name in toolkit.__all__:
        assert getattr(toolkit, name) is not None


def test_error_tree_is_the_one_drawn():
    from toolkit import errors

    drawn = errors.__doc__
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert name in drawn, f"{name} is missing from the tree in errors.py"
