# SPDX-License-Identifier: Apache-2.0
"""Which TensorRT is installed, and opening the engines that were built for it and this device."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from foreseg.engines.built import FLAVOURS, BuiltEngines, find_built, read_engine
from foreseg.engines.cuda import Cuda
from foreseg.engines.cuda_memory import CudaDevice
from foreseg.engines.manifest import Manifest
from foreseg.engines.tensorrt import TensorRtEngine
from foreseg.engines.tensorrt_api import TensorRt
from foreseg.errors import EngineError, ForesegError, MissingExtraError

_log = logging.getLogger(__name__)


def open_built(
    folder: Path, manifest: Manifest, cuda: Cuda, modules: Sequence[tuple[str, TensorRt]]
) -> tuple[CudaDevice, BuiltEngines, tuple[TensorRtEngine, ...]]:
    """Open the engines that were built of a bundle for this device.

    Args:
        folder: of the bundle.
        manifest: of the bundle.
        cuda: the device.
        modules: flavour and module of every TensorRT that is installed, in order of preference.

    Raises:
        EngineError: none was built for this device and version, or they are stale or damaged.
    """
    reasons = []
    for flavour, trt in modules:
        try:
            built = find_built(
                folder,
                manifest,
                flavour=flavour,
                version=trt.__version__,
                device=cuda.device.compute,
                device_name=cuda.device.name,
            )
        except EngineError as error:
            reasons.append(str(error))
            continue
        plans = [read_engine(folder, built, engine) for engine in built.engines]
        device = CudaDevice(cuda)
        engines: list[TensorRtEngine] = []
        try:
            for record, plan in zip(built.engines, plans, strict=True):
                engines.append(TensorRtEngine(record, plan, trt=trt, device=device))
        except ForesegError:
            for engine in engines:
                engine.close()
            device.close()
            raise
        return device, built, tuple(engines)
    raise EngineError("; ".join(reasons))


def installed_modules() -> tuple[tuple[str, TensorRt], ...]:
    """Flavour and module of every TensorRT that can be imported.

    Raises:
        MissingExtraError: there is none.
    """
    found = []
    for flavour in FLAVOURS:
        try:
            found.append((flavour, cast("TensorRt", importlib.import_module(flavour))))
        except ImportError as error:
            _log.debug("%s cannot be imported: %s", flavour, error)
    if not found:
        package, extra = "tensorrt", "tensorrt"
        raise MissingExtraError(package, extra, "running built engines")
    return tuple(found)
