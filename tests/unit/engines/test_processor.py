# SPDX-License-Identifier: Apache-2.0
"""What /proc/cpuinfo says of a processor, and what it does not."""

from __future__ import annotations

from pathlib import Path

from foreseg.engines.processor import FEATURES, this_processor

XEON = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 207
model name\t: Intel(R) Xeon(R) Processor
stepping\t: 2
flags\t\t: fpu sse4_2 avx2 avx512f amx_tile amx_bf16 avx512_bf16

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = """processor : 0
Features : fp asimd asimddp i8mm bf16
CPU implementer : 0x41
CPU part : 0xd42
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_first_core_tells_name_model_and_instructions(tmp_path: Path) -> None:
    found = this_processor(write(tmp_path, XEON))
    assert found.name == "Intel(R) Xeon(R) Processor"
    assert found.model == "GenuineIntel 6 207 2"
    assert found.features == ("sse4_2", "avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
    assert "amx_bf16" in str(found)


def test_another_model_or_another_instruction_is_another_key(tmp_path: Path) -> None:
    keys = {
        this_processor(write(tmp_path, text)).key
        for text in (XEON, XEON.replace("207", "143"), XEON.replace(" amx_bf16", ""), ARM)
    }
    assert len(keys) == 4
    assert all(key.replace("-", "").replace("_", "").isalnum() for key in keys)
    assert this_processor(write(tmp_path, XEON)).key in keys


def test_arm_tells_in_other_words(tmp_path: Path) -> None:
    found = this_processor(write(tmp_path, ARM))
    assert found.features == ("asimd", "asimddp", "i8mm", "bf16")
    assert found.model == "0x41 0xd42"
    assert set(found.features) <= set(FEATURES)


def test_a_system_that_tells_nothing_is_no_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none", write(tmp_path, ""), write(tmp_path, ":\n\x00:::\nflags")):
        found = this_processor(path)
        assert found.features == ()
        assert "features unknown" in str(found)
        assert found.key
