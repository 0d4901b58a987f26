# SPDX-License-Identifier: Apache-2.0
"""The package as a whole: roots, versions, manifests, extras, parameters, imports, the wheel."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import setuptools

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli", reason="Python 3.10 has no tomllib")

ROOT = Path(__file__).resolve().parent.parent
CODE = ("runtime", "export", "training", "evaluation", "simulation", "ros_ws/src", "launch")
SYSTEMD_ANALYZE = shutil.which("systemd-analyze") or ""
IMPORT_BUDGET_S = 0.1  # over numpy's own import
IMPORT_SCRIPT = """
import sys, time
import numpy
start = time.process_time()  # what it costs, however busy the machine is
import foreseg
print(time.process_time() - start)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
# import name -> distribution, where they differ
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "skvideo": "scikit-video",
    "yaml": "pyyaml",
    "PIL": "pillow",
}
# package -> extras that must bring what it imports
PACKAGE_EXTRAS = {
    "runtime/foreseg": (
        "cpu",
        "cuda",
        "nano",
        "tensorrt",
        "openvino",
        "server",
        "cluster",
        "video",
        "bags",
    ),
    "runtime/foreseg_torch": ("vlm", "export", "train"),
    "runtime/foreseg_view": ("view",),
    "export/foreseg_export": ("export",),
    "training/foreseg_training": ("train", "simulation"),
    "evaluation/foreseg_evaluation": ("evaluation",),
    "simulation/foreseg_simulation": ("simulation", "tabletop"),
    "ros_ws/src/foreseg_ros/foreseg_ros": ("demo",),
}
# Imports that no extra brings.
OPTIONAL = {
    "typing_extensions",  # under TYPE_CHECKING only; mypy brings it
    "vision_msgs",  # has no wheel; without it the node says so and goes on
    "bond",  # likewise; only where a parameter wants it
}
ROS_PACKAGES = {"rclpy", "foreseg_msgs", "ament_index_python"}


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    """What setup.py hands to setuptools."""
    caught: dict[str, Any] = {}
    original, before = setuptools.setup, Path.cwd()
    setuptools.setup = caught.update
    os.chdir(ROOT)
    try:
        spec = importlib.util.spec_from_file_location("foreseg_setup", ROOT / "setup.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        caught["roots"] = module.ROOTS
    finally:
        setuptools.setup = original
        os.chdir(before)
    return caught


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        content: dict[str, Any] = tomllib.load(file)
    return content


def sources() -> Iterator[Path]:
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not {"build", "install", "log"} & set(path.relative_to(ROOT).parts):
                yield path


def test_the_source_roots_agree(metadata: dict[str, Any], pyproject: dict[str, Any]) -> None:
    roots = list(dict.fromkeys(metadata["roots"].values()))
    assert pyproject["tool"]["pytest"]["ini_options"]["pythonpath"] == roots
    assert pyproject["tool"]["mypy"]["mypy_path"] == roots
    assert pyproject["tool"]["ruff"]["src"] == roots


def test_every_package_of_ours_is_known(metadata: dict[str, Any]) -> None:
    source_roots = metadata["roots"]
    found = {
        path.parent.name
        for root in set(source_roots.values())
        for path in (ROOT / root).glob("*/__init__.py")
    }
    assert found <= set(source_roots)


def test_no_generic_name_becomes_importable(metadata: dict[str, Any]) -> None:
    assert {package.partition(".")[0] for package in metadata["packages"]} <= set(
        metadata["roots"]
    )
    assert not (ROOT / "launch" / "__init__.py").exists()


def test_the_version_is_the_same_everywhere(metadata: dict[str, Any]) -> None:
    import foreseg

    manifests = [ROOT / "package.xml", ROOT / "ros_ws/src/foreseg_msgs/package.xml"]
    versions = {ET.parse(path).findtext("version") for path in manifests}  # noqa: S314 (ours)
    assert versions == {metadata["version"]} == {foreseg.__version__}
    assert f"## {metadata['version']}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("manifest", "name", "build_type"),
    [
        ("package.xml", "foreseg", "ament_python"),
        ("ros_ws/src/foreseg_msgs/package.xml", "foreseg_msgs", "ament_cmake"),
    ],
)
def test_the_manifest_is_of_format_3(manifest: str, name: str, build_type: str) -> None:
    package = ET.parse(ROOT / manifest).getroot()  # noqa: S314 (ours)
    assert package.tag == "package"
    assert package.get("format") == "3"
    assert package.findtext("name") == name
    assert package.findtext("license") == "Apache-2.0"
    assert package.findtext("export/build_type") == build_type
    for tag in ("version", "description", "maintainer"):
        assert package.findtext(tag), tag


