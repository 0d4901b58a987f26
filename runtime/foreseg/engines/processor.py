# SPDX-License-Identifier: Apache-2.0
"""Which processor this machine has, and those of its instructions that matter to engines."""

from __future__ import annotations

import hashlib
import platform
import re
from dataclasses import dataclass
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
FEATURES = (  # as Linux names them; x86 first, ARM after
    *("sse4_2", "avx", "fma", "f16c", "avx2", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "sve", "i8mm", "bf16"),
)
_MODEL_KEYS = (  # of one line each, x86 or ARM
    *("vendor_id", "cpu family", "model", "stepping"),
    *("CPU implementer", "CPU part", "CPU variant", "CPU revision"),
)
_SLUG_CHARACTERS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """A kind of processor."""

    name: str
    machine: str  # x86_64, aarch64, ...
    model: str  # vendor, family, model and stepping: names such as "Intel Xeon" are many
    features: tuple[str, ...]  # in the order of `FEATURES`

    @property
    def key(self) -> str:
        """Names it in a folder; equal for equal processors."""
        whole = "|".join((self.name, self.machine, self.model, *self.features))
        slug = re.sub(r"[^a-z0-9]+", "_", self.name.lower()).strip("_")[:_SLUG_CHARACTERS]
        return f"{self.machine}-{slug}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"

    def __str__(self) -> str:
        told = " ".join(self.features) or "features unknown"
        return f"{self.name} ({self.machine}: {told})"


def this_processor(cpu_info: Path = CPU_INFO) -> Processor:
    """This machine's; of what cannot be read only the name is known."""
    try:
        text = cpu_info.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    first: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        first.setdefault(key.strip(), value.strip())
    flags = set(first.get("flags", first.get("Features", "")).split())
    machine = platform.machine()
    return Processor(
        name=first.get("model name") or platform.processor() or machine,
        machine=machine,
        model=" ".join(first[key] for key in _MODEL_KEYS if key in first),
        features=tuple(feature for feature in FEATURES if feature in flags),
    )
