# SPDX-License-Identifier: Apache-2.0
"""TensorRT for RTX really builds every piece, without a GPU, for the A100; nothing runs here."""

from __future__ import annotations

import dataclasses
import errno
import re
import shutil
import signal
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from foreseg import cli
from foreseg.engines.base import TensorSpec
from foreseg.engines.built import (
    AxisRange,
    BuiltEngines,
    built_folders,
    find_built,
    read_built,
    read_engine,
)
from foreseg.engines.manifest import read_manifest, sha256_of, write_manifest
from foreseg.errors import EngineError, InputError

onnx = pytest.importorskip("onnx", reason="needs ONNX: pip install 'foreseg[export]'")
trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx, which Linux x86-64 has")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'foreseg[cpu]'")
pytest.importorskip("transformers", reason="needs transformers: pip install 'foreseg[export]'")

from tests.support.sam2_models import half_graph, tiny_bundle  # noqa: E402

from foreseg.engines.load import load_bundle  # noqa: E402
from foreseg.engines.onnx import OnnxEngine  # noqa: E402
from foreseg_export import build_command, bundle_engines  # noqa: E402
from foreseg_export.bundle_engines import Work, build_engines  # noqa: E402
from foreseg_export.cli import main  # noqa: E402
from foreseg_export.engine_build import BuildOptions, EngineBuilder  # noqa: E402
from foreseg_export.graphs import PIECE_NAMES  # noqa: E402
from foreseg_export.precision import INT8_PIECE, quantise  # noqa: E402
from foreseg_export.targets import BuildPlan  # noqa: E402
from foreseg_export.tensorrt_api import open_package  # noqa: E402

pytestmark = pytest.mark.slow  # exports a small model

A100 = {"flavour": "tensorrt_rtx", "version": trt.__version__, "device": "sm80"}
SMALLEST = "memory_encoder"  # the piece that builds fastest
RTX_MASK = {"sm80": 0x2, "sm86": 0x4, "sm89": 0x8, "sm120": 0x10}
AXES = {name: AxisRange(name=name, min=1, opt=1, max=4) for name in "BP"}


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_command, "local_device", lambda: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bundle with engines for the A100, as the command makes them; not to be changed."""
    folder = tmp_path_factory.mktemp("built") / "bundle"
    shutil.copytree(tiny_bundle("hiera"), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_command, "local_device", lambda: None)
        assert main(["build", str(folder), "--target", "a100", "--max-objects", "4"]) == 0
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def bundle(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(finished, tmp_path / "bundle"))


def found(folder: Path) -> BuiltEngines:
    return find_built(folder, read_manifest(folder), **A100)


def test_every_piece_builds_with_the_inputs_and_outputs_of_its_graph(finished: Path) -> None:
    built = found(finished)
    assert (built.max_rows, built.device_name) == (4, "")
    with load_bundle(finished) as bundle:
        assert [engine.piece for engine in built.engines] == [e.name for e in bundle.engines]
        for record, engine in zip(built.engines, bundle.engines, strict=True):
            assert (record.inputs, record.outputs) == (engine.inputs, engine.outputs)
            assert record.num_layers > 10
            named = {dim for spec in record.inputs for dim in spec.shape if isinstance(dim, str)}
            assert [axis.name for axis in record.profile] == sorted(named)
            graph = finished / bundle.manifest.piece(record.piece).file
            assert record.graph_sha256 == sha256_of(graph)
    rows, points = (built.engine("decoder").axis(name) for name in "BP")
    assert rows == AxisRange(name="B", min=1, opt=2, max=4)
    assert points == AxisRange(name="P", min=1, opt=1, max=16)
    assert built.engine("image_encoder").profile == ()


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "fp16") for name in PIECE_NAMES), (INT8_PIECE, "int8")]
)
def test_every_piece_builds_in_its_lower_precisions(
    tmp_path: Path, name: str, precision: str
) -> None:
    """Precision lies in the graph: the builder is told nothing of it."""
    if precision == "int8":
        path = tmp_path / "lower.onnx"
        pixels = np.random.default_rng(0).normal(size=(2, 1, 3, 64, 64)).astype(np.float32)
        quantise(tiny_bundle("hiera") / f"{name}.onnx", path, pixels, method="minmax")
    else:
        path = half_graph(name)
    graph = path.read_bytes()
    built = EngineBuilder(trt, ("sm80",), BuildOptions(axes=AXES)).build(name, graph)
    engine = OnnxEngine(name, graph)
    assert (built.inputs, built.outputs) == (engine.inputs, engine.outputs)
    types = {spec.dtype for spec in (*built.inputs, *built.outputs)}
    assert types <= {"float32", "int32"}
    assert built.num_layers > 10


def test_engines_hold_the_version_and_device_that_they_were_built_for(finished: Path) -> None:
    """Soft: NVIDIA documents no header; this is what release 1.7 was seen to write."""
    built = found(finished)
    for engine in built.engines:
        content = read_engine(finished, built, engine)
        assert content[:4] == b"vtrt"
        assert struct.unpack_from("<Q", content, 16) == (len(content),)
        assert ".".join(str(byte) for byte in content[24:28]) == trt.__version__
        assert struct.unpack_from("<I", content, 32) == (RTX_MASK["sm80"],)


def test_one_engine_serves_every_device_of_its_target(bundle: Path) -> None:
    assert main(["build", str(bundle), "--target", "rtx", "--pieces", SMALLEST]) == 0
    path = next(path for path in built_folders(bundle) if "sm86" in path.name)
    built = read_built(path)
    assert built.devices == ("sm86", "sm89", "sm120")
    content = read_engine(bundle, built, built.engine(SMALLEST))
    mask = sum(RTX_MASK[device] for device in built.devices)
    assert struct.unpack_from("<I", content, 32) == (mask,)
    with pytest.raises(EngineError, match="image_encoder was not built"):
        find_built(bundle, read_manifest(bundle), **(A100 | {"device": "sm89"}))


def test_only_what_is_stale_or_damaged_is_built_again(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = found(bundle)
    words = ["build", str(bundle), "--target", "a100", "--max-objects", "4"]
    assert main(words) == 0
    assert capsys.readouterr().out.count("up to date") == 4
    assert found(bundle) == before

    change_graph(bundle, SMALLEST)
    with pytest.raises(EngineError, match=f"stale: {SMALLEST} was built from the graph"):
        found(bundle)
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.count("up to date") == 3
    assert f"{SMALLEST}: " in out
    assert "(the graph has changed)" in out

    path = built_folders(bundle)[0] / f"{SMALLEST}.engine"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    built = found(bundle)
    with pytest.raises(EngineError, match="changed since it was made"):
        read_engine(bundle, built, built.engine(SMALLEST))
    assert cli.main(["bundle", "verify", str(bundle)]) == 2
    assert "changed since it was made" in capsys.readouterr().err
    assert main(words) == 0
    assert "(its file was damaged)" in capsys.readouterr().out
    assert cli.main(["bundle", "verify", str(bundle)]) == 0

    assert main([*words[:-1], "3", "--pieces", SMALLEST]) == 0
    assert "(it was built for other sizes)" in capsys.readouterr().out
    assert found(bundle).max_rows == 3  # what all of them take


def change_graph(folder: Path, piece: str) -> None:
    """Change a graph's bytes, not what it computes, as another export would."""
    manifest = read_manifest(folder)
    path = folder / manifest.piece(piece).file
    model = onnx.load(path)
    model.producer_name = "another"
    onnx.save(model, path)
    size, digest = path.stat().st_size, sha256_of(path)
    pieces = tuple(
        dataclasses.replace(p, num_bytes=size, sha256=digest) if p.name == piece else p
        for p in manifest.pieces
    )
    write_manifest(folder, dataclasses.replace(manifest, pieces=pieces))


