# SPDX-License-Identifier: Apache-2.0
"""The devices that bundles are made for, and which TensorRT can build for each of them, where.

TensorRT itself tunes on the device it builds for. TensorRT for RTX builds ahead of time, without
a GPU, for the compute capabilities in `RTX_DEVICES`, and compiles its kernels on the device.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from foreseg.engines.local_device import LocalDevice
from foreseg.engines.manifest import Manifest
from foreseg.errors import InputError

MAX_OBJECTS = 64  # rows in one launch: up to which the graphs' dynamic axis is declared
X86 = "x86"  # an Intel or AMD processor: engines are chosen, piece by piece, not built
PROCESSORS = ("cpu", X86)
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
    Target(name=X86, devices=(), precision="fp32"),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """What to build with, and for what."""

    flavour: str  # "tensorrt" or "tensorrt_rtx"
    devices: tuple[str, ...]  # compute capabilities
    device_name: str  # "" if it is not this machine's

    @property
    def device(self) -> str:
        """As records of built engines name it."""
        return "+".join(self.devices)


def plan_build(
    *,
    target: Target | None,
    flavour: str | None,
    local: LocalDevice | None,
    installed: Collection[str],
    command: str,
) -> BuildPlan:
    """Choose the flavour of TensorRT, and the devices to build for.

    On the device itself that is TensorRT if it is installed, else TensorRT for RTX; elsewhere the
    latter.

    Args:
        target: what the engines shall run on; None: this machine's device.
        flavour: None: whichever can.
        local: this machine's device, if it has one.
        installed: flavours whose packages are there.
        command: what the user would type on the device.

    Raises:
        InputError: with what to do instead.
    """
    if local is not None and (target is None or local.compute in target.devices):
        return _plan_here(local, flavour, installed)
    here = "no NVIDIA GPU" if local is None else f"a {local.name} ({local.compute})"
    if target is None:
        names = [name for name, known in TARGETS.items() if known.rtx_devices]
        msg = f"this machine has {here}: name a --target to build ahead of time for, of {names}, or {X86!r}"
        raise InputError(msg)
    if not target.devices:
        msg = f"the target {target.name!r} runs the bundle's graphs as they are: nothing to build"
        raise InputError(msg)
    there = f"copy the bundle to the {target.name} and run `{command}` there, with TensorRT"
    there += f" {target.tensorrt}" if target.tensorrt else " 10 or newer"
    if flavour == "tensorrt":
        msg = f"TensorRT tunes on the device it builds for, and this machine has {here}: {there}"
        raise InputError(msg)
    if not target.rtx_devices:
        msg = (
            f"TensorRT for RTX does not build for {', '.join(target.devices)}, and this machine"
            f" has {here}: {there}"
        )
        raise InputError(msg)
    if "tensorrt_rtx" not in installed:
        msg = (
            f"this machine has {here}, and building ahead of time for the target {target.name!r}"
            " needs the package 'tensorrt_rtx': `pip install tensorrt-rtx` (Linux on x86-64)"
        )
        raise InputError(msg)
    return BuildPlan(flavour="tensorrt_rtx", devices=target.rtx_devices, device_name="")


def _plan_here(local: LocalDevice, flavour: str | None, installed: Collection[str]) -> BuildPlan:
    can = [
        name
        for name in ("tensorrt", "tensorrt_rtx")
        if name in installed and (name == "tensorrt" or local.compute in RTX_DEVICES)
    ]
    if flavour is not None:
        can = [name for name in can if name == flavour]
    if not can:
        wanted = flavour or "tensorrt"
        msg = f"engines for this machine's {local.name} ({local.compute}) need "
        if flavour == "tensorrt_rtx" and local.compute not in RTX_DEVICES:
            msg += f"TensorRT: TensorRT for RTX builds only for {', '.join(RTX_DEVICES)}"
        else:
            msg += (
                f"the package {wanted!r}: on a Jetson `apt install python3-libnvinfer`, elsewhere"
                f" `pip install {wanted.replace('_', '-')}`"
            )
        raise InputError(msg)
    return BuildPlan(flavour=can[0], devices=(local.compute,), device_name=local.name)


def advice(target: Target, manifest: Manifest) -> str | None:
    """How a bundle could suit a target better; None if nothing is known."""
    options = []
    if manifest.precision == "fp32" != target.precision:
        options.append(f"--precision {target.precision}")
    if target.image_size is not None and manifest.geometry.image_size > target.image_size:
        options.append(f"--image-size {target.image_size}")
    if target.memory_slots is not None and manifest.geometry.num_recent >= target.memory_slots:
        options.append(f"--memory-slots {target.memory_slots}")
    if not options:
        return None
    return f"faster on {target.name}: a bundle exported with {' '.join(options)}"
