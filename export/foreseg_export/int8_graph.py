# SPDX-License-Identifier: Apache-2.0
"""The int8 form of a bundle's image encoder, made of the graph in the bundle itself.

Beside the float32 one it is a candidate for processors with int8 products (VNNI, AMX). Needs onnx,
no torch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from foreseg.engines.manifest import Calibration, Manifest, read_piece
from foreseg.errors import EngineError, InputError, MissingExtraError
from foreseg_export.calibration import calibration_pixels

INT8_PIECE = "image_encoder"


def int8_graph(
    folder: Path, manifest: Manifest, clips: Sequence[str], *, method: str
) -> tuple[bytes, Calibration]:
    """The serialised graph, and what its ranges were taken from.

    Args:
        folder: of the bundle.
        manifest: of the bundle.
        clips: videos, pictures or folders of pictures; none: a drawn clip.
        method: how ranges are taken: percentile, minmax or entropy.

    Raises:
        InputError: the encoder is not float32, the bundle is damaged, a clip without a frame, or
            the disk is full.
        MissingExtraError: onnx is not installed.
        StreamError: a clip cannot be opened or read.
    """
    try:
        from foreseg_export.precision import quantise
    except ImportError as error:
        package, extra = error.name or "onnx", "export"
        raise MissingExtraError(package, extra, "making an int8 graph") from error
    piece = next((piece for piece in manifest.pieces if piece.name == INT8_PIECE), None)
    if piece is None or piece.precision != "fp32":
        has = "none" if piece is None else f"one in {piece.precision}"
        msg = (
            f"an int8 graph is made of an {INT8_PIECE} in float32, {folder} has {has}: leave --int8"
            " out"
        )
        raise InputError(msg)
    pixels, calibration = calibration_pixels(clips, manifest.geometry, method=method)
    try:
        graph = read_piece(folder, piece)
        with tempfile.TemporaryDirectory() as scratch:
            plain, lowered = Path(scratch) / piece.file, Path(scratch) / "int8.onnx"
            plain.write_bytes(graph)
            quantise(plain, lowered, pixels, method=method)
            return lowered.read_bytes(), calibration
    except EngineError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        msg = f"no int8 graph of {folder} is made: {error.strerror or error}"
        raise InputError(msg) from error