def test_a_build_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle("hiera"), tmp_path / "bundle"))
    work = Work(
        folder=folder,
        manifest=read_manifest(folder),
        plan=BuildPlan(flavour="tensorrt_rtx", devices=("sm80",), device_name=""),
        max_objects=2,
        pieces=("image_encoder", SMALLEST),
    )
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        build_engines(open_package("tensorrt_rtx"), work, lines.append, lambda *_: not lines)
    assert [line.partition(":")[0] for line in lines] == ["[1/2] image_encoder"]
    build_engines(open_package("tensorrt_rtx"), work, lines.append)
    assert "up to date" in lines[1]
    assert "(new)" in lines[2]


def test_interrupt_stops_the_builder_at_its_next_step() -> None:
    with build_command._Progress() as progress:
        assert progress.step("phase", 1, 2)
        signal.raise_signal(signal.SIGINT)
        assert not progress.step("phase", 2, 2)
        with pytest.raises(KeyboardInterrupt):  # whoever insists is heard at once
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no NVIDIA GPU: name a --target"),
        (
            ["--target", "jetson-orin"],
            "copy the bundle to the jetson-orin and run `foreseg-export",
        ),
        (["--target", "h100"], "does not build for sm90"),
        (["--target", "a100", "--flavour", "tensorrt"], "TensorRT tunes on the device"),
        (["--target", "cpu"], "nothing to build"),
        (["--target", "a100", "--pieces", "encoder"], "--pieces names ['encoder']"),
        (["--target", "a100", "--force", "--optimization-level", "5"], "no optimization level"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(
    bundle: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["build", str(bundle), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_damaged_bundle_is_wrong_input(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["build", str(bundle), "--target", "a100", "--force", "--pieces", SMALLEST]
    graph = bundle / f"{SMALLEST}.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    assert main(words) == 2
    assert "truncated" in capsys.readouterr().err
    (bundle / "manifest.json").unlink()
    assert main(words) == 2
    assert "no engine bundle" in capsys.readouterr().err


def test_what_stands_in_the_way_is_known_before_anything_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(tiny_bundle("hiera"), tmp_path / "bundle"))
    words = ["build", str(folder), "--target", "a100"]

    class Unused:
        def __init__(self, *_: object) -> None:
            pytest.fail("the builder was started")

    monkeypatch.setattr(bundle_engines, "EngineBuilder", Unused)
    (folder / "engines").write_text("no folder can be made here")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert f"engines cannot be written to {folder / 'engines'}" in error
    assert "copy the bundle" in error
    assert error.count("\n") == 1
    (folder / "engines").unlink()
    graph = folder / f"{SMALLEST}.onnx"  # the last one
    graph.write_bytes(graph.read_bytes()[:-1])
    assert main(words) == 2
    assert "truncated" in capsys.readouterr().err
    assert not (folder / "engines").exists()


def test_a_full_disk_leaves_no_engine_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(tiny_bundle("hiera"), tmp_path / "bundle"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundle_engines, "write_built", full)
    assert main(["build", str(folder), "--target", "a100", "--pieces", SMALLEST]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not any((folder / "engines").iterdir())


def test_an_operator_that_tensorrt_lacks_is_named() -> None:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("FrobnicateMasks", ["x"], ["y"], domain="nowhere")],
        "graph",
        [helper.make_tensor_value_info("x", kind, [1])],
        [helper.make_tensor_value_info("y", kind, [1])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("nowhere", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    builder = EngineBuilder(trt, ("sm80",), BuildOptions(axes=AXES))
    with pytest.raises(EngineError, match=r"does not understand 'piece': .*FrobnicateMasks"):
        builder.build("piece", model.SerializeToString())


def add_graph(*shape: int | str) -> bytes:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("shape", "said"),
    [(("B", "Q"), "axis 'Q'"), (("B", "P"), "'y' of a size that is not fixed")],
)
def test_axes_that_nobody_gave_sizes_for_are_refused(
    shape: tuple[int | str, ...], said: str
) -> None:
    builder = EngineBuilder(trt, ("sm80",), BuildOptions(axes=AXES))
    with pytest.raises(EngineError, match=re.escape(said)):
        builder.build("piece", add_graph(*shape))


def test_a_device_that_the_package_does_not_know_is_wrong_input() -> None:
    builder = EngineBuilder(trt, ("sm87",), BuildOptions(axes=AXES))
    with pytest.raises(InputError, match=r"builds for \[.*'sm80'.*\], not sm87"):
        builder.build("piece", add_graph("B", 4))


class AsTensorRt:
    """TensorRT for RTX in the place of TensorRT: its configurations know no capabilities.

    So the branch that runs on the device itself is executed, against real bindings.
    """

    def __init__(self) -> None:
        self.configs: list[SimpleNamespace] = []
        self.caches: list[object] = []

    def __getattr__(self, name: str) -> object:
        return getattr(trt, name)

    def Builder(self, logger: object) -> SimpleNamespace:  # noqa: N802 (TensorRT's name)
        real = trt.Builder(logger)

        def configure() -> SimpleNamespace:
            config = real.create_builder_config()
            self.configs.append(
                SimpleNamespace(
                    real=config,
                    create_timing_cache=config.create_timing_cache,
                    set_timing_cache=lambda cache, ignore_mismatch: (
                        self.caches.append(cache),
                        config.set_timing_cache(cache, ignore_mismatch=ignore_mismatch),
                    ),
                    set_memory_pool_limit=config.set_memory_pool_limit,
                    add_optimization_profile=config.add_optimization_profile,
                )
            )
            return self.configs[-1]

        def build(network: object, config: SimpleNamespace) -> object:
            config.real.progress_monitor = config.progress_monitor
            config.real.builder_optimization_level = config.builder_optimization_level
            return real.build_serialized_network(network, config.real)

        return SimpleNamespace(
            create_network=real.create_network,
            create_optimization_profile=real.create_optimization_profile,
            create_builder_config=configure,
            build_serialized_network=build,
        )


def test_what_tensorrt_itself_is_told_is_what_was_asked_for() -> None:
    package = AsTensorRt()
    options = BuildOptions(axes=AXES, workspace_mb=256, optimization_level=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # caches do nothing in that for RTX
        builder = EngineBuilder(package, ("sm80",), options)
        for shape in (("B", 4), (2, 4)):
            engine = builder.build("piece", add_graph(*shape))
            assert engine.inputs == (TensorSpec(name="x", shape=shape, dtype="float32"),)
            assert engine.content
    last = package.configs[-1].real
    assert last.builder_optimization_level == 2
    assert last.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 256 << 20
    assert len(package.caches) == 2
    assert package.caches[0] is package.caches[1]  # what one piece measured serves the next


def test_building_needs_neither_torch_nor_onnx(bundle: Path) -> None:
    absent = ("torch", "onnx", "onnxruntime", "transformers", "cv2", "tqdm", "scipy")
    words = ["build", str(bundle), "--target", "a100", "--force", "--pieces", SMALLEST]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}));"
        " from foreseg_export import build_command, cli;"
        " build_command.local_device = lambda: None;"
        f" sys.exit(cli.main({words}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "(asked for)" in done.stdout


def test_inspect_lists_the_engines(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bundle", "inspect", str(finished)]) == 0
    out = capsys.readouterr().out
    assert f"tensorrt_rtx-{trt.__version__}-sm80 (ahead of time): " in out
    assert "up to 4 objects in a launch" in out
    assert "up to date" in out
