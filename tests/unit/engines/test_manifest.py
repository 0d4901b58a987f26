# SPDX-License-Identifier: Apache-2.0
"""The bundle's manifest: written, read back, and refused with the reason when it does not fit."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from foreseg.engines.load import bundle_folder, load_bundle
from foreseg.engines.manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    Calibration,
    Golden,
    Manifest,
    OutputParity,
    Parity,
    Piece,
    Sam2Geometry,
    Sensitivity,
    read_manifest,
    read_piece,
    sha256_of,
    write_manifest,
)
from foreseg.errors import EngineError

GRAPH = b"not a graph, but it has a hash"


def make_parity() -> Parity:
    return Parity(
        reference="a model",
        frames=20,
        objects=3,
        masks=60,
        min_area_px=400,
        max_abs_logit=1e-3,
        rms_logit=1e-4,
        reference_rms_logit=5.0,
        min_iou=0.998,
        mean_iou=0.9996,
        gate_mean_iou=0.999,
    )


def make_manifest() -> Manifest:
    geometry = Sam2Geometry(
        image_size=64,
        feature_size=4,
        mask_size=16,
        hidden_channels=128,
        memory_tokens=16,
        memory_channels=64,
        num_recent=6,
        num_pointers=16,
        multimask_min_points=0,
        multimask_max_points=1,
        multimask_in_tracking=True,
        pixel_mean=(0.5, 0.5, 0.5),
        pixel_std=(0.2, 0.2, 0.2),
        mask_kernel=tuple(i / 16 for i in range(16)),
        mask_bias=0.25,
    )
    piece = Piece(
        name="decoder",
        file="decoder.onnx",
        precision="fp32",
        stored="fp16",
        sha256=hashlib.sha256(GRAPH).hexdigest(),
        num_bytes=len(GRAPH),
        outputs=(OutputParity(name="score", max_abs=1e-3, rms=1e-4, reference_rms=0.5),),
    )
    return Manifest(
        format_version=FORMAT_VERSION,
        family="sam2",
        name="test",
        geometry=geometry,
        target="cpu",
        flavour="onnx",
        precision="int8",
        max_objects=8,
        opset=18,
        pieces=(piece,),
        source_name="test.safetensors",
        source_sha256="0" * 64,
        exporters=("torch 2.13.0",),
        parity=make_parity(),
        sensitivity=(Sensitivity(piece="decoder", precision="fp16", min_iou=0.98, mean_iou=0.99),),
        calibration=Calibration(method="minmax", sources=("drawn",), frames=20),
        golden=Golden(
            file="golden.npz", sha256=hashlib.sha256(GRAPH).hexdigest(), num_bytes=len(GRAPH)
        ),
        created="2026-11-21T00:00:00+00:00",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_manifest(tmp_path, make_manifest())
    (tmp_path / "decoder.onnx").write_bytes(GRAPH)
    return tmp_path


def edit(folder: Path, **changes: object) -> None:
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_manifest_reads_back_as_written(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest == make_manifest()
    assert manifest.parity.passed
    assert manifest.piece("decoder").stored == "fp16"
    assert read_piece(folder, manifest.piece("decoder")) == GRAPH
    with pytest.raises(EngineError, match="no piece 'encoder'"):
        manifest.piece("encoder")
    edit(folder, calibration=None)
    assert read_manifest(folder).calibration is None


def test_parity_without_compared_masks_has_not_passed() -> None:
    parity = make_manifest().parity
    assert not replace(parity, masks=0).passed
    assert not replace(parity, mean_iou=0.99).passed


def test_missing_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no engine bundle"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(EngineError, match="no engine bundle"):
        load_bundle(tmp_path)


def test_name_of_a_shipped_bundle_is_its_folder() -> None:
    assert bundle_folder("nano").name == "nano_tracker"
    assert bundle_folder("some/folder") == Path("some/folder")


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', "\x00", "[" * 100_000, "9" * 5000])
def test_damaged_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST_NAME).write_text(text)
    with pytest.raises(EngineError, match=r"manifest\.json"):
        read_manifest(folder)


def test_manifest_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / MANIFEST_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EngineError, match="damaged"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format_version": FORMAT_VERSION + 1}, "newer than .*: upgrade"),
        ({"format_version": FORMAT_VERSION - 1}, "older than .*: export the bundle again"),
        ({"format_version": "1"}, "an integer"),
        ({"format_version": True}, "an integer"),
        ({"family": "sam9"}, "sam9"),
        ({"pieces": [{"name": "decoder"}]}, "'file'"),
        ({"pieces": "decoder"}, "a list"),
        ({"geometry": None}, "geometry"),
        ({"opset": None}, "opset"),
        ({"calibration": 3}, "calibration"),
        ({"golden": {"file": "../golden.npz"}}, "a plain file name"),
        ({"golden": {"file": ".."}}, "a plain file name"),
        ({"max_objects": 0}, "1 to 1000000 in 'max_objects'"),
        ({"sensitivity": [{"piece": "decoder"}]}, "'precision'"),
    ],
)
def test_fields_that_do_not_fit_are_named(
    folder: Path, changes: dict[str, object], reason: str
) -> None:
    edit(folder, **changes)
    with pytest.raises(EngineError, match=reason):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [("image_size", -1, "of 1 to 1000000"), ("pixel_std", [0.2, 0.0, 0.2], "above 0")],
)
def test_a_geometry_that_cannot_be_is_refused(
    folder: Path, field: str, value: object, reason: str
) -> None:
    geometry = json.loads((folder / MANIFEST_NAME).read_text())["geometry"]
    edit(folder, geometry={**geometry, field: value})
    with pytest.raises(EngineError, match=reason):
        read_manifest(folder)


@pytest.mark.parametrize(
    "file", ["../decoder.onnx", "/etc/passwd", "a/b.onnx", "a\\b.onnx", "", "a\0.onnx", "a\n"]
)
def test_file_outside_the_bundle_is_refused(folder: Path, file: str) -> None:
    piece = json.loads((folder / MANIFEST_NAME).read_text())["pieces"][0]
    edit(folder, pieces=[{**piece, "file": file}])
    with pytest.raises(EngineError):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "lacks"), (GRAPH[:-1], "truncated"), (GRAPH.upper(), "changed"), (b"", "truncated")],
)
def test_graph_that_is_not_the_exported_one_is_refused(
    folder: Path, content: bytes | None, reason: str
) -> None:
    path = folder / "decoder.onnx"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(EngineError, match=reason):
        load_bundle(folder)


def test_graphs_run_whatever_device_they_were_exported_for(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    edit(folder, target="jetson-thor")
    with pytest.raises(EngineError, match="'decoder' does not load in ONNX Runtime"):
        load_bundle(folder)  # it is no graph; but it was tried


def test_flavour_that_nothing_runs_is_refused(folder: Path) -> None:
    edit(folder, flavour="tensorrt")
    with pytest.raises(EngineError, match="tensorrt"):
        load_bundle(folder)


@pytest.mark.parametrize("name", [MANIFEST_NAME, "decoder.onnx"])
@pytest.mark.parametrize("thing", ["pipe", "device", "holes", "folder", "absent"])
def test_what_is_no_plain_file_of_its_size_is_refused_unread(
    folder: Path, name: str, thing: str
) -> None:
    piece = read_manifest(folder).piece("decoder")
    path = folder / name
    path.unlink()
    if thing == "pipe":
        os.mkfifo(path)
    elif thing == "device":
        path.symlink_to("/dev/zero")
    elif thing == "holes":
        path.touch()
        os.truncate(path, 1 << 40)
    elif thing == "folder":
        path.mkdir()
    read = partial(read_piece, folder, piece)
    if name == MANIFEST_NAME:
        read = partial(read_manifest, folder)
    with pytest.raises(EngineError, match=rf"{name}|no engine bundle"):
        read()
    if thing == "holes" and name != MANIFEST_NAME:  # a record that goes along with the lie
        with pytest.raises(EngineError, match="at most"):
            read_piece(folder, replace(piece, num_bytes=1 << 40))


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf"), True, "1"])
def test_numbers_that_no_fraction_holds_are_named(folder: Path, value: object) -> None:
    record = json.loads((folder / MANIFEST_NAME).read_text())
    edit(folder, parity={**record["parity"], "max_abs_logit": value})
    with pytest.raises(EngineError, match="number in 'max_abs_logit'"):
        read_manifest(folder)
    edit(
        folder, parity=record["parity"], geometry={**record["geometry"], "pixel_mean": [value] * 3}
    )
    with pytest.raises(EngineError, match="3 finite numbers in 'pixel_mean'"):
        read_manifest(folder)
    edit(folder, geometry={**record["geometry"], "image_size": value})
    with pytest.raises(EngineError, match="in 'image_size'"):
        read_manifest(folder)


def test_hash_of_a_folder_knows_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    first = sha256_of(tmp_path)
    assert sha256_of(tmp_path) == first
    (tmp_path / "b").rename(tmp_path / "c")
    assert sha256_of(tmp_path) != first


def test_shipped_bundle_passed_its_gate() -> None:
    folder = bundle_folder("nano")
    if not folder.exists():
        pytest.skip("no nano tracker is shipped")
    manifest = read_manifest(folder)
    assert manifest.parity.passed
    assert sum(piece.num_bytes for piece in manifest.pieces) <= 12_000_000
    for file in (*manifest.pieces, manifest.golden):
        read_piece(folder, file)
