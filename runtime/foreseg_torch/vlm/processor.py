# SPDX-License-Identifier: Apache-2.0
"""What trainers call a processor: chats with frames to tensors, by the very code that the robot runs.

`transformers`' own processors want torchvision, and resize frames by rules of their own. A trainer
hands over texts with one image token for each image; here each becomes the image's tokens, as in
`vision_inputs`. Does not know trainers, methods or datasets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from transformers import BatchFeature, ProcessorMixin

from foreseg.errors import InputError
from foreseg.frames import U8Array
from foreseg.language.images import ImageGeometry
from foreseg_torch.vlm.vision_inputs import Tokenizer, inputs_from_text


class FramesProcessor(ProcessorMixin):
    """A processor of one tokenizer, over the image code of this package.

    Args:
        tokenizer: of `transformers`, with a chat template that knows images.
        geometry: of the model's images.
        frame_pixels: each image is read at this many pixels at most.
    """

    attributes: ClassVar[list[str]] = ["tokenizer"]
    tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        tokenizer: Any,  # noqa: ANN401 (of transformers)
        geometry: ImageGeometry,
        frame_pixels: int,
    ) -> None:
        super().__init__(tokenizer, chat_template=tokenizer.chat_template)
        self.geometry = geometry
        self.frame_pixels = frame_pixels
        self.image_token = geometry.image_token
        self.image_token_id = geometry.image_token_id

    @property
    def model_input_names(self) -> list[str]:
        """Tensors that the model takes."""
        images = ["pixel_values", "image_grid_thw"]
        return ["input_ids", "attention_mask", "mm_token_type_ids", *images]

    def __call__(
        self,
        images: Sequence[Any] | None = None,
        text: str | Sequence[str] = "",
        *,
        padding: bool | str = False,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        **_: Any,  # noqa: ANN401 (trainers pass what processors of other models want)
    ) -> BatchFeature:
        """Texts with image tokens, and their images in order, as a batch.

        Args:
            images: pictures (PIL or RGB arrays), flat or a list for each text.
            text: one or more, each with one image token for each of its images.
            padding: as tokenizers take it.
            padding_side: likewise.
            return_tensors: "pt" or None.

        Raises:
            InputError: more or fewer images than image tokens.
        """
        texts = [text] if isinstance(text, str) else list(text)
        waiting = _flat(images or ())
        ids: list[list[int]] = []
        pixels, grids = [], []
        for one in texts:
            shown = [_taken(waiting) for _ in range(one.count(self.image_token))]
            inputs = inputs_from_text(
                one, shown, self._words, self.geometry, frame_pixels=self.frame_pixels
            )
            ids.append(inputs.input_ids[0].tolist())
            pixels += [image.numpy() for image in inputs.images]
            grids += inputs.image_grid_thw.tolist()
        if next(waiting, None) is not None:
            msg = f"more images than the {len(grids)} image tokens in the texts"
            raise InputError(msg)
        batch = self.tokenizer.pad(
            {"input_ids": ids}, padding=padding, padding_side=padding_side, return_tensors=None
        )
        data: dict[str, Any] = dict(batch)
        data["mm_token_type_ids"] = [
            [int(token == self.image_token_id) for token in row] for row in data["input_ids"]
        ]
        if grids:
            data["pixel_values"] = np.concatenate(pixels)
            data["image_grid_thw"] = np.array(grids, np.int64)
        return BatchFeature(data, tensor_type=return_tensors)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:  # noqa: ANN401 (the tokenizer's)
        """Write what `loading` reads beside a model: the tokenizer, and how pixels are normalised."""
        options.pop("push_to_hub", None)
        self.tokenizer.save_pretrained(save_directory, **options)
        settings = {"image_mean": list(self.geometry.mean), "image_std": list(self.geometry.std)}
        (Path(save_directory) / "preprocessor_config.json").write_text(
            json.dumps(settings), "utf-8"
        )

    def __repr__(self) -> str:
        return (
            f"FramesProcessor({type(self.tokenizer).__name__}, {self.frame_pixels} pixels a frame)"
        )

    @property
    def _words(self) -> Tokenizer:
        tokenizer: Tokenizer = self.tokenizer
        return tokenizer

    def batch_decode(self, *arguments: Any, **options: Any) -> list[str]:  # noqa: ANN401 (the tokenizer's)
        """As the tokenizer does."""
        texts: list[str] = self.tokenizer.batch_decode(*arguments, **options)
        return texts

    def decode(self, *arguments: Any, **options: Any) -> str:  # noqa: ANN401 (the tokenizer's)
        """As the tokenizer does."""
        text: str = self.tokenizer.decode(*arguments, **options)
        return text


def _flat(images: Iterable[Any]) -> Iterator[U8Array]:
    """Pictures one by one, out of lists for each text, as RGB arrays."""
    for item in images:
        if isinstance(item, list | tuple):
            yield from _flat(item)
        elif isinstance(item, np.ndarray):
            yield item
        else:
            yield np.asarray(item.convert("RGB"))


def _taken(waiting: Iterator[U8Array]) -> U8Array:
    image = next(waiting, None)
    if image is None:
        msg = "fewer images than image tokens in the texts"
        raise InputError(msg)
    return image
