# SPDX-License-Identifier: Apache-2.0
"""How the machine is: memory, heat, GPU throttling; read from Linux and from NVIDIA's NVML.

What cannot be read is None, never an error: a container may hide all of it. NVML's part has not
been run on a GPU here; it is tested against a double of the library.
"""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path

from foreseg.pipeline.degradation import MachineReadings

NVML_LIBRARY = "libnvidia-ml.so.1"
_MEMORY_FILE = Path("/proc/meminfo")
_THERMAL_FOLDER = Path("/sys/class/thermal")
_THROTTLED_BITS = 0x8 | 0x20 | 0x40 | 0x80  # hardware, thermal (software, hardware), power brake
_GPU_SENSOR = 0  # NVML_TEMPERATURE_GPU
_PLAUSIBLE_C = (-40.0, 150.0)  # sensors that are absent report 0 K and the like

_LOG = logging.getLogger(__name__)


class Machine:
    """The machine that this process runs on.

    Args:
        memory_file: in the form of /proc/meminfo.
        thermal_folder: in the form of /sys/class/thermal.
        nvml: NVML's shared library; None: none here.
    """

    def __init__(
        self,
        *,
        memory_file: Path = _MEMORY_FILE,
        thermal_folder: Path = _THERMAL_FOLDER,
        nvml: ctypes.CDLL | None = None,
    ) -> None:
        self._memory_file = memory_file
        self._zones = sorted(thermal_folder.glob("thermal_zone*/temp"))
        self._nvml = nvml
        self._gpu: ctypes.c_void_p | None = None if nvml is None else _first_gpu(nvml)

    def read(self) -> MachineReadings:
        """What can be read now."""
        heats = [*self._zone_temperatures_c(), *self._gpu_temperature_c()]
        return MachineReadings(
            available_memory_share=self._available_memory_share(),
            temperature_c=max(heats, default=None),
            is_gpu_throttled=self._is_gpu_throttled(),
        )

    def _available_memory_share(self) -> float | None:
        try:
            lines = self._memory_file.read_text("ascii").splitlines()
            values = {name: int(rest.split()[0]) for name, _, rest in map(_parted, lines)}
            return values["MemAvailable"] / values["MemTotal"]
        except (OSError, ValueError, IndexError, KeyError, ZeroDivisionError):
            return None

    def _zone_temperatures_c(self) -> list[float]:
        heats = []
        for zone in self._zones:
            try:
                heat = int(zone.read_text("ascii")) / 1000
            except (OSError, ValueError):  # a zone that is switched off cannot be read
                continue
            if _PLAUSIBLE_C[0] <= heat <= _PLAUSIBLE_C[1]:
                heats.append(heat)
        return heats

    def _gpu_temperature_c(self) -> list[float]:
        value = ctypes.c_uint()
        if self._nvml is None or self._gpu is None:
            return []
        failed = self._nvml.nvmlDeviceGetTemperature(self._gpu, _GPU_SENSOR, ctypes.byref(value))
        return [] if failed else [float(value.value)]

    def _is_gpu_throttled(self) -> bool | None:
        reasons = ctypes.c_ulonglong()
        if self._nvml is None or self._gpu is None:
            return None
        ask = self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons
        return (
            None
            if ask(self._gpu, ctypes.byref(reasons))
            else bool(reasons.value & _THROTTLED_BITS)
        )


def this_machine() -> Machine:
    """With NVML where the driver brings it."""
    try:
        return Machine(nvml=ctypes.CDLL(NVML_LIBRARY))
    except OSError:
        return Machine()


def _first_gpu(nvml: ctypes.CDLL) -> ctypes.c_void_p | None:
    handle = ctypes.c_void_p()
    code = nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle))
    if code:
        _LOG.info("NVML finds no GPU to watch (code %d)", code)
        return None
    return handle


def _parted(line: str) -> tuple[str, str, str]:
    return line.partition(":")
