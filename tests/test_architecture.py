# SPDX-License-Identifier: Apache-2.0
"""Which room may import which, which layer of the core lies on which, and how long things get.

Read from the syntax trees, so nothing is imported and no optional package is needed.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60

# Functions that are longer, each with its reason: "path::name": "why".
LONG_FUNCTIONS: dict[str, str] = {}

ROOMS = {
    "foreseg": "runtime",
    "foreseg_torch": "runtime",
    "foreseg_export": "export",
    "foreseg_training": "training",
    "foreseg_evaluation": "evaluation",
    "foreseg_simulation": "simulation",
    "foreseg_ros": "ros_ws/src/foreseg_ros",
}
# room -> rooms it may import, besides itself
ARROWS: dict[str, set[str]] = {
    "foreseg": set(),
    "foreseg_torch": {"foreseg"},
    "foreseg_simulation": {"foreseg"},
    "foreseg_evaluation": {"foreseg"},
    "foreseg_export": {"foreseg", "foreseg_torch"},
    "foreseg_training": {
        "foreseg",
        "foreseg_torch",
        "foreseg_evaluation",
        "foreseg_simulation",
    },
    "foreseg_ros": {"foreseg"},
}
DEMO_MAY_ALSO = {"foreseg_simulation", "foreseg_evaluation"}
# packages that only some rooms may import
GUARDED = {
    "torch": {"foreseg_torch", "foreseg_export", "foreseg_training"},
    "transformers": {"foreseg_torch", "foreseg_export", "foreseg_training"},
    "onnx": {"foreseg_export"},
    "rclpy": {"foreseg_ros"},
    "foreseg_msgs": {"foreseg_ros"},
    "launch": set(),
    "launch_ros": set(),
}
# what the core may import, and where; beside the standard library and numpy
CORE_EXTRAS = {
    "onnxruntime": ("engines/",),
    "tensorrt": ("engines/",),
    "cv2": (
        "media/sources.py",
        "media/sinks.py",
        "media/overlay.py",
        "language/openai_server.py",
        "tracker/preprocess.py",
        "tracker/postprocess.py",
    ),
}
CORE_BASE = {"numpy", "foreseg"}
CORE_BASE |= {"typing_extensions"}  # under TYPE_CHECKING only

# Inside the core, imports run only downwards or sideways. A module or package per name.
LAYERS = (
    {"errors", "clock", "config", "frames", "geometry", "masks", "prompts", "dialogue"},
    {"history", "engines", "telemetry", "language"},
    {"tracker", "methods", "reasoner", "kinematic"},
    {"pipeline"},
    {"driving", "media"},
    {"cli", "commands"},
)
# Only these may start or synchronise threads and processes.
CONCURRENT = {
    "driving/worker.py": "the loop, the tracker's thread",
    "driving/inbox.py": "what the threads hand to the loop: a condition, no thread of its own",
    "reasoner/process.py": "the reasoner's own process, seen from the node",
    "reasoner/child.py": "the same process, seen from inside",
    "commands/checks.py": "`foreseg doctor` probes packages in processes that may crash",
}
CONCURRENCY = {"threading", "multiprocessing", "concurrent", "asyncio", "subprocess", "queue"}
# The one place that may read the wall clock: it stamps what comes without a stamp.
WALL_CLOCK = ROOT / "runtime" / "foreseg" / "clock.py"
FORBIDDEN_NAMES = {"utils.py", "helpers.py", "common.py", "core.py", "misc.py", "util.py"}


@functools.cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text("utf-8"))))


@dataclass(frozen=True, slots=True)
class Import:
    """One absolute import, with the submodules that `from x import y` may name."""

    path: Path
    line: int
    modules: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} imports {self.modules[0]}"


def files_of(package: str) -> list[Path]:
    return sorted((ROOT / ROOMS[package] / package).rglob("*.py"))


def all_files() -> list[Path]:
    rooms = [path for package in ROOMS for path in files_of(package)]
    others = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "tests").rglob("*.py")]
    return [*rooms, *others, *(ROOT / "ros_ws").glob("*.py"), *(ROOT / "launch").glob("*.py")]


def imports_of(path: Path) -> Iterator[Import]:
    package = path.relative_to(ROOT).parts
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(path, node.lineno, (alias.name,))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join((*_module_parts(path)[: -node.level], *base.split("."))).strip(".")
            names = tuple(f"{base}.{alias.name}" for alias in node.names)
            assert base, f"{package}: an import without a module"
            yield Import(path, node.lineno, (base, *names))


def _module_parts(path: Path) -> tuple[str, ...]:
    """The dotted name of a file as `from . import` counts it."""
    for package, root in ROOMS.items():
        base = ROOT / root
        if (base / package) in path.parents:
            return path.relative_to(base).with_suffix("").parts
    return ()


def top(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_only_along_the_arrows(package: str) -> None:
    wrong = []
    for path in files_of(package):
        allowed = ARROWS[package] | {package}
        if package == "foreseg_ros" and "demo" in path.relative_to(ROOT).parts:
            allowed |= DEMO_MAY_ALSO
        wrong += [
            str(item)
            for item in imports_of(path)
            if top(item.modules[0]) in ROOMS and top(item.modules[0]) not in allowed
        ]
    assert wrong == []


@pytest.mark.parametrize("guarded", GUARDED)
def test_heavy_packages_stay_in_their_rooms(guarded: str) -> None:
    wrong = [
        str(item)
        for package in ROOMS
        if package not in GUARDED[guarded]
        for path in files_of(package)
        for item in imports_of(path)
        if top(item.modules[0]) == guarded
    ]
    assert wrong == []


def test_nothing_imports_tests_or_benchmarks() -> None:
    wrong = [
        str(item)
        for package in ROOMS
        for path in files_of(package)
        for item in imports_of(path)
        if top(item.modules[0]) in {"tests", "benchmarks"}
    ]
    assert wrong == []


def test_the_core_imports_little_and_only_where_it_may() -> None:
    wrong = []
    for path in files_of("foreseg"):
        place = path.relative_to(ROOT / "runtime" / "foreseg").as_posix()
        for item in imports_of(path):
            name = top(item.modules[0])
            if name in CORE_BASE or name in sys.stdlib_module_names:
                continue
            if not place.startswith(CORE_EXTRAS.get(name, ())):
                wrong.append(str(item))
    assert wrong == []


def module_level(path: Path) -> Iterator[ast.stmt]:
    """Statements that run on import, those in `if` and `try` included."""
    todo: list[ast.stmt] = list(ast.parse(path.read_text("utf-8")).body)
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            todo += [child for child in ast.walk(node) if isinstance(child, ast.stmt)][1:]


def test_heavy_packages_are_imported_in_functions() -> None:
    heavy = set(CORE_EXTRAS) | {"torch", "cv2"}
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files_of("foreseg")
        for node in module_level(path)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
        if top(name) in heavy
    ]
    assert wrong == []


def layer_of(module: str) -> int | None:
    """The layer of `foreseg.x...`; None for the package itself."""
    parts = module.split(".")
    if len(parts) == 1:
        return None
    for number, names in enumerate(LAYERS):
        if parts[1] in names:
            return number
    return None


def core_modules() -> dict[str, Path]:
    base = ROOT / "runtime"
    return {
        ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files_of("foreseg")
    }


def test_every_module_of_the_core_has_a_layer() -> None:
    known = set().union(*LAYERS) | {"models"}
    names = {module.split(".")[1] for module in core_modules() if "." in module}
    assert names <= known, f"place them in LAYERS: {sorted(names - known)}"


def test_imports_in_the_core_run_only_downwards() -> None:
    wrong = []
    for module, path in core_modules().items():
        own = layer_of(module)
        for item in imports_of(path):
            layers = [layer_of(name) for name in item.modules if top(name) == "foreseg"]
            highest = max((layer for layer in layers if layer is not None), default=None)
            if own is not None and highest is not None and highest > own:
                wrong.append(f"{item} (layer {highest} from layer {own})")
    assert wrong == []


def test_the_core_has_no_import_cycle() -> None:
    modules = core_modules()
    graph = {
        module: {
            name
            for item in imports_of(path)
            for name in item.modules
            if name in modules and name not in (module, "foreseg")
        }
        for module, path in modules.items()
    }
    deferred = {  # imports inside functions do not run at import: they may point back
        (module, name)
        for module, path in modules.items()
        for node in nodes_of(path)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for inner in ast.walk(node)
        if isinstance(inner, ast.ImportFrom)
        for name in (inner.module or "", *(f"{inner.module}.{a.name}" for a in inner.names))
    }
    graph = {
        module: {name for name in names if (module, name) not in deferred}
        for module, names in graph.items()
    }
    while leaves := [module for module, names in graph.items() if not names]:
        for leaf in leaves:
            del graph[leaf]
        graph = {module: names - set(leaves) for module, names in graph.items()}
    assert graph == {}, "these import each other, or what does"


def test_only_the_named_files_know_threads_and_processes() -> None:
    wrong = [
        str(item)
        for path in files_of("foreseg")
        if path.relative_to(ROOT / "runtime/foreseg").as_posix() not in CONCURRENT
        for item in imports_of(path)
        if top(item.modules[0]) in CONCURRENCY
    ]
    assert wrong == []


def test_no_wall_clock() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in ROOMS
        for path in files_of(package)
        for node in nodes_of(path)
        if isinstance(node, ast.Attribute)
        and node.attr in {"time", "time_ns"}
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
        and path != WALL_CLOCK
    ]
    assert wrong == []


def test_launch_files_import_only_launch() -> None:
    allowed = {"launch", "launch_ros", "lifecycle_msgs", "pathlib"}
    wrong = [
        str(item)
        for path in (ROOT / "launch").glob("*.py")
        for item in imports_of(path)
        if top(item.modules[0]) not in allowed
    ]
    assert wrong == []


def test_no_file_is_too_long() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in all_files()
    }
    assert {name: count for name, count in lengths.items() if count > MAX_FILE_LINES} == {}


def test_no_function_is_too_long() -> None:
    found = {
        f"{path.relative_to(ROOT)}::{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in all_files()
        for node in nodes_of(path)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    too_long = {name for name, lines in found.items() if lines > MAX_FUNCTION_LINES}
    assert too_long - set(LONG_FUNCTIONS) == set()
    assert set(LONG_FUNCTIONS) <= too_long, "these are short by now: take them off the list"


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert [path for path in all_files() if path.name in FORBIDDEN_NAMES] == []
