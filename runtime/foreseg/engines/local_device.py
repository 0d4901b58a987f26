# SPDX-License-Identifier: Apache-2.0
"""Which NVIDIA GPU this machine has, asked of its driver; needs no CUDA toolkit and no package."""

from __future__ import annotations

import ctypes
import logging
from dataclasses import dataclass

CUDA_LIBRARY = "libcuda.so.1"

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_MULTIPROCESSORS = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_NAME_BYTES = 256

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalDevice:
    """The GPU that CUDA numbers 0.

    The name ends with the number of multiprocessors: all Jetson Orin call themselves "Orin".
    """

    name: str
    compute: str  # compute capability, such as "sm80"


def local_device(library: str = CUDA_LIBRARY) -> LocalDevice | None:
    """The first GPU; None, with a line in the log, if there is none or its driver does not work.

    Args:
        library: the driver's shared library.
    """
    try:
        cuda = ctypes.CDLL(library)
    except OSError as error:
        _log.info("no CUDA driver: %s", error)
        return None
    code = cuda.cuInit(0)
    if code:
        level = logging.INFO if code == _NO_DEVICE else logging.WARNING
        _log.log(level, "the CUDA driver found no device: cuInit returned %d", code)
        return None
    device = ctypes.c_int()
    code = cuda.cuDeviceGet(ctypes.byref(device), 0)
    if code:
        _log.info("the CUDA driver found no device: cuDeviceGet returned %d", code)
        return None
    name = ctypes.create_string_buffer(_NAME_BYTES)
    numbers = [ctypes.c_int() for _ in range(3)]
    codes = [cuda.cuDeviceGetName(name, _NAME_BYTES, device)]
    for number, attribute in zip(numbers, (_MAJOR, _MINOR, _MULTIPROCESSORS), strict=True):
        codes.append(cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device))
    if any(codes):
        _log.warning("the CUDA driver describes no device: its calls returned %s", codes)
        return None
    major, minor, multiprocessors = (number.value for number in numbers)
    text = name.value.decode("utf-8", "replace")
    return LocalDevice(name=f"{text}, {multiprocessors} SMs", compute=f"sm{major}{minor}")