def test_the_manifest_declares_every_ros_package_that_is_imported() -> None:
    package = ET.parse(ROOT / "package.xml").getroot()  # noqa: S314 (ours)
    declared = {element.text for element in package.iter("exec_depend")}
    imported = {
        name
        for path in (*(ROOT / "ros_ws/src/foreseg_ros").rglob("*.py"), *launch_files())
        for name in imports_of(path)
        if name in ROS_PACKAGES
        or name.endswith(("_msgs", "_interfaces"))
        or name.startswith(("launch", "std_"))
    }
    assert imported - declared - OPTIONAL == set()


def test_the_interface_list_is_complete() -> None:
    package = ROOT / "ros_ws/src/foreseg_msgs"
    listed = set(
        re.findall(
            r'"((?:msg|srv|action)/\w+\.\w+)"', (package / "CMakeLists.txt").read_text("utf-8")
        )
    )
    present = {
        f"{path.parent.name}/{path.name}"
        for kind in ("msg", "srv", "action")
        for path in (package / kind).iterdir()
    }
    assert listed == present


def imports_of(path: Path) -> set[str]:
    """Top-level names that a file imports absolutely."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def requirement_name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9_.-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match.group()).lower()


@pytest.mark.parametrize("package", PACKAGE_EXTRAS)
def test_what_a_package_imports_its_extras_bring(package: str, metadata: dict[str, Any]) -> None:
    brought = {
        requirement_name(requirement)
        for requirement in metadata["install_requires"]
        + [line for extra in PACKAGE_EXTRAS[package] for line in metadata["extras_require"][extra]]
    }
    known = set(metadata["roots"]) | set(sys.stdlib_module_names) | OPTIONAL | {"__future__"}
    known |= {"foreseg_msgs"}  # built, not installed
    missing = {
        (str(path.relative_to(ROOT)), name)
        for path in (ROOT / package).rglob("*.py")
        for name in imports_of(path) - known
        if not {
            requirement_name(DISTRIBUTIONS.get(name, name)),
            f"ros-jazzy-{requirement_name(name)}",
        }
        & brought
    }
    assert missing == set()


def test_extras_are_pinned(metadata: dict[str, Any]) -> None:
    pinned = {
        requirement_name(line)
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if not line.startswith("#")
    }
    extras = metadata["extras_require"]
    wanted = {
        requirement_name(requirement)
        for extra in ("demo", "dev", "ros-build")
        for requirement in extras[extra]
    }
    assert wanted - pinned == set()


def test_every_requirement_is_explained(metadata: dict[str, Any]) -> None:
    page = (ROOT / "docs/dependencies.md").read_text("utf-8").lower()
    wanted = {
        requirement_name(requirement)
        for requirements in metadata["extras_require"].values()
        for requirement in [*requirements, *metadata["install_requires"]]
    }
    named = set(re.findall(r"[a-z0-9_.-]+", page.replace("_", "-")))
    absent = {name for name in wanted - named if name.removeprefix("ros-jazzy") not in named}
    assert absent == set()


def test_the_proofs_named_in_the_dependencies_exist() -> None:
    page = (ROOT / "docs/dependencies.md").read_text("utf-8")
    for place in re.findall(r"`((?:tests|benchmarks|training)/[\w./]+)(?:::(\w+))?`", page):
        path = ROOT / place[0]
        assert path.exists(), place
        assert place[1] in (path.read_text("utf-8") if path.is_file() else ""), place


def test_every_extra_that_is_told_of_exists(metadata: dict[str, Any]) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docker").iterdir()]
    told = {
        (path.name, extra)
        for path in pages
        for names in re.findall(
            r"(?:foreseg|whl\)|/src|-src)\[([\w,-]+)\]", path.read_text("utf-8")
        )
        for extra in names.split(",")
    }
    assert "jetson-orin.Dockerfile" in {name for name, _ in told}
    assert {item for item in told if item[1] not in metadata["extras_require"]} == set()


def test_every_dockerfile_is_on_the_page_and_says_what_was_not_run() -> None:
    page = (ROOT / "docs" / "install.md").read_text("utf-8")
    for path in (ROOT / "docker").iterdir():
        assert f"| `{path.name}` |" in page
        assert "Never built" in path.read_text("utf-8"), "or say when, and on what"


def complaints_of(unit: Path) -> str:
    """What systemd has to say against a unit; it returns 0 also for keys that it passes over.

    It looks at the machine's own units beside it, whose faults are not ours.
    """
    done = subprocess.run(
        [SYSTEMD_ANALYZE, "verify", str(unit)],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return "\n".join(line for line in done.stdout.splitlines() if unit.name in line)


@pytest.mark.skipif(not SYSTEMD_ANALYZE, reason="needs systemd-analyze")
def test_systemd_has_nothing_to_say_against_the_unit(tmp_path: Path) -> None:
    unit = ROOT / "launch" / "systemd" / "foreseg.service"
    assert complaints_of(unit) == ""
    wrong = tmp_path / "foreseg.service"
    wrong.write_text(unit.read_text("utf-8").replace("Restart=always", "Restart=forever"))
    assert "forever" in complaints_of(wrong)


def test_the_extra_test_has_pytest_for_colcon(metadata: dict[str, Any]) -> None:
    assert "pytest" in {requirement_name(r) for r in metadata["extras_require"]["test"]}


def test_every_entry_point_is_importable(metadata: dict[str, Any]) -> None:
    for lines in metadata["entry_points"].values():
        for line in lines:
            module, _, attribute = line.partition("=")[2].strip().partition(":")
            if module.startswith("foreseg_ros"):
                pytest.importorskip("rclpy", reason="ROS 2 is not installed")
            assert callable(getattr(importlib.import_module(module), attribute)), line


def test_the_core_imports_fast_and_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_SCRIPT],
        env=os.environ | {"PYTHONPATH": str(ROOT / "runtime")},
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, modules = done.stdout.splitlines()
    heavy = {
        "torch",
        "cv2",
        "onnxruntime",
        "openvino",
        "tensorrt",
        "rclpy",
        "transformers",
        "yaml",
        "httpx",
    }
    heavy |= {"starlette", "uvicorn"}
    assert heavy & set(modules.split()) == set()
    assert float(seconds) < IMPORT_BUDGET_S


def test_no_source_names_a_machine_path() -> None:
    suspicious = re.compile(
        r"(?<![\w.~])/(?:home|root|Users|work|mnt|opt)/(?!python/cp|ros/)[\w.]"
    )
    tracked = subprocess.run(
        ["git", "ls-files"],  # noqa: S607
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    kinds = {".py", ".toml", ".cfg", ".xml", ".yaml", ".txt", ".md", ".msg", ".srv", ""}
    found = [
        f"{name}:{number}: {line.strip()}"
        for name in tracked
        if Path(name).suffix in kinds and (ROOT / name).is_file()
        for number, line in enumerate((ROOT / name).read_text("utf-8").splitlines(), 1)
        if suspicious.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("path", list(sources()), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_source_begins_with_its_licence(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n") or not text


def launch_files() -> list[Path]:
    return sorted((ROOT / "launch").glob("*.launch.py"))


def test_shipped_parameters_are_known_to_the_core() -> None:
    yaml = pytest.importorskip("yaml")
    from foreseg.config import Config, config_from_settings, settings_of

    content = yaml.safe_load((ROOT / "launch/params/foreseg.yaml").read_text("utf-8"))
    groups = {name.partition(".")[0] for name, _, _ in settings_of(Config())}
    values = {
        f"{group}.{leaf}": value
        for group, leaves in content["/**"]["ros__parameters"].items()
        if group in groups
        for leaf, value in leaves.items()
    }
    assert values
    config_from_settings(values)


def test_the_fast_dds_profile_replaces_the_built_in_transports() -> None:
    profile = ET.parse(ROOT / "launch/params/fastdds.xml").getroot()  # noqa: S314 (ours)
    space = {"dds": "http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"}
    participant = profile.find("dds:participant", space)
    assert participant is not None
    assert participant.get("is_default_profile") == "true"
    assert participant.findtext("dds:rtps/dds:useBuiltinTransports", namespaces=space) == "false"
    segment = profile.findtext(
        "dds:transport_descriptors/dds:transport_descriptor/dds:segment_size", namespaces=space
    )
    assert int(segment or 0) >= 4 * 1920 * 1080 * 3


def test_the_wheel_has_all_that_a_user_needs(tmp_path: Path, metadata: dict[str, Any]) -> None:
    pytest.importorskip("wheel", reason="the wheel is built without build isolation")
    subprocess.run(
        [
            *(sys.executable, "setup.py", "-q", "build", "--build-base", str(tmp_path / "build")),
            *("egg_info", "--egg-base", str(tmp_path)),
            *("bdist_wheel", "--dist-dir", str(tmp_path)),
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if "dist-info" not in name}
    assert tops - {f"foreseg-{metadata['version']}.data"} <= set(metadata["roots"])
    for package in metadata["package_dir"]:
        assert f"{package}/__init__.py" in names
    assert "foreseg/py.typed" in names
    data = f"foreseg-{metadata['version']}.data/data/share"
    for wanted in (
        "ament_index/resource_index/packages/foreseg",
        "foreseg/package.xml",
        "foreseg/launch/foreseg.launch.py",
        "foreseg/launch/params/foreseg.yaml",
        "foreseg/launch/params/fastdds.xml",
    ):
        assert f"{data}/{wanted}" in names
    bundled = {
        str(path.relative_to(ROOT / "runtime"))
        for path in (ROOT / "runtime/foreseg/models").rglob("*")
        if path.suffix in {".json", ".npy", ".npz", ".onnx"}
    }
    assert bundled <= set(names)
