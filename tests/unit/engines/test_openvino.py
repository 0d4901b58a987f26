# SPDX-License-Identifier: Apache-2.0
"""Engines in OpenVINO, on pieces of the shipped tracker, beside ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foreseg.engines import openvino_api
from foreseg.engines.base import Tensor
from foreseg.engines.load import bundle_folder
from foreseg.engines.manifest import read_manifest, read_piece
from foreseg.engines.onnx import OnnxEngine
from foreseg.engines.openvino import LAUNCHES, MAX_SHAPES, OpenVinoEngine, launches
from foreseg.engines.openvino_api import import_openvino, is_openvino_installed
from foreseg.engines.sam2_specs import sam2_specs
from foreseg.errors import ConfigError, EngineError, MissingExtraError

needs_openvino = pytest.mark.skipif(
    not is_openvino_installed(), reason="openvino is not installed: pip install foreseg[openvino]"
)
FOLDER = bundle_folder("nano")
MANIFEST = read_manifest(FOLDER)
SPECS = sam2_specs(MANIFEST.geometry)
TOLERANCE = {"fp32": 2e-3, "bf16": 0.05}  # of the RMS of an output


def graph_of(name: str) -> bytes:
    return read_piece(FOLDER, MANIFEST.piece(name))


def engine_of(name: str, **options: object) -> OpenVinoEngine:
    inputs, outputs = SPECS[name]
    return OpenVinoEngine(name, graph_of(name), inputs=inputs, outputs=outputs, **options)


def drawn(name: str, rows: int, points: int = 1) -> dict[str, Tensor]:
    rng = np.random.default_rng(rows)
    made: dict[str, Tensor] = {}
    for spec in SPECS[name][0]:
        shape = spec.resolved({"B": rows, "P": points})
        made[spec.name] = rng.standard_normal(shape, np.float32)
        if spec.dtype == "int32":
            made[spec.name] = rng.integers(0, 2, shape).astype(np.int32)
    return made


@pytest.fixture(scope="module")
def memory_encoder() -> Iterator[OpenVinoEngine]:
    pytest.importorskip("openvino", reason="pip install foreseg[openvino]")
    engine = engine_of("memory_encoder")
    yield engine
    engine.close()


@pytest.mark.parametrize("rows", range(1, 12))
def test_rows_go_through_in_the_largest_launches_that_fit(rows: int) -> None:
    parts = list(launches(rows))
    assert [i for part in parts for i in range(*part)] == list(range(rows))
    sizes = [stop - start for start, stop in parts]
    assert set(sizes) <= set(LAUNCHES)
    assert sizes == sorted(sizes, reverse=True)
    assert sum(size < LAUNCHES[0] for size in sizes) <= 2


def test_every_number_of_rows_is_right_in_any_order(memory_encoder: OpenVinoEngine) -> None:
    """With named axes OpenVINO 2026.4 gives the rows of the run before."""
    reference = OnnxEngine("memory_encoder", graph_of("memory_encoder"))
    for rows in (2, 1, 7, 4, 3, 1):
        inputs = drawn("memory_encoder", rows)
        got = memory_encoder.run(inputs)["memory"]
        wanted = reference.run(inputs)["memory"]
        assert got.shape == wanted.shape == (rows, *wanted.shape[1:])
        assert np.abs(got - wanted).max() < 1e-4


def need(precision: str) -> None:
    """Skip where this processor has none of it; in the test's own process, for a child's skip is a failure."""
    core = import_openvino().Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("OpenVINO finds no bfloat16 in this processor")


def near_in(precision: str) -> None:
    reference = OnnxEngine("image_encoder", graph_of("image_encoder"))
    inputs = drawn("image_encoder", 1)
    engine = engine_of("image_encoder", precision=precision)
    assert engine.provider.endswith(f"CPU {precision}")
    for name, got in engine.run(inputs).items():
        wanted = np.asarray(reference.run(inputs)[name])
        off = np.sqrt(np.mean((got - wanted) ** 2) / np.mean(wanted**2))
        assert off < TOLERANCE[precision], name


@needs_openvino
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_lower_precision_is_near(precision: str) -> None:
    need(precision)
    near_in(precision)


def test_shapes_that_are_kept_compiled_are_few(memory_encoder: OpenVinoEngine) -> None:
    for rows in range(1, 12):
        memory_encoder.run(drawn("memory_encoder", rows))
    assert len(memory_encoder._requests) == len(LAUNCHES) <= MAX_SHAPES


@needs_openvino
def test_a_graph_that_is_none_or_another_is_refused() -> None:
    inputs, outputs = SPECS["memory_encoder"]
    with pytest.raises(EngineError, match=r"'memory_encoder' does not load in OpenVINO 20"):
        OpenVinoEngine("memory_encoder", b"no graph", inputs=inputs, outputs=outputs)
    graph = graph_of("memory_encoder")
    narrow = (replace(inputs[0], shape=(1, 128, 7, 7)), *inputs[1:])
    wide = (replace(inputs[0], dtype="float16"), *inputs[1:])
    for wrong in (narrow, wide, inputs[1:], (*inputs, replace(inputs[0], name="more"))):
        with pytest.raises(EngineError, match="'memory_encoder' should have"):
            OpenVinoEngine("memory_encoder", graph, inputs=wrong, outputs=outputs)


@needs_openvino
def test_what_the_device_refuses_is_said_in_its_words() -> None:
    with pytest.raises(EngineError, match=r"'memory_encoder' is refused by OpenVINO .* NPU7 fp32"):
        engine_of("memory_encoder", device="NPU7")


@pytest.mark.parametrize("options", [{"threads": 0}, {"precision": "int4"}])
def test_options_that_nobody_has_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="at least 1 thread and one of"):
        engine_of("memory_encoder", **options)


def test_without_openvino_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(openvino_api.importlib, "import_module", refuse)
    with pytest.raises(MissingExtraError, match=r"pip install 'foreseg\[openvino\]'"):
        engine_of("memory_encoder")
    assert sys.modules.get("openvino_telemetry", "untouched") is not None


SIGNALLED = """
import signal, subprocess, sys
from tests.unit.engines import test_openvino as tests
engine = tests.engine_of("memory_encoder", precision=sys.argv[1])
for rows in (2, 1, 7, 4, 3, 1):
    engine.run(tests.drawn("memory_encoder", rows))
tests.near_in(sys.argv[1])
signal.signal(signal.SIGCHLD, lambda *_: None)
for _ in range(20):
    subprocess.run([sys.executable, "-c", ""])
print("lives")
"""


@needs_openvino
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_signal_that_is_handled_does_not_kill(precision: str) -> None:
    """Linux 6.18 in Firecracker did, where the main thread had compiled in bfloat16."""
    need(precision)
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, precision],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    assert (done.returncode, done.stdout) == (0, "lives\n"), done.stderr


@needs_openvino
def test_its_import_tells_nobody(tmp_path: Path) -> None:
    """By itself it sends "ov import" to Google Analytics and makes ~/intel."""
    code = (
        "import sys; from foreseg.engines.openvino_api import import_openvino;"
        "import_openvino().Core();"
        "print(*sorted(n for n in sys.modules if n.partition('.')[0] == 'openvino_telemetry'))"
    )
    path = [str(Path(openvino_api.__file__).parents[2]), *filter(None, sys.path)]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(tmp_path), "PYTHONPATH": ":".join(path)},
    )
    assert done.stdout.strip() == ""
    assert list(tmp_path.iterdir()) == []
