# SPDX-License-Identifier: Apache-2.0
"""Records of built engines: what is found, and what is refused with which reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from foreseg.engines.base import TensorSpec
from foreseg.engines.built import (
    BUILT_FORMAT_VERSION,
    AxisRange,
    BuiltEngine,
    BuiltEngines,
    build_command,
    built_folders,
    find_built,
    read_built,
    read_engine,
    write_built,
)
from foreseg.engines.load import bundle_folder
from foreseg.engines.manifest import Manifest, read_manifest
from foreseg.errors import EngineError

HERE = {"flavour": "tensorrt_rtx", "version": "1.7.1.116", "device": "sm80"}


def engine_of(piece: str, graph_sha256: str) -> BuiltEngine:
    content = piece.encode()
    return BuiltEngine(
        piece=piece,
        file=f"{piece}.engine",
        sha256=hashlib.sha256(content).hexdigest(),
        num_bytes=len(content),
        graph_sha256=graph_sha256,
        inputs=(TensorSpec(name="x", shape=("B", 3, "P"), dtype="float32"),),
        outputs=(TensorSpec(name="y", shape=(1,), dtype="int32"),),
        profile=(AxisRange(name="B", min=1, opt=2, max=8),),
        build_s=1.5,
        num_layers=7,
    )


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return read_manifest(bundle_folder("nano"))


def put(folder: Path, manifest: Manifest, **changes: str) -> tuple[Path, BuiltEngines]:
    """Engines with made-up content, as a build leaves them."""
    built = BuiltEngines(
        format_version=BUILT_FORMAT_VERSION,
        max_rows=8,
        created="2026-11-21T00:00:00+00:00",
        builder="Linux, Python 3.11",
        engines=tuple(engine_of(piece.name, piece.sha256) for piece in manifest.pieces),
        **({"device_name": ""} | HERE | changes),
    )
    engines_folder = folder / "engines" / built.folder_name
    engines_folder.mkdir(parents=True)
    for engine in built.engines:
        (engines_folder / engine.file).write_bytes(engine.piece.encode())
    write_built(engines_folder, built)
    return engines_folder, built


def test_what_was_written_is_found_and_read(tmp_path: Path, manifest: Manifest) -> None:
    _, built = put(tmp_path, manifest)
    put(tmp_path, manifest, device="sm86+sm89")
    put(tmp_path, manifest, flavour="tensorrt")
    assert find_built(tmp_path, manifest, **HERE) == built
    assert read_engine(tmp_path, built, built.engine("decoder")) == b"decoder"
    for device in ("sm86", "sm89"):
        found = find_built(tmp_path, manifest, **(HERE | {"device": device}))
        assert found.devices == ("sm86", "sm89")
    assert built.engine("decoder").axis("B") == AxisRange(name="B", min=1, opt=2, max=8)
    assert built.engine("decoder").axis("P") is None
    assert len(built_folders(tmp_path)) == 3


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"device": "sm8"}, "none of 'tensorrt_rtx-1.7.1.116-sm8'"),
        ({"version": "1.7.1.11"}, "none of 'tensorrt_rtx-1.7.1.11-sm80'"),
        ({"flavour": "tensorrt"}, "--flavour tensorrt`"),
    ],
)
def test_engines_of_another_device_version_or_flavour_are_refused(
    tmp_path: Path, manifest: Manifest, wanted: dict[str, str], reason: str
) -> None:
    put(tmp_path, manifest)
    with pytest.raises(EngineError) as caught:
        find_built(tmp_path, manifest, **(HERE | wanted))
    assert reason in str(caught.value)
    assert "tensorrt_rtx-1.7.1.116-sm80" in str(caught.value)  # what there is
    assert "foreseg-export build" in str(caught.value)


def test_a_bundle_without_engines_names_the_command_that_builds_them(
    tmp_path: Path, manifest: Manifest
) -> None:
    folder = tmp_path / "my bundle"
    assert build_command(folder, "tensorrt_rtx") == (
        f"foreseg-export build '{folder}' --flavour tensorrt-rtx"
    )
    with pytest.raises(EngineError, match="no built engines") as caught:
        find_built(folder, manifest, **HERE)
    assert build_command(folder, "tensorrt_rtx") in str(caught.value)


def test_engines_are_stale_after_a_graph_changes(tmp_path: Path, manifest: Manifest) -> None:
    put(tmp_path, manifest)
    first, *others = manifest.pieces
    changed = replace(manifest, pieces=(replace(first, sha256="0" * 64), *others))
    with pytest.raises(EngineError, match=f"stale: {first.name} was built from"):
        find_built(tmp_path, changed, **HERE)
    more = replace(manifest, pieces=(*manifest.pieces, replace(first, name="extra")))
    with pytest.raises(EngineError, match="stale: extra was not built"):
        find_built(tmp_path, more, **HERE)
    fewer = replace(manifest, pieces=tuple(others))
    with pytest.raises(EngineError, match=rf"stale: the bundle has no \['{first.name}'\]"):
        find_built(tmp_path, fewer, **HERE)


def test_engines_of_tensorrt_are_tuned_for_one_gpu(tmp_path: Path, manifest: Manifest) -> None:
    here = HERE | {"flavour": "tensorrt", "device": "sm87"}
    put(tmp_path, manifest, **here, device_name="Orin, 16 SMs")
    find_built(tmp_path, manifest, **here, device_name="Orin, 16 SMs")
    with pytest.raises(EngineError, match="tuned for 'Orin, 16 SMs', this is 'Orin, 8 SMs'"):
        find_built(tmp_path, manifest, **here, device_name="Orin, 8 SMs")
    put(tmp_path, manifest)  # those of tensorrt_rtx are compiled on the device
    find_built(tmp_path, manifest, **HERE, device_name="Orin, 8 SMs")


def test_a_truncated_or_tampered_engine_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    engines_folder, built = put(tmp_path, manifest)
    path = engines_folder / "decoder.engine"
    path.write_bytes(b"decodes")  # as long as before
    find_built(tmp_path, manifest, **HERE)
    with pytest.raises(EngineError, match=r"changed since it was made; run `foreseg-export build"):
        read_engine(tmp_path, built, built.engine("decoder"))
    path.write_bytes(b"dec")
    with pytest.raises(EngineError, match="has 3 bytes, its record says 7 bytes"):
        find_built(tmp_path, manifest, **HERE)
    path.unlink()
    with pytest.raises(EngineError, match="is missing"):
        find_built(tmp_path, manifest, **HERE)


def test_a_build_that_was_cut_short_is_not_found(tmp_path: Path, manifest: Manifest) -> None:
    engines_folder, _ = put(tmp_path, manifest)
    engines_folder.rename(engines_folder.with_name(f".{engines_folder.name}"))
    assert built_folders(tmp_path) == ()


def change(key: str, value: object) -> Callable[[dict[str, object]], None]:
    return lambda record: record.update({key: value})


def change_engine(key: str, value: object) -> Callable[[dict[str, object]], None]:
    def apply(record: dict[str, object]) -> None:
        engines = record["engines"]
        assert isinstance(engines, list)
        engines[0][key] = value

    return apply


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (change("format_version", 2), "format version 2"),
        (change("device", "sm90"), "the record of 'tensorrt_rtx-1.7.1.116-sm90'"),
        (change("engines", {}), "a list in 'engines'"),
        (change_engine("num_bytes", "7"), "an integer in 'num_bytes'"),
        (change_engine("file", "../manifest.json"), "a plain file name in 'file'"),
        (change_engine("profile", [{"name": "B", "min": 2, "opt": 1, "max": 8}]), "min <= opt"),
        (change_engine("inputs", [{"name": "x", "shape": [1.5]}]), "integers and names"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(
    tmp_path: Path,
    manifest: Manifest,
    spoil: Callable[[dict[str, object]], None],
    reason: str,
) -> None:
    engines_folder, _ = put(tmp_path, manifest)
    path = engines_folder / "engines.json"
    record = json.loads(path.read_text())
    spoil(record)
    path.write_text(json.dumps(record))
    with pytest.raises(EngineError) as caught:
        read_built(engines_folder)
    assert reason in str(caught.value)
    assert str(path) in str(caught.value)
