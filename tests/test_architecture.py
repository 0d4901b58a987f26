# SPDX-License-Identifier: Apache-2.0
"""Which package may import which, which of its rooms may, and how long things get.

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

PACKAGES = {
    "foreseg": "runtime",
    "foreseg_torch": "runtime",
    "foreseg_view": "runtime",
    "foreseg_export": "export",
    "foreseg_training": "training",
    "foreseg_evaluation": "evaluation",
    "foreseg_simulation": "simulation",
    "foreseg_ros": "ros_ws/src/foreseg_ros",
}
# package -> packages it may import, besides itself
ARROWS: dict[str, set[str]] = {
    "foreseg": set(),
    "foreseg_torch": {"foreseg"},
    "foreseg_view": {"foreseg"},
    "foreseg_simulation": {"foreseg"},
    "foreseg_evaluation": {"foreseg"},
    "foreseg_export": {"foreseg", "foreseg_torch"},
    "foreseg_training": {
        "foreseg",
        "foreseg_torch",
        "foreseg_evaluation",
        "foreseg_simulation",
    },
    "foreseg_ros": {"foreseg", "foreseg_view"},
}
DEMO_MAY_ALSO = {"foreseg_simulation", "foreseg_evaluation"}
# packages that only some of ours may import
GUARDED = {
    "torch": {"foreseg_torch", "foreseg_export", "foreseg_training"},
    "transformers": {"foreseg_torch", "foreseg_export", "foreseg_training"},
    "onnx": {"foreseg_export"},
    "starlette": {"foreseg_view"},
    "uvicorn": {"foreseg_view"},
    "rclpy": {"foreseg_ros"},
    "foreseg_msgs": {"foreseg_ros"},
    "launch": set(),
    "launch_ros": set(),
}
# what the core may import, and where; beside the standard library and numpy
CORE_EXTRAS = {
    "onnxruntime": ("engines/",),
    "tensorrt": ("engines/",),
    "openvino": ("engines/",),
    "httpx": ("language/http_stream.py",),
    "ray": ("work/ray_cluster.py",),
    "tokenizers": ("nano/words.py",),
    "tqdm": ("commands/progress.py",),
    "rosbags": ("media/bags.py",),
    "cv2": (
        "media/encodings.py",
        "media/image_messages.py",
        "media/sources.py",
        "media/sinks.py",
        "media/pen.py",
        "language/images.py",
        "language/openai_server.py",
        "tracker/preprocess.py",
        "tracker/postprocess.py",
    ),
}
CORE_BASE = {"numpy", "foreseg"}
CORE_BASE |= {"typing_extensions"}  # under TYPE_CHECKING only


@dataclass(frozen=True, slots=True)
class Room:
    """A folder of a package, or modules of one kind that lie flat, and what it may import.

    Of several places each may import those to its right. What a room may import is a room, one
    module of it (`tracker.base`), or RECORDS for all of the last row.
    """

    places: tuple[str, ...]
    what: str
    may: tuple[str, ...] = ()


RECORDS = "records"
# From top to bottom: what a room imports stands below it. docs/architecture.md shows both tables.
CORE_ROOMS = (
    Room(
        ("cli", "programs", "commands"),
        "the command line, a subcommand a module",
        ("driving", "media", "pipeline", "reasoner", "tracker", "history", "engines", RECORDS),
    ),
    Room(
        ("driving",),
        "what drives the step, in real time or on a simulated clock: worker, player, executor,"
        " inbox, requests, the threads, machine, trace",
        ("pipeline", "reasoner", "tracker.base", "history", RECORDS),
    ),
    Room(
        ("media",),
        "sources, sinks, overlay, filmstrip, newest answers",
        ("pipeline", "tracker.base", "history", RECORDS),
    ),
    Room(
        ("pipeline",),
        "the step: no thread, clock, engine or pixel",
        ("tracker.base", RECORDS),
    ),
    Room(
        ("kinematic",),
        "the reasoner that needs no weights; built by its name",
        ("reasoner.base", "history", RECORDS),
    ),
    Room(
        ("nano",),
        "the nano reasoner without torch: its bundle, prompts and decoding; built by its name",
        ("reasoner", "methods", "language", "engines", RECORDS),
    ),
    Room(
        ("reasoner",),
        "the reasoner's contract, its process, and the reasoner that is a method over a language"
        " model",
        ("methods", "language", "history", RECORDS),
    ),
    Room(
        ("methods",),
        "the papers' methods: windows, words, grammar, parsing, grounding; live as in training",
        ("language.base", "language.text_grammar", "history", RECORDS),
    ),
    Room(("tracker",), "from prompts to masks", ("engines", RECORDS)),
    Room(
        ("language",),
        "the contract of a language model that sees frames, and one behind a server",
        (RECORDS,),
    ),
    Room(("history",), "ring, sparse tier, windows, reduced images", (RECORDS,)),
    Room(("engines",), "compiled graphs, their bundles, back-ends", (RECORDS,)),
    Room(
        ("work",),
        "many independent tasks over threads, processes or a Ray cluster; not the live pipeline's",
        (RECORDS,),
    ),
    Room(
        (
            *("telemetry", "config", "dialogue", "prompts"),
            *("depth", "masks", "frames", "geometry", "files", "texts", "cores", "clock"),
            "errors",
        ),
        f"the {RECORDS}: words that everyone speaks",
    ),
)
TORCH_ROOMS = (
    Room(
        ("reasoner",),
        "the kind `transformers:FILE`: a method over a model in this process",
        ("seg", "vlm"),
    ),
    Room(
        ("seg",),
        "a language model that segments: its model, its folder, its answers",
        ("vlm", "tracker", "new_folder"),
    ),
    Room(("vlm",), "a vision-language model: loading, inputs, decoding", ("json_file", "hub")),
    Room(("tracker",), "the trackers' networks, and an engine that runs them in torch"),
    Room(
        ("new_folder", "json_file", "hub"),
        "a folder that appears whole; the JSON beside weights; what is said where the hub gives nothing",
    ),
)
ROOMS = {"foreseg": CORE_ROOMS, "foreseg_torch": TORCH_ROOMS}
DATA_FOLDERS = {"models"}  # no code
# Only these may start or synchronise threads and processes.
CONCURRENT = {
    "driving/worker.py": "the loop",
    "driving/tracker_thread.py": "the tracker's thread",
    "driving/reasoner_link.py": "the thread that talks to the reasoner's process",
    "driving/requests.py": "who waits for which reply: a lock, no thread of its own",
    "driving/inbox.py": "what the threads hand to the loop: a condition, no thread of its own",
    "driving/guarded_thread.py": "how each thread of the worker goes on",
    "reasoner/process.py": "the reasoner's own process, seen from the node",
    "reasoner/process_group.py": "that process with all that it starts, and their end",
    "language/http_stream.py": "httpx's client, on a loop run by its reader: no thread",
    "engines/openvino.py": "bfloat16 apart from the main thread",
    "work/threads.py": "tasks that wait for a server; nothing live",
    "work/processes.py": "tasks that compute; nothing live",
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
    return sorted((ROOT / PACKAGES[package] / package).rglob("*.py"))


def all_files() -> list[Path]:
    packages = [path for package in PACKAGES for path in files_of(package)]
    others = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "tests").rglob("*.py")]
    return [*packages, *others, *(ROOT / "ros_ws").glob("*.py"), *(ROOT / "launch").glob("*.py")]


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
    for package, root in PACKAGES.items():
        base = ROOT / root
        if (base / package) in path.parents:
            return path.relative_to(base).with_suffix("").parts
    return ()


def top(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_along_the_arrows(package: str) -> None:
    wrong = []
    for path in files_of(package):
        allowed = ARROWS[package] | {package}
        if package == "foreseg_ros" and "demo" in path.relative_to(ROOT).parts:
            allowed |= DEMO_MAY_ALSO
        wrong += [
            str(item)
            for item in imports_of(path)
            if top(item.modules[0]) in PACKAGES and top(item.modules[0]) not in allowed
        ]
    assert wrong == []


@pytest.mark.parametrize("guarded", GUARDED)
def test_heavy_packages_stay_where_they_belong(guarded: str) -> None:
    wrong = [
        str(item)
        for package in PACKAGES
        if package not in GUARDED[guarded]
        for path in files_of(package)
        for item in imports_of(path)
        if top(item.modules[0]) == guarded
    ]
    assert wrong == []


def test_nothing_imports_tests_or_benchmarks() -> None:
    wrong = [
        str(item)
        for package in PACKAGES
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


def modules_of(package: str) -> dict[str, Path]:
    base = ROOT / PACKAGES[package]
    return {
        ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files_of(package)
    }


def place_of(module: str) -> str:
    """The folder or flat module of a package that `module` is in or is; "" for the package."""
    return module.partition(".")[2].partition(".")[0]


def is_within(module: str, allowed: str) -> bool:
    return module == allowed or module.startswith(f"{allowed}.")


def allowed_of(package: str, place: str) -> set[str]:
    """All that the modules at `place` may import of their package, itself included."""
    rooms = ROOMS[package]
    room = next(room for room in rooms if place in room.places)
    right = room.places[room.places.index(place) :]
    may = [*right, *room.may]
    if RECORDS in may:
        may += rooms[-1].places
    return {f"{package}.{name}" for name in may}


@pytest.mark.parametrize("package", ROOMS)
def test_every_module_has_a_room(package: str) -> None:
    known = [place for room in ROOMS[package] for place in room.places]
    found = {place_of(module) for module in modules_of(package)} - {""}
    assert sorted(known) == sorted(found - DATA_FOLDERS), "the table has each place once"


@pytest.mark.parametrize("package", ROOMS)
def test_a_room_imports_only_what_the_table_allows(package: str) -> None:
    modules = modules_of(package)
    wrong = []
    for module, path in modules.items():
        if not place_of(module):
            continue
        allowed = allowed_of(package, place_of(module))
        for item in imports_of(path):
            found = [name for name in item.modules[1:] if name in modules] or [item.modules[0]]
            wrong += [
                f"{item}, of {name}"
                for name in found
                if top(name) == package and name != package
                if not any(is_within(name, each) for each in allowed)
            ]
    assert wrong == []


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_stand_on_rooms_below(package: str) -> None:
    rooms = ROOMS[package]
    floors = {place: floor for floor, room in enumerate(rooms) for place in room.places}
    floors[RECORDS] = len(rooms) - 1
    upwards = [
        f"{room.places[0]} on {name}"
        for floor, room in enumerate(rooms)
        for name in room.may
        if floors[name.partition(".")[0]] <= floor
    ]
    assert upwards == []


def table_of(package: str) -> list[str]:
    """The rooms of a package as a table in Markdown."""
    folder = ROOT / PACKAGES[package] / package

    def shown(place: str) -> str:
        return f"`{place}/`" if (folder / place).is_dir() else f"`{place}.py`"

    rows = [
        (
            " ".join(shown(place) for place in room.places),
            room.what,
            " ".join(name if name == RECORDS else f"`{name}`" for name in room.may),
        )
        for room in ROOMS[package]
    ]
    head = [("Room", "What lives there", "May import"), ("---", "---", "---")]
    return [f"| {' | '.join(row)} |".replace("|  |", "| |") for row in (*head, *rows)]


@pytest.mark.parametrize("package", ROOMS)
def test_the_documents_show_the_rooms(package: str) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = "\n".join(table_of(package))
    assert f"\n\n{table}\n\n" in page, f"docs/architecture.md wants:\n{table}"


@pytest.mark.parametrize("package", ROOMS)
def test_a_room_says_what_it_is_and_hands_nothing_on(package: str) -> None:
    for room in ROOMS[package]:
        for place in room.places:
            path = ROOT / PACKAGES[package] / package / place / "__init__.py"
            if not path.is_file():
                continue
            tree = ast.parse(path.read_text("utf-8"))
            said = (ast.get_docstring(tree) or "").split("\n\n")
            assert len(tree.body) == 1, f"{path}: more than a docstring"
            assert len(said) == 2, f"{path}: one sentence for what lives here, one for what not"


def test_the_core_has_no_import_cycle() -> None:
    modules = modules_of("foreseg")
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
        for package in PACKAGES
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
    allowed = {"difflib", "launch", "launch_ros", "pathlib", "re"}
    wrong = [
        str(item)
        for path in (ROOT / "launch").glob("*.py")
        for item in imports_of(path)
        if top(item.modules[0]) not in allowed
    ]
    assert wrong == []


def test_no_model_runs_code_of_its_own() -> None:
    """`transformers` asks on the terminal, or does as it is told, wherever it is not told no."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in PACKAGES
        for path in files_of(package)
        for node in nodes_of(path)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"from_pretrained", "from_config"}
        and not any(
            keyword.arg == "trust_remote_code"
            and isinstance(keyword.value, ast.Constant)
            and keyword.value.value is False
            for keyword in node.keywords
        )
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
