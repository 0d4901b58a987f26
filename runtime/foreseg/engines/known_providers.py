# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime's execution providers that a machine may have, and what foreseg makes of each.

Looked up by what `onnxruntime.get_available_providers()` says. A test holds the names against
those that ONNX Runtime knows, and the table of docs/backends.md against this one.
"""

from __future__ import annotations

from dataclasses import dataclass

SUFFIX = "ExecutionProvider"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownProvider:
    """One provider."""

    name: str  # as ONNX Runtime has it, without "ExecutionProvider"
    runs_on: str
    backend: str = ""  # of foreseg's, that uses it; "": none does
    is_tried: bool = False  # with the graphs of a bundle


KNOWN = (
    KnownProvider(name="CPU", runs_on="any processor", backend="cpu", is_tried=True),
    KnownProvider(name="CUDA", runs_on="NVIDIA GPUs", backend="cuda"),
    KnownProvider(name="Tensorrt", runs_on="NVIDIA GPUs", backend="onnx-tensorrt"),
    KnownProvider(name="NvTensorRTRTX", runs_on="NVIDIA RTX GPUs"),
    KnownProvider(name="OpenVINO", runs_on="Intel and AMD processors, Intel GPUs", is_tried=True),
    KnownProvider(name="Dnnl", runs_on="processors, by oneDNN"),
    KnownProvider(name="Xnnpack", runs_on="ARM and x86 processors"),
    KnownProvider(name="ACL", runs_on="ARM processors, by the Compute Library"),
    KnownProvider(name="CoreML", runs_on="Apple's devices"),
    KnownProvider(name="MIGraphX", runs_on="AMD GPUs"),
    KnownProvider(name="ROCM", runs_on="AMD GPUs, up to ONNX Runtime 1.22"),
    KnownProvider(name="Dml", runs_on="GPUs on Windows, by DirectML"),
    KnownProvider(name="WebGpu", runs_on="GPUs, by WebGPU"),
    KnownProvider(name="QNN", runs_on="Qualcomm's NPUs"),
    KnownProvider(name="VitisAI", runs_on="AMD's NPUs"),
    KnownProvider(name="Nnapi", runs_on="Android"),
    KnownProvider(name="VSINPU", runs_on="VeriSilicon's NPUs"),
    KnownProvider(name="Rknpu", runs_on="Rockchip's NPUs"),
    KnownProvider(name="CANN", runs_on="Huawei's Ascend"),
    KnownProvider(name="Js", runs_on="browsers"),
    KnownProvider(name="WebNN", runs_on="browsers"),
    KnownProvider(name="Azure", runs_on="a server that is called: it runs no graph here"),
)
BY_NAME = {provider.name: provider for provider in KNOWN}


def unused(names: tuple[str, ...]) -> str:
    """What to say of available providers that no back-end of foreseg uses; "" if there is nothing.

    Args:
        names: as `onnxruntime.get_available_providers()` has them.
    """
    short = [name.removesuffix(SUFFIX) for name in names]
    found = [name for name in short if name != "Azure" and not _is_used(name)]
    if not found:
        return ""
    told = [f"{name} ({_told(name)})" for name in found]
    return f"no back-end of foreseg uses {', '.join(told)}: see docs/backends.md"


def _is_used(name: str) -> bool:
    return name in BY_NAME and bool(BY_NAME[name].backend)


def _told(name: str) -> str:
    if name not in BY_NAME:
        return "not known here"
    known = BY_NAME[name]
    return f"{known.runs_on}; {'tried' if known.is_tried else 'never tried'}"
