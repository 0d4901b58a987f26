# SPDX-License-Identifier: Apache-2.0
"""What ONNX Runtime's CUDA and TensorRT providers are told, and where TensorRT's engines go.

A cached engine is keyed by the hash of its graph, the version of TensorRT and the device: ONNX
Runtime alone would load the one of an older graph. Knows nothing of sessions.
Never executed on a GPU in this repository.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from foreseg.engines.base import TensorSpec
from foreseg.engines.built import ENGINES_FOLDER
from foreseg.engines.local_device import LocalDevice
from foreseg.engines.manifest import Piece
from foreseg.engines.onnx import Provider
from foreseg.errors import EngineError

CUDA_PROVIDER = "CUDAExecutionProvider"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"
MAX_POINTS = 16  # of one prompt, a box's two corners included

_LIBRARY = "libnvinfer.so.10"  # what ONNX Runtime's TensorRT provider is linked against
_CACHE_NAME = "onnxruntime"
_TUNED_ROWS = 2  # what TensorRT tunes for: few objects, and one point, which is no prompt


def cuda_provider(stream: int) -> Provider:
    """CUDA on our stream, in the graph's own precision."""
    options = {
        "device_id": "0",
        "user_compute_stream": str(stream),
        "use_tf32": "0",  # float32 means float32: a faster precision is chosen at export
        "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE stops for each new number of rows
    }
    return Provider(name=CUDA_PROVIDER, options=options)


def tensorrt_provider(
    piece: Piece,
    inputs: Sequence[TensorSpec],
    *,
    max_rows: int,
    stream: int,
    cache: Path,
    prefix: str,
) -> Provider:
    """TensorRT on our stream, with its engines in a cache.

    Args:
        piece: decides the precision.
        inputs: of the graph; their named axes make the profile.
        max_rows: of one launch.
        stream: CUDA's.
        cache: folder of the engines.
        prefix: of their file names; see `cache_prefix`.
    """
    options = {
        "device_id": "0",
        "user_compute_stream": str(stream),
        "trt_fp16_enable": str(piece.precision == "fp16"),
        "trt_int8_enable": str(piece.precision == "int8"),
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(cache),
        "trt_engine_cache_prefix": prefix,
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(cache),
    }
    dynamic = [spec for spec in inputs if any(isinstance(dim, str) for dim in spec.shape)]
    if dynamic:
        ends = {
            "min": {"B": 1, "P": 1},
            "opt": {"B": min(_TUNED_ROWS, max_rows), "P": 1},
            "max": {"B": max_rows, "P": MAX_POINTS},
        }
        for which, sizes in ends.items():
            options[f"trt_profile_{which}_shapes"] = ",".join(
                f"{spec.name}:{'x'.join(map(str, spec.resolved(sizes)))}" for spec in dynamic
            )
    return Provider(name=TENSORRT_PROVIDER, options=options)


def cache_prefix(piece: Piece, version: str, device: LocalDevice) -> str:
    """Graph, TensorRT and device, so that no other engine is ever taken for this one."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", device.name).strip("_")
    return f"{piece.sha256[:16]}-{version}-{device.compute}-{name}"


def cache_folder(bundle: Path) -> Path:
    """In the bundle where it may be written to, otherwise in the user's cache; made if missing.

    Raises:
        EngineError: neither can be written.
    """
    inside = os.access(bundle, os.W_OK)
    parent = bundle if inside else Path.home() / ".cache" / "foreseg" / bundle.resolve().name
    folder = parent / ENGINES_FOLDER / _CACHE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"TensorRT's engines of {bundle} have no place: {folder}: {error.strerror or error}"
        raise EngineError(msg) from error
    return folder


def tensorrt_version() -> str:
    """The version of the TensorRT that ONNX Runtime will load.

    Raises:
        EngineError: there is none.
    """
    try:
        return str(importlib.import_module("tensorrt").__version__)
    except ImportError:  # the library alone is enough
        pass
    try:
        number = int(ctypes.CDLL(_LIBRARY).getInferLibVersion())
    except (OSError, AttributeError) as error:
        msg = f"ONNX Runtime's TensorRT provider needs {_LIBRARY}, which does not load: {error}"
        raise EngineError(msg) from error
    return f"{number // 10_000}.{number // 100 % 100}.{number % 100}"
