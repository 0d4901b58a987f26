# SPDX-License-Identifier: Apache-2.0
"""The devices that bundles are made for, and which TensorRT can build for each of them, where.

TensorRT itself tunes on the device it builds for. TensorRT for RTX builds ahead of time, without
a GPU, for the compute capabilities in `RTX_DEVICES`, and compiles its kernels on the device.
"""

from __future__ import annotations

from dataclasses import dataclass

RTX_DEVICES = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")  # of its release 1.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A kind of device, and what suits it.

    `image_size` and `memory_slots` are where to start on a device on which a full model is slow:
    memory attention grows with the fourth power of the size, and with the slots.
    """

    name: str
    devices: tuple[str, ...]  # compute capabilities; none: it runs the graphs themselves
    precision: str  # of the arithmetic
    tensorrt: str = ""  # the release that the device's system brings; "": any of 10 or newer
    image_size: int | None = None  # None: the checkpoint's
    memory_slots: int | None = None  # None: the checkpoint's

    @property
    def rtx_devices(self) -> tuple[str, ...]:
        """Those that TensorRT for RTX builds for."""
        return tuple(device for device in self.devices if device in RTX_DEVICES)


_ALL = (
    Target(name="cpu", devices=(), precision="fp32"),
    Target(name="a100", devices=("sm80",), precision="fp16"),
    Target(name="h100", devices=("sm90",), precision="fp16"),
    Target(
        name="jetson-orin",
        devices=("sm87",),
        precision="fp16",
        tensorrt="10.3 (JetPack 6)",
        image_size=512,
        memory_slots=4,
    ),
    Target(
        name="jetson-thor",
        devices=("sm110",),
        precision="fp16",
        tensorrt="10.13 (JetPack 7)",
        memory_slots=4,
    ),
    Target(name="rtx", devices=("sm86", "sm89", "sm120"), precision="fp16"),
)
TARGETS = {target.name: target for target in _ALL}
