# SPDX-License-Identifier: Apache-2.0
"""From messages with frames to the tensors that a Qwen-VL model reads, in training as live.

Images only, each by itself; neither torchvision nor a processor of `transformers`. Does not know
the model, its weights, or what the words mean.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jinja2 import TemplateError

from foreseg.errors import ConfigError, InputError
from foreseg.frames import U8Array
from foreseg.language.base import Message
from foreseg.language.images import ImageGeometry
from foreseg.language.special_tokens import without_tokens

IMAGE_TYPE = 1  # in `mm_token_type_ids`; 0 is text


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelInputs:
    """One prompt. `mm_token_type_ids` say where images are: without, positions degrade silently."""

    input_ids: torch.Tensor  # (1, L) int64
    mm_token_type_ids: torch.Tensor  # (1, L) int32: 1 at an image's tokens, else 0
    images: tuple[torch.Tensor, ...]  # each (patches, values), or whole (1, 3, S, S); float32
    image_grid_thw: torch.Tensor  # (images, 3) int64, in patches

    @property
    def num_tokens(self) -> int:
        """Length of the prompt."""
        return int(self.input_ids.shape[1])

    def as_arguments(self, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
        """What a model's `forward` or `generate` takes, on a device."""
        ids = self.input_ids.to(device)
        arguments = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": self.mm_token_type_ids.to(device),
        }
        if self.images:
            arguments["pixel_values"] = torch.cat(self.images).to(device)
            arguments["image_grid_thw"] = self.image_grid_thw.to(device)
        return arguments


class Tokenizer(Protocol):
    """What is used of a tokenizer of `transformers`."""

    all_special_tokens: list[str]

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> Any:  # noqa: ANN401 (text)
        """Messages as one text."""

    def __call__(self, text: str, **options: Any) -> Any:  # noqa: ANN401 (a BatchEncoding)
        """A text as tokens."""


def inputs_from_messages(
    messages: Sequence[Message],
    tokenizer: Tokenizer,
    geometry: ImageGeometry,
    *,
    frame_pixels: int,
) -> ModelInputs:
    """Build a prompt that ends where the assistant is to speak.

    What looks like a special token, of this tokenizer or another, is broken up in a message's text: words
    of a query cannot end a message or show an image.

    Args:
        messages: text and images in the order in which they are read.
        tokenizer: of `transformers`, with a chat template that knows images.
        geometry: of the model's images.
        frame_pixels: each image is read at this many pixels at most.

    Raises:
        ConfigError: the chat template does not show the images.
    """
    images = [part for m in messages for part in m.content if not isinstance(part, str)]
    return inputs_from_text(
        prompt_from_messages(messages, tokenizer, geometry),
        images,
        tokenizer,
        geometry,
        frame_pixels=frame_pixels,
    )


def prompt_from_messages(
    messages: Sequence[Message], tokenizer: Tokenizer, geometry: ImageGeometry
) -> str:
    """The chat's text, with one image token for each image.

    Raises:
        ConfigError: the chat template does not show the images, or is damaged.
    """
    tokens = {*tokenizer.all_special_tokens, geometry.image_token}
    conversation = conversation_from_messages(messages, tokens)
    try:
        text = tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        msg = f"the chat template cannot be used: {error}"
        raise ConfigError(msg) from error
    num_images = sum(not isinstance(part, str) for m in messages for part in m.content)
    if text.count(geometry.image_token) != num_images:
        msg = (
            f"the chat template wants to show each of {num_images} images by"
            f" {geometry.image_token!r}, it does so {text.count(geometry.image_token)} times"
        )
        raise ConfigError(msg)
    return str(text)


def conversation_from_messages(
    messages: Sequence[Message], tokens: Collection[str]
) -> list[dict[str, Any]]:
    """Messages as chat templates and trainers take them: text and image blocks in order.

    Args:
        messages: their images are left out; each becomes a block `{"type": "image"}`.
        tokens: what a text must not spell: the tokenizer's special tokens.
    """
    return [
        {"role": message.role.value, "content": [_part(part, tokens) for part in message.content]}
        for message in messages
    ]


def inputs_from_text(
    text: str,
    images: Sequence[U8Array],
    tokenizer: Tokenizer,
    geometry: ImageGeometry,
    *,
    frame_pixels: int,
) -> ModelInputs:
    """Tokenise a text that holds one image token for each image.

    Raises:
        InputError: more or fewer of them than images.
    """
    pieces = text.split(geometry.image_token)
    if len(pieces) != len(images) + 1:
        msg = f"the text shows {len(pieces) - 1} images, got {len(images)}"
        raise InputError(msg)
    patches, grids, whole = [], [], pieces[0]
    for image, piece in zip(images, pieces[1:], strict=True):
        values, grid = geometry.patches(image, frame_pixels)
        patches.append(torch.from_numpy(values))
        grids.append(grid)
        whole += geometry.image_token * geometry.num_tokens(grid) + piece
    ids = torch.tensor([tokenizer(whole, add_special_tokens=False).input_ids])
    return ModelInputs(
        input_ids=ids,
        mm_token_type_ids=(ids == geometry.image_token_id).to(torch.int32) * IMAGE_TYPE,
        images=tuple(patches),
        image_grid_thw=torch.tensor(grids, dtype=torch.int64).reshape(-1, 3),
    )


def _part(part: str | U8Array, tokens: Collection[str]) -> dict[str, str]:
    if not isinstance(part, str):
        return {"type": "image"}
    return {"type": "text", "text": without_tokens(part, tokens)}
