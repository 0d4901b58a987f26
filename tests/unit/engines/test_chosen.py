# SPDX-License-Identifier: Apache-2.0
"""Records of what was chosen for a processor: what is found, refused, and what runs instead."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from foreseg.engines import chosen as module
from foreseg.engines import chosen_opening
from foreseg.engines import load as loading
from foreseg.engines.built import RECORD_NAME
from foreseg.engines.chosen import (
    CHOSEN_FORMAT_VERSION,
    Candidate,
    ChosenEngines,
    ChosenPiece,
    Tried,
    chosen_folder,
    find_chosen,
    read_chosen,
    read_graph,
    write_chosen,
)
from foreseg.engines.load import Backend, bundle_folder, load_bundle
from foreseg.engines.manifest import read_manifest, sha256_of
from foreseg.engines.processor import Processor, this_processor
from foreseg.errors import EngineError, MissingExtraError

PLAIN = Candidate(runner="onnxruntime", device="CPU", precision="fp32")
FAST = Candidate(runner="openvino", device="CPU", precision="bf16")
OTHER = Processor(name="EPYC", machine="x86_64", model="AuthenticAMD 25 1 1", features=("avx2",))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_folder("nano"), tmp_path / "bundle"))


def put(
    folder: Path,
    *,
    processor: Processor | None = None,
    candidate: Candidate = PLAIN,
    **changes: object,
) -> tuple[Path, ChosenEngines]:
    """A record as the probe leaves it, with everything on one candidate."""
    manifest = read_manifest(folder)
    for_whom = processor or this_processor()
    tried = (
        Tried(candidate=PLAIN, ms=3.0, worst_error=1e-4, refusal=""),
        Tried(candidate=FAST, ms=None, worst_error=None, refusal="crashed: SIGSEGV"),
    )
    pieces = tuple(
        ChosenPiece(
            piece=piece.name,
            graph_sha256=piece.sha256,
            candidate=candidate,
            file="",
            sha256="",
            num_bytes=0,
            tried=tried,
        )
        for piece in manifest.pieces
    )
    chosen = ChosenEngines(
        format_version=CHOSEN_FORMAT_VERSION,
        processor=for_whom.key,
        processor_name=str(for_whom),
        versions=module.versions_of(pieces),
        threads=1,
        load=0.5,
        frames=20,
        masks=60,
        min_iou=0.99,
        mean_iou=0.999,
        gate_mean_iou=0.99,
        created="2026-11-29T00:00:00+00:00",
        calibration=None,
        pieces=pieces,
    )
    chosen = replace(chosen, **changes)
    place = chosen_folder(folder, for_whom)
    place.mkdir(parents=True)
    write_chosen(place, chosen)
    return place, chosen


def find(folder: Path) -> ChosenEngines | None:
    return find_chosen(folder, read_manifest(folder), this_processor())


def test_what_was_written_is_found_and_read(bundle: Path) -> None:
    assert find(bundle) is None
    _, chosen = put(bundle)
    put(bundle, processor=OTHER)
    assert find(bundle) == chosen
    assert find_chosen(bundle, read_manifest(bundle), OTHER) is not None
    assert "decoder on onnxruntime fp32" in str(chosen)


def test_one_for_another_processor_alone_is_refused_with_the_command(bundle: Path) -> None:
    put(bundle, processor=OTHER)
    with pytest.raises(EngineError, match=r"chosen for \['x86_64-epyc-.*--target x86`"):
        find(bundle)


def test_one_of_another_graph_or_version_is_stale(bundle: Path) -> None:
    place, chosen = put(bundle)
    manifest = read_manifest(bundle)
    first, *others = manifest.pieces
    newer = replace(manifest, pieces=(replace(first, sha256="f" * 64), *others))
    with pytest.raises(
        EngineError, match=r"is stale: image_encoder was the graph .* ffffffffffff"
    ):
        find_chosen(bundle, newer, this_processor())
    with pytest.raises(EngineError, match="is stale: it is of"):
        find_chosen(bundle, replace(manifest, pieces=tuple(others)), this_processor())
    write_chosen(place, replace(chosen, versions=("onnxruntime 1.0",)))
    with pytest.raises(EngineError, match=r"made with onnxruntime 1.0, here is onnxruntime \d"):
        find(bundle)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda d: d.update(format_version=99), "format version 99"),
        (lambda d: d.update(processor="x86_64-other"), "is the record of 'x86_64-other'"),
        (lambda d: d["pieces"][0]["candidate"].update(runner="magic"), "'runner'"),
        (lambda d: d["pieces"][0]["candidate"].update(precision="int4"), "'precision'"),
        (lambda d: d["pieces"][0]["candidate"].update(is_int8=1), "true or false"),
        (lambda d: d["pieces"][0].update(file="../graph.onnx"), "plain file name"),
        (lambda d: d["pieces"][0]["tried"][0].update(ms="fast"), "a number in 'ms'"),
        (lambda d: d.pop("mean_iou"), "'mean_iou'"),
        (lambda d: d.update(threads=0), "'threads'"),
    ],
)
def test_a_damaged_record_names_file_and_field(
    bundle: Path, spoil: Callable[[dict[str, object]], object], told: str
) -> None:
    place, _ = put(bundle)
    data = json.loads((place / "chosen.json").read_text("utf-8"))
    spoil(data)
    (place / "chosen.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(EngineError, match=told):
        read_chosen(place)
    (place / "chosen.json").write_text("{", encoding="utf-8")
    with pytest.raises(EngineError, match="is damaged"):
        read_chosen(place)


def test_another_graph_of_a_piece_is_compared_with_its_record(bundle: Path) -> None:
    place, chosen = put(bundle)
    manifest = read_manifest(bundle)
    path = place / "image_encoder.int8.onnx"
    path.write_bytes(b"another graph")
    piece = replace(
        chosen.pieces[0], file=path.name, sha256=sha256_of(path), num_bytes=path.stat().st_size
    )
    assert read_graph(bundle, chosen, piece, manifest.pieces[0]) == b"another graph"
    path.write_bytes(b"a nother graph"[:13])
    with pytest.raises(EngineError, match=r"changed since it was made; run `foreseg-export"):
        read_graph(bundle, chosen, piece, manifest.pieces[0])
    path.unlink()
    with pytest.raises(EngineError, match=r"lacks image_encoder.int8.onnx"):
        read_graph(bundle, chosen, piece, manifest.pieces[0])


def test_auto_takes_what_was_chosen_and_else_the_processor(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with load_bundle(bundle, backend="auto") as opened:
        assert (opened.backend.used, opened.backend.reason) == (Backend.CPU, "")
    put(bundle)
    for asked in ("auto", "openvino"):
        with load_bundle(bundle, backend=asked) as opened:
            assert (opened.backend.used, opened.backend.reason) == (Backend.OPENVINO, "")
            assert {engine.provider for engine in opened.engines} == {"CPUExecutionProvider"}
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_auto_says_why_it_does_not_take_it(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A cache from another machine, and one of older graphs: a sentence, and the next back-end."""
    put(bundle, processor=OTHER)
    with load_bundle(bundle, backend="auto") as opened:
        assert opened.backend.used is Backend.CPU
        assert "cpu instead of auto: openvino does not start: engines of" in str(opened.backend)
    assert "were chosen for ['x86_64-epyc-" in caplog.text
    with pytest.raises(EngineError, match="were chosen for"):
        load_bundle(bundle, backend="openvino")


