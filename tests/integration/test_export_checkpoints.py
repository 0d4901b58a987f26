# SPDX-License-Identifier: Apache-2.0
"""A bundle made of Meta's form of a checkpoint tracks as Meta's own package does.

The bundles of the other forms are held against their reference in `test_export_parity.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is a torch model")
for name in ("transformers", "onnx", "onnxscript", "onnxruntime", "cv2"):
    pytest.importorskip(name, reason="exporting a bundle needs it")
pytest.importorskip(
    "sam2.modeling.sam2_base",
    reason="`pip install --no-deps sam2` and hydra-core, iopath: Meta's package is the reference",
)

from tests.support.meta_sam2 import (  # noqa: E402
    MetaStream,
    know_tiny_trunk,
    save_meta,
    tiny_meta,
)
from tests.support.sam2_models import make_frame  # noqa: E402

from foreseg.engines.load import Bundle, load_bundle  # noqa: E402
from foreseg.engines.manifest import sha256_of  # noqa: E402
from foreseg.geometry import BoxXyxy  # noqa: E402
from foreseg.prompts import SpatialPrompt  # noqa: E402
from foreseg.tracker.base import TrackKey  # noqa: E402
from foreseg.tracker.preprocess import pixels_from_image, points_from_prompt  # noqa: E402
from foreseg.tracker.sam2 import Sam2Tracker  # noqa: E402
from foreseg_export.cli import main  # noqa: E402

pytestmark = pytest.mark.slow  # exports a small model

SIDE = 256
SLOTS = 3
BOX = SpatialPrompt(box=BoxXyxy(30, 60, 140, 190))
A = TrackKey("a")
# float32 sums in another order through graphs and memory, on logits of up to 5
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Meta's form of a checkpoint, and the bundle that the command made of it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("meta")
    checkpoint = save_meta(tiny_meta(image_size=SIDE).state_dict(), folder / "tiny.pt")
    words = ["sam2", "--checkpoint", str(checkpoint), "--out", str(folder / "bundle")]
    sizes = ["--image-size", str(SIDE), "--memory-slots", str(SLOTS), "--parity-frames", "6"]
    with pytest.MonkeyPatch.context() as patch:
        know_tiny_trunk(patch)
        assert main([*words, *sizes]) == 0
    return folder


@pytest.fixture(scope="module")
def bundle(made: Path) -> Iterator[Bundle]:
    with load_bundle(made / "bundle") as opened:
        yield opened


def test_bundle_has_the_size_and_memory_that_were_asked_for(bundle: Bundle, made: Path) -> None:
    manifest = bundle.manifest
    assert manifest.parity.passed
    assert manifest.parity.masks >= 6
    geometry = manifest.geometry
    assert (geometry.image_size, geometry.feature_size, geometry.mask_size) == (256, 16, 64)
    assert geometry.num_recent == SLOTS - 1
    assert manifest.source_name == "tiny.pt"
    assert manifest.source_sha256 == sha256_of(made / "tiny.pt")


def largest_drift(bundle: Bundle, *, slots: int) -> float:
    """Between the bundle in our tracker and Meta's streaming, its memory cut to `slots`."""
    model = tiny_meta(image_size=SIDE)
    table = model.maskmem_tpos_enc.detach()
    model.maskmem_tpos_enc = torch.nn.Parameter(torch.cat((table[: slots - 1], table[-1:])))
    model.num_maskmem = slots
    stream, tracker = MetaStream(model), Sam2Tracker(bundle)
    largest = 0.0
    for index in range(6):
        frame = make_frame(index, size_wh=(SIDE, SIDE))
        points = None
        if index == 0:
            given = points_from_prompt(BOX, (SIDE, SIDE), SIDE)
            points = (given.coords, given.labels)
            tracker.prompt(frame, A, BOX)
        tracker.track(frame, [A])
        wanted, _ = stream.step(pixels_from_image(frame.image, bundle.manifest.geometry), points)
        assert float(np.std(wanted)) > 0.1
        largest = max(largest, float(np.abs(tracker.logits_of(A) - wanted).max()))
    return largest


def test_bundle_tracks_as_metas_own_package(bundle: Bundle) -> None:
    assert largest_drift(bundle, slots=SLOTS) < TOLERANCE


def test_comparison_would_notice_another_memory(bundle: Bundle) -> None:
    assert largest_drift(bundle, slots=7) > 5 * TOLERANCE
