# SPDX-License-Identifier: Apache-2.0
"""`--check` of a model that segments, with a tiny one: what is found stays, and so does the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="a model needs it: pip install 'foreseg[vlm]'")
for name in ("transformers", "bitsandbytes", "accelerate", "cv2"):
    pytest.importorskip(name, reason="a model needs it: pip install 'foreseg[vlm]'")

from tests.support.sam2_models import tiny_hiera  # noqa: E402
from tests.support.tiny_vlm import save_tiny_vlm  # noqa: E402

from foreseg.reasoner.scene_check import CHECK, caution_of  # noqa: E402
from foreseg_export.cli import main  # noqa: E402
from foreseg_export.scene_check import check_folder  # noqa: E402
from foreseg_torch.seg.store import load_seg_vlm  # noqa: E402


def test_a_folder_that_segments_is_checked_by_its_own_method(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    tiny_hiera().save_pretrained(tmp_path / "sam2")
    save_tiny_vlm(tmp_path / "vlm")
    out = tmp_path / "out"
    words = ["seg", "--vlm", str(tmp_path / "vlm"), "--sam2", str(tmp_path / "sam2")]
    words += ["--method", "visa", "--precision", "fp32", "--out", str(out), "--check"]
    assert main(words) == 1  # random weights see nothing; the folder stays
    assert "UNCHECKED: on drawn scenes" in capsys.readouterr().out
    assert load_seg_vlm(out, device="cpu").method == "visa"
    before = caution_of(out)
    (out / CHECK).unlink()
    told: list[str] = []
    assert check_folder(out, device="cpu", report=told.append).caution == before
    assert told[-1] == before
    assert (out / CHECK).is_file()
