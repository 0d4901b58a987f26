# SPDX-License-Identifier: Apache-2.0
"""`parity.html` of a bundle: what was measured, and pictures of the worst masks. One file.

Does not measure anything.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from foreseg.engines.manifest import Manifest
from foreseg.frames import U8Array
from foreseg.masks import mask_from_rle
from foreseg.tracker.drawn_clip import Clip
from foreseg.tracker.golden import MIN_AREA_PX, MaskRows, overlaps

PAGE_NAME = "parity.html"

_NUM_PICTURES = 6
_REFERENCE, _BUNDLE = (60, 200, 90), (70, 130, 250)  # RGB
_MISSED, _ADDED = (250, 40, 40), (250, 220, 40)
_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .7rem;text-align:right;"
    "border-bottom:1px solid #ccc}td:first-child,th:first-child{text-align:left}"
    "img{max-width:100%}.no{color:#b00}"
)


def write_page(
    folder: Path, manifest: Manifest, clip: Clip, *, wanted: MaskRows, got: MaskRows
) -> None:
    """Write the page into a bundle's folder."""
    parity = manifest.parity
    verdict = (
        f"mean mask IoU {parity.mean_iou:.5f} (gate {parity.gate_mean_iou:g}:"
        f" {'passed' if parity.passed else '<b class=no>not passed</b>'}), smallest"
        f" {parity.min_iou:.5f}, over {parity.masks} masks of at least {MIN_AREA_PX} px:"
        f" {parity.frames} frames, {parity.objects} objects. Logits: max abs"
        f" {parity.max_abs_logit:.3g}, RMS {parity.rms_logit:.3g} of"
        f" {parity.reference_rms_logit:.3g}. Reference: {html.escape(parity.reference)};"
        f" {html.escape(parity.note)}."
    )
    origin = (
        f"From {html.escape(manifest.source_name)}, for {html.escape(manifest.target)},"
        f" {manifest.geometry.image_size} px, asked for in {manifest.precision}."
    )
    parts = [
        f"<!doctype html><meta charset=utf-8><title>Parity of {html.escape(manifest.name)}</title>",
        f"<style>{_STYLE}</style><h1>Parity of {html.escape(manifest.name)}</h1>",
        f"<p>{origin}</p><p>{verdict}</p><h2>Pieces on golden inputs</h2>",
        _table(
            ("output", "precision", "max abs", "RMS", "RMS of the reference"), _pieces(manifest)
        ),
    ]
    if manifest.sensitivity:
        rows = [
            (s.piece, s.precision, f"{s.mean_iou:.5f}", f"{s.min_iou:.5f}")
            for s in sorted(manifest.sensitivity, key=lambda s: s.mean_iou)
        ]
        columns = ("piece", "precision", "mean IoU", "smallest IoU")
        parts += ["<h2>Sensitivity: this piece alone lowered</h2>", _table(columns, rows)]
    if manifest.calibration is not None:
        c = manifest.calibration
        names = html.escape(", ".join(c.sources))
        parts.append(f"<p>int8 ranges: {c.method}, {c.frames} frames of {names}.</p>")
    parts.append(
        "<h2>Worst masks</h2><p>Left the reference's mask, in the middle the bundle's, right what"
        " the bundle misses (red) and adds (yellow).</p>"
    )
    worst = sorted(overlaps(got, wanted), key=lambda found: found[2])[:_NUM_PICTURES]
    for t, i, iou in worst:
        masks = mask_from_rle(wanted[t][i]), mask_from_rle(got[t][i])
        parts.append(
            f"<p>frame {t}, object {i}: IoU {iou:.5f}<br>"
            f"<img alt='' src='{_picture(clip.frames[t], *masks)}'></p>"
        )
    (folder / PAGE_NAME).write_text("\n".join(parts) + "\n", encoding="utf-8")


def _pieces(manifest: Manifest) -> Iterable[tuple[str, ...]]:
    for piece in manifest.pieces:
        for o in piece.outputs:
            name = f"{piece.name}: {o.name}"
            numbers = (f"{value:.3g}" for value in (o.max_abs, o.rms, o.reference_rms))
            yield (name, piece.precision, *numbers)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}" for c in row) for row in rows)
    return f"<table><tr>{head}{body}</table>"


def _picture(image: U8Array, wanted: np.ndarray, got: np.ndarray) -> str:
    """The three pictures side by side, as a data URI."""
    difference = _tinted(_tinted(image, wanted & ~got, _MISSED, 1.0), got & ~wanted, _ADDED, 1.0)
    both = _tinted(image, wanted, _REFERENCE, 0.5), _tinted(image, got, _BUNDLE, 0.5)
    strip = np.concatenate((*both, difference), axis=1)
    _, coded = cv2.imencode(".jpg", strip[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    return "data:image/jpeg;base64," + base64.b64encode(coded.tobytes()).decode("ascii")


def _tinted(
    image: U8Array, mask: np.ndarray, colour: tuple[int, int, int], share: float
) -> U8Array:
    mixed = image.copy()
    mixed[mask] = (image[mask] * (1 - share) + np.asarray(colour) * share).astype(np.uint8)
    return mixed