def test_a_missing_library_is_a_sentence_and_the_next_back_end(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "installed_version", lambda _: "1.2.3")
    put(bundle, candidate=FAST)

    def absent(*_: object, **__: object) -> None:
        package = "openvino"
        raise MissingExtraError(package, package, "running engines in OpenVINO")

    monkeypatch.setattr(chosen_opening, "OpenVinoEngine", absent)
    with load_bundle(bundle, backend="auto") as opened:
        assert opened.backend.used is Backend.CPU
        assert "pip install 'foreseg[openvino]'" in opened.backend.reason
    with pytest.raises(MissingExtraError):
        load_bundle(bundle, backend="openvino")
    monkeypatch.setattr(module, "installed_version", lambda _: "missing")
    with load_bundle(bundle, backend="auto") as opened:
        assert "made with openvino 1.2.3, here is openvino missing" in opened.backend.reason


def test_engines_that_opened_are_closed_where_a_later_one_does_not(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, closed = chosen_opening.OnnxEngine, []

    class Watched(real):
        def __init__(self, name: str, graph: bytes, *, threads: int, gives_back: bool) -> None:
            if name == "decoder":
                msg = "no room for the decoder"
                raise EngineError(msg)
            super().__init__(name, graph, threads=threads, gives_back=gives_back)

        def close(self) -> None:
            closed.append(self.name)
            super().close()

    put(bundle)
    monkeypatch.setattr(chosen_opening, "OnnxEngine", Watched)
    with load_bundle(bundle, backend="auto") as opened:
        assert "no room for the decoder" in opened.backend.reason
    assert closed == ["image_encoder", "memory_attention"]


def test_auto_asks_for_a_gpu_only_where_engines_and_a_gpu_are(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = bundle / "engines" / "tensorrt_rtx-1.7-sm80" / RECORD_NAME
    record.parent.mkdir(parents=True)
    record.write_text("{}", encoding="utf-8")
    with load_bundle(bundle, backend="auto") as opened:
        assert str(opened.backend) == "cpu"
    monkeypatch.setattr(loading, "local_device", object)
    with load_bundle(bundle, backend="auto") as opened:
        assert "tensorrt does not start" in opened.backend.reason
