# SPDX-License-Identifier: Apache-2.0
"""The frame's path in its steady state: from a JPEG to the label map nothing stays, and little is taken on the way."""

from __future__ import annotations

import gc
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="pip install 'foreseg[video]'")
pytest.importorskip("onnxruntime", reason="pip install 'foreseg[cpu]'")

from foreseg.commands.bundle_bench import SIZE_WH, drawn_frame, drawn_prompts  # noqa: E402
from foreseg.config import Config, HistoryConfig  # noqa: E402
from foreseg.driving.executor import Executor, PublishedMasks  # noqa: E402
from foreseg.driving.player import Latencies, Player  # noqa: E402
from foreseg.engines.load import load_bundle  # noqa: E402
from foreseg.frames import DEFAULT_CAMERA  # noqa: E402
from foreseg.media.image_messages import rgb_from_compressed_message  # noqa: E402
from foreseg.pipeline.state import State  # noqa: E402
from foreseg.tracker.sam2 import Sam2Tracker  # noqa: E402

OBJECTS, PERIOD_NS = 2, 33_333_333
WARM_UP, FRAMES = 24, 20  # rings, memory (16 pointers) and encodings are full by then
# by all these frames: Python's own lists of free tuples fill for hundreds of frames, with some 150 bytes each; a row
# of a picture that stayed would be 1920
KEPT_BYTES = FRAMES * 1000
FRAME_BYTES = SIZE_WH[0] * SIZE_WH[1] * 3
ON_THE_WAY = 4  # pictures at once: decoded, logits and mask of an object, the pixels of the model; 2.6 were measured


class Newest:
    def __init__(self) -> None:
        self.masks: PublishedMasks | None = None

    def publish_masks(self, masks: PublishedMasks) -> None:
        self.masks = masks

    def publish_answer(self, answer: object) -> None:
        raise AssertionError(answer)


def test_nothing_stays_of_a_frame_and_little_is_taken_on_its_way() -> None:
    config = Config(history=HistoryConfig(max_frames=8, sparse_frames=2, sparse_hz=10.0))
    jpegs = [_jpeg(index) for index in range(4)]
    output = Newest()
    with load_bundle("nano") as bundle:
        player = Player(
            State.start(config, (DEFAULT_CAMERA,)),
            Executor(
                config,
                (DEFAULT_CAMERA,),
                lambda rows: Sam2Tracker(bundle, max_objects=rows, feature_cache_bytes=4 << 20),
            ),
            output,
            latencies=Latencies(tracker_ns=10_000_000),
        )

        def feed(index: int) -> None:
            message = SimpleNamespace(format="jpeg", data=jpegs[index % len(jpegs)])
            image = rgb_from_compressed_message(message)
            player.feed(DEFAULT_CAMERA, image, (index + 1) * PERIOD_NS)

        feed(0)
        for prompt in drawn_prompts(OBJECTS):
            player.add_object(DEFAULT_CAMERA, prompt)
        for index in range(1, WARM_UP):
            feed(index)
        tracemalloc.start()
        try:
            # what was there before is not seen: once around, until all that is held is traced
            for index in range(WARM_UP, 2 * WARM_UP):
                feed(index)
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            for index in range(2 * WARM_UP, 2 * WARM_UP + FRAMES):
                feed(index)
            _, peak = tracemalloc.get_traced_memory()
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert output.masks is not None
    assert len(output.masks.tracks) == OBJECTS
    assert after - before < KEPT_BYTES
    assert peak - before < ON_THE_WAY * FRAME_BYTES


def _jpeg(index: int) -> bytes:
    done, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(drawn_frame(index).image[..., ::-1]))
    assert done
    return bytes(jpeg)
