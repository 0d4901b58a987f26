# SPDX-License-Identifier: Apache-2.0
"""What a model's vision tower makes of images, kept while there is room: none is encoded twice.

Does not know where in a prompt an image stands; its features do not depend on it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from foreseg_torch.vlm.vision_inputs import ModelInputs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFeatures:
    """One image's tokens, each of `layers` as (L, C): what replaces them in the text first.

    Some models add the others to later layers of the language model.
    """

    layers: tuple[torch.Tensor, ...]

    @property
    def num_bytes(self) -> int:
        """In memory."""
        return sum(layer.numel() * layer.element_size() for layer in self.layers)


class VisionEncoder:
    """A model's vision tower, with the features of the images seen last."""

    def __init__(self, model: Any, max_bytes: int) -> None:  # noqa: ANN401 (of transformers)
        self._model = model
        self._max_bytes = max_bytes
        self._kept: OrderedDict[bytes, ImageFeatures] = OrderedDict()
        self._num_bytes = 0
        self._num_encoded = 0
        self._output_type: type[Any] | None = None
        self._is_plain = False  # the model takes the tokens of all images as one (1, L, C)

    @property
    def num_encoded(self) -> int:
        """Images that went through the tower so far."""
        return self._num_encoded

    @property
    def num_bytes(self) -> int:
        """What the features kept take in memory."""
        return self._num_bytes

    def encode(self, inputs: ModelInputs) -> Iterator[ImageFeatures]:
        """The features of a prompt's images, one after the other."""
        for patches, grid in zip(inputs.images, inputs.image_grid_thw, strict=True):
            key = hashlib.blake2b(patches.numpy().data, digest_size=16).digest()
            key += grid.numpy().tobytes()
            features = self._kept.get(key)
            if features is None:
                features = self._encoded(patches, grid)
                self._keep(key, features)
            else:
                self._kept.move_to_end(key)
            yield features

    def as_outputs(self, features: Sequence[ImageFeatures], start: int, end: int) -> Any:  # noqa: ANN401
        """Tokens `start` to `end` of all images in order, as the model takes them."""
        layers = [torch.cat(layer)[start:end] for layer in zip(*(f.layers for f in features))]  # noqa: B905 (equal)
        assert self._output_type is not None  # noqa: S101 (features come from `encode`)
        whole = layers[0][None] if self._is_plain else [layers[0]]
        output = self._output_type(pooler_output=whole)
        if len(layers) > 1:
            output.deepstack_features = [[layer] for layer in layers[1:]]
        return output

    @torch.inference_mode()
    def _encoded(self, patches: torch.Tensor, grid: torch.Tensor) -> ImageFeatures:
        device = self._model.device
        is_whole = patches.ndim > 2  # noqa: PLR2004 (an image, not patches: it has its grid itself)
        grids = () if is_whole else (grid[None].to(device),)
        output = self._model.get_image_features(patches.to(device), *grids, return_dict=True)
        self._num_encoded += 1
        self._output_type = type(output)
        self._is_plain = is_whole
        deeper = getattr(output, "deepstack_features", None) or []
        layers = (output.pooler_output[0], *(layer[0] for layer in deeper))
        return ImageFeatures(layers=tuple(layer.to(self._model.dtype) for layer in layers))

    def _keep(self, key: bytes, features: ImageFeatures) -> None:
        if features.num_bytes > self._max_bytes:
            return
        self._kept[key] = features
        self._num_bytes += features.num_bytes
        while self._num_bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._num_bytes -= oldest.num_bytes
