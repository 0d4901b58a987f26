# SPDX-License-Identifier: Apache-2.0
"""The GPU that a driver describes, with a driver of our own in C's place."""

from __future__ import annotations

import ctypes

import pytest

from foreseg.engines import local_device as module
from foreseg.engines.local_device import LocalDevice, local_device


class FakeDriver:
    """CUDA's calls, as `ctypes` would reach them; `cuInit` and the like return error codes."""

    def __init__(self, *, init: int = 0, get: int = 0, attribute: int = 0) -> None:
        self.codes = (init, get, attribute)

    def cuInit(self, flags: int) -> int:  # noqa: N802 (CUDA's names)
        assert flags == 0
        return self.codes[0]

    def cuDeviceGet(self, out: object, ordinal: int) -> int:  # noqa: N802
        _target(out).value = 40 + ordinal
        return self.codes[1]

    def cuDeviceGetName(self, out: ctypes.Array, size: int, gpu: ctypes.c_int) -> int:  # noqa: N802
        assert (gpu.value, size) == (40, len(out))
        out.value = b"Orin"
        return 0

    def cuDeviceGetAttribute(self, out: object, number: int, gpu: ctypes.c_int) -> int:  # noqa: N802
        assert gpu.value == 40
        _target(out).value = {75: 8, 76: 7, 16: 16}[number]
        return self.codes[2]


def _target(reference: object) -> ctypes.c_int:
    found = reference._obj  # type: ignore[attr-defined]
    assert isinstance(found, ctypes.c_int)
    return found


def test_name_and_compute_capability_are_the_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.ctypes, "CDLL", lambda _: FakeDriver())
    assert local_device() == LocalDevice(name="Orin, 16 SMs", compute="sm87")


@pytest.mark.parametrize("failing", [{"init": 100}, {"init": 803}, {"get": 101}, {"attribute": 1}])
def test_a_driver_that_fails_is_no_device(
    monkeypatch: pytest.MonkeyPatch, failing: dict[str, int]
) -> None:
    monkeypatch.setattr(module.ctypes, "CDLL", lambda _: FakeDriver(**failing))
    assert local_device() is None


def test_no_driver_is_no_device() -> None:
    assert local_device("libcuda-that-is-not-there.so") is None
