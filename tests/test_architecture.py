"""Who may import what: the house's floors, read off the sources. `python tests/test_architecture.py` counts them."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import refinerl

ROOT = Path(refinerl.__file__).parent
TREE = ROOT.parents[1]

FLOORS = (
    {"errors", "objective", "records"},
    {"contracts", "config", "data"},
    {"alignment", "kernels", "sandbox"},
    {"algorithms", "engines", "loop", "tasks"},
    {"benchmarks", "constraints", "report"},
    {"run"},
    {"audition", "evaluate", "study", "train"},
    {"__init__", "__main__"},
)
"""Ground first. An import goes down, or stays on its floor without a circle."""
UPWARD = {("sandbox", "tasks")}
"""`python -m refinerl.sandbox judge` reads problems as the code task does."""
READ_CONFIG = {"config", "run", "audition", "evaluate", "study", "train", "__init__"}
FACES = {"alignment", "kernels", "sandbox"}
HEAVY = {"vllm": "engines/vllm", "deepspeed": "engines/deepspeed", "peft": "engines/lora"}
BOXES = 24


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, with what it takes from packages of ours."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


FILES = {path.relative_to(ROOT).as_posix(): imports(path) for path in sorted(ROOT.rglob("*.py"))}


def room(name: str) -> str:
    """The box directly under the package that a file or a module lies in."""
    return name.removeprefix("refinerl.").replace("/", ".").split(".")[0]


ROOMS = {room(name) for name in FILES}


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


def arrows() -> dict[tuple[str, str], list[str]]:
    """(from, to) rooms, each with the files that draw the arrow."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, modules in FILES.items():
        for module in modules:
            if module.startswith("refinerl.") and room(module) in ROOMS and room(module) != room(name):
                found.setdefault((room(name), room(module)), []).append(name)
    return found


def circles(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a graph, if it has any."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def expanded(text: str) -> list[str]:
    """The paths of one Rust `use` declaration: `a::{b, c::{self, d}}` is a::b, a::c and a::c::d."""
    braces = re.compile(r"((?:\w+::)*)\{([^{}]*)\}")
    while braces.search(text):
        text = braces.sub(lambda match: ",".join(match[1] + part.strip() for part in match[2].split(",")), text)
    return [re.sub(r"(::self)?(\s+as\s.*)?$", "", path.strip()) for path in text.split(",") if path.strip()]


class Crate:
    """The modules of a Rust crate and the paths in their sources. A module's name is a tuple, () for the root."""

    def __init__(self, folder: Path) -> None:
        self.paths: dict[tuple[str, ...], set[str]] = {}
        self.exports: dict[tuple[str, ...], str] = {}
        for file in sorted((folder / "src").rglob("*.rs")):
            name = file.relative_to(folder / "src").with_suffix("").parts
            module = () if name == ("lib",) else name
            text = re.sub(r"//.*", "", file.read_text(encoding="utf-8"))
            uses = re.findall(r"\b(pub(?:\([^)]*\))? )?use ([^;]+);", text)
            paths = [(public, path) for public, tree in uses for path in expanded(tree)]
            self.exports |= {(*module, path.split("::")[-1]): path for public, path in paths if public}
            self.paths[module] = {path for _, path in paths} | set(re.findall(r"\b\w+(?:::\w+)+", text))

    def resolve(self, module: tuple[str, ...], path: str) -> tuple[str, ...] | None:
        """The module that defines what a path in `module` names; None for another crate's."""
        first, *rest = path.split("::")
        starts = {"crate": (), "super": module[:-1], "self": module}
        place = starts.get(first, (*module, first))
        if first not in starts and place not in self.paths:
            return None
        for name in rest:
            if name == "super":
                place = place[:-1]
            elif (*place, name) in self.paths:
                place = (*place, name)
            else:
                again = self.exports.get((*place, name))
                return (again and self.resolve(place, again)) or place
        return place

    def imports(self) -> dict[str, set[str]]:
        """The other modules that each module names. A module may use what the modules around it define."""
        graph: dict[str, set[str]] = {}
        for module, paths in self.paths.items():
            found = {self.resolve(module, path) for path in paths} - {None}
            graph["::".join(module) or "lib"] = {"::".join(name) for name in found if module[: len(name)] != name}
        return graph


CRATES = {folder.name: Crate(folder).imports() for folder in sorted((TREE / "rust").iterdir()) if folder.is_dir()}


def test_every_room_has_its_floor():
    assert set().union(*FLOORS) >= ROOMS


def test_the_package_is_seen_at_a_glance():
    unseen = {"__pycache__", "py.typed", "_core.pyi"}  # markers for tools
    boxes = [path.name for path in ROOT.iterdir() if path.name not in unseen and path.suffix != ".so"]
    assert len(boxes) <= BOXES, sorted(boxes)


def test_imports_go_down():
    up = {arrow: files for arrow, files in arrows().items() if floor(arrow[0]) < floor(arrow[1])}
    assert set(up) <= UPWARD, up


def test_rooms_and_files_have_no_circles():
    graph: dict[str, set[str]] = {name: set() for name in ROOMS}
    for start, end in arrows():
        if (start, end) not in UPWARD:
            graph[start].add(end)
    assert circles(graph) == []
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in FILES}
    files = {
        name: {modules[m.removeprefix("refinerl.")] for m in found if m.removeprefix("refinerl.") in modules}
        - {name, f"{name.rpartition('/')[0]}/__init__.py"}  # of a module its package's docstring
        for name, found in FILES.items()
    }
    assert circles(files) == []


def test_modules_of_a_crate_have_no_circles():
    assert CRATES["refinerl-sandbox"]["verdict"] >= {"execution", "outcome"}  # sources are read, re-exports followed
    assert {name: circle for name, graph in CRATES.items() if (circle := circles(graph))} == {}


def test_algorithms_and_constraints_never_meet():
    assert not {("algorithms", "constraints"), ("constraints", "algorithms")} & set(arrows())


def test_only_faces_import_the_core():
    assert {room(name) for name, found in FILES.items() if "refinerl._core" in found} <= FACES


def test_heavy_dependencies_have_one_door():
    for package, door in HEAVY.items():
        inside = {name for name, found in FILES.items() if any(module.split(".")[0] == package for module in found)}
        assert all(name.startswith(door) for name in inside), inside


def test_only_the_run_and_the_commands_read_the_config():
    assert {room(name) for name, found in FILES.items() if "refinerl.config" in found} <= READ_CONFIG


def test_importing_the_package_imports_nothing_heavy():
    assert not {name.split(".")[0] for name in FILES["__init__.py"]} & {"torch", "transformers"}


if __name__ == "__main__":
    upward = [arrow for arrow in arrows() if floor(arrow[0]) < floor(arrow[1])]
    modules = sum(map(len, CRATES.values()))
    circular = [name for name, graph in CRATES.items() if circles(graph)]
    print(f"Python: {len(ROOMS)} rooms, {len(arrows())} arrows, {len(upward)} upward")
    print(f"Rust: {len(CRATES)} crates, {modules} modules, {len(circular)} crates with circles")
