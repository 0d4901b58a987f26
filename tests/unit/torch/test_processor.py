# SPDX-License-Identifier: Apache-2.0
"""What a trainer gets is what the robot's model reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the processor makes torch's tensors")
pytest.importorskip("transformers", reason="the processor is one of transformers'")
image_module = pytest.importorskip("PIL.Image", reason="trainers hand over pictures of Pillow's")

from tests.support.tiny_vlm import IMAGE, tiny_tokenizer  # noqa: E402

from foreseg.errors import InputError  # noqa: E402
from foreseg.language.base import Message, Role  # noqa: E402
from foreseg.language.images import ImageGeometry  # noqa: E402
from foreseg_torch.vlm.processor import FramesProcessor  # noqa: E402
from foreseg_torch.vlm.vision_inputs import (  # noqa: E402
    inputs_from_messages,
    prompt_from_messages,
)

PIXELS = 84 * 84
PICTURES = [
    np.random.default_rng(n).integers(0, 255, (56 + 28 * n, 84, 3), np.uint8) for n in range(3)
]


@pytest.fixture
def processor() -> FramesProcessor:
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "left"
    geometry = ImageGeometry(
        patch_px=14,
        temporal_patch=2,
        merge=2,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        image_token=IMAGE,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
    )
    return FramesProcessor(tokenizer, geometry, PIXELS)


def chat(*content: str | np.ndarray) -> list[Message]:
    return [Message(role=Role.USER, content=content)]


def test_a_batch_of_one_is_what_the_robot_reads(processor: FramesProcessor) -> None:
    messages = chat("<0>", PICTURES[0], "<7>", PICTURES[1], "which falls?")
    robot = inputs_from_messages(
        messages, processor.tokenizer, processor.geometry, frame_pixels=PIXELS
    )
    text = prompt_from_messages(messages, processor.tokenizer, processor.geometry)
    batch = processor(images=[PICTURES[:2]], text=[text], return_tensors="pt")
    expected = robot.as_arguments()
    assert set(batch) == set(expected) == set(processor.model_input_names)
    for name, tensor in expected.items():
        assert torch.equal(batch[name].to(tensor.dtype), tensor), name


def test_texts_of_a_batch_keep_their_own_images_and_are_padded_on_the_left(
    processor: FramesProcessor,
) -> None:
    texts = [f"a {IMAGE} b {IMAGE}", f"{IMAGE} only one"]
    pictures = [image_module.fromarray(picture) for picture in PICTURES]
    batch = processor(
        images=[pictures[:2], pictures[2:]], text=texts, padding=True, return_tensors="pt"
    )
    flat = processor(images=PICTURES, text=texts, padding=True, return_tensors="pt")
    for name in batch:
        assert torch.equal(batch[name], flat[name]), name
    assert batch["image_grid_thw"].tolist()[0] == [1, 4, 6]
    counts = (batch["input_ids"] == processor.image_token_id).sum(dim=1)
    per_image = batch["image_grid_thw"].prod(dim=1) // 4
    assert counts.tolist() == [int(per_image[:2].sum()), int(per_image[2])]
    assert torch.equal(
        batch["mm_token_type_ids"], (batch["input_ids"] == processor.image_token_id).long()
    )
    shorter = int(batch["attention_mask"].sum(dim=1).argmin())
    assert int(batch["attention_mask"][shorter, 0]) == 0
    assert int(batch["attention_mask"][shorter, -1]) == 1


def test_a_folder_that_it_saves_has_what_the_robot_reads(
    processor: FramesProcessor, tmp_path: Path
) -> None:
    processor.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text("utf-8"))
    assert settings == {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    assert (tmp_path / "tokenizer.json").is_file()
    assert "FramesProcessor" in repr(processor)


def test_text_alone_brings_no_pixels(processor: FramesProcessor) -> None:
    batch = processor(text="nothing to see")
    assert "pixel_values" not in batch
    assert processor.decode(batch["input_ids"][0]) == "nothing to see"


@pytest.mark.parametrize(("count", "told"), [(0, "fewer images"), (2, "more images")])
def test_images_and_tokens_that_differ_in_number_are_refused(
    processor: FramesProcessor, count: int, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        processor(images=[PICTURES[:count]], text=[f"a {IMAGE}"])
