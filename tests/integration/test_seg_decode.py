# SPDX-License-Identifier: Apache-2.0
"""A [SEG] folder is decoded as its publisher decodes: held against transformers' own SAM2."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.sam2_models import make_frame, tiny_hiera
from tests.support.tiny_vlm import HIDDEN, save_tiny_vlm
from transformers import Sam2Model

from foreseg.errors import ConfigError, EngineError
from foreseg.language.base import (
    Chunk,
    LanguageRequest,
    Message,
    Role,
    Segmented,
    SegmentRequest,
)
from foreseg.masks import mask_iou
from foreseg_torch.seg import language_model as seg_language_model
from foreseg_torch.seg.decode import (
    SA2VA_DECODE,
    FrameResize,
    MaskChoice,
    SegDecode,
    StatePosition,
)
from foreseg_torch.seg.language_model import SegLanguageModel
from foreseg_torch.seg.model import MaskHead, source_masks, token_states
from foreseg_torch.seg.store import assemble_seg_vlm, load_seg_vlm
from foreseg_torch.vlm import language_model as vlm_language_model
from foreseg_torch.vlm.loading import Precision

FRAMES = tuple(make_frame(i) for i in range(2))
IMAGES = [frame.image for frame in FRAMES]
EXACT = 1e-5  # of the logits' scale: the same arithmetic in the same order
LEVELS = 2  # of 255: torch and PIL round the same bicubic sums differently


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    save_tiny_vlm(folder / "vlm")
    tiny_hiera(seed=3).save_pretrained(folder / "sam2")
    return folder


@pytest.fixture(scope="module")
def made(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seg") / "made"
    assemble_seg_vlm(
        str(parts / "vlm"), parts / "sam2", folder, method="fevos", precision=Precision.FP32
    )
    return folder


def oracle_masks(sam: Sam2Model, projected: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """(F, N, m, m) logits as Sa2VA's public code has them, of transformers' parts alone.

    One point with label -1 and no box: the prompt encoder pads another. The language embedding
    follows; of the three masks the one with the highest predicted IoU is taken.
    """
    found = sam.get_image_features(pixels, return_dict=True).fpn_hidden_states
    maps = [*found[:-1], found[-1] + sam.no_memory_embedding]
    maps = [
        flat.permute(1, 2, 0).reshape(len(pixels), -1, *size)
        for flat, size in zip(maps, sam.backbone_feature_sizes, strict=False)
    ]
    frames, drawn = len(pixels), []
    for one in projected:
        sparse, dense = sam.prompt_encoder(
            torch.zeros(frames, 1, 1, 2), -torch.ones(frames, 1, 1, dtype=torch.int32), None, None
        )
        assert sparse.shape[2] == 2  # both "not a point"
        assert torch.equal(sparse[0, 0, 0], sam.prompt_encoder.not_a_point_embed.weight[0])
        sparse = torch.cat((sparse, one.expand(frames, 1, 1, -1)), dim=2)
        masks, iou, _, _ = sam.mask_decoder(
            image_embeddings=maps[-1],
            image_positional_embeddings=sam.get_image_wide_positional_embeddings().expand(
                frames, -1, -1, -1
            ),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense.expand(frames, -1, -1, -1),
            multimask_output=True,
            high_resolution_features=maps[:-1],
        )
        best = iou[:, 0].argmax(-1)
        drawn.append(masks[torch.arange(frames), 0, best])
    return torch.stack(drawn, dim=1)


def test_the_decode_of_sa2va_is_that_of_its_public_code_and_the_old_one_is_another(
    parts: Path,
) -> None:
    torch.manual_seed(1)
    states = torch.randn(3, HIDDEN)
    ours, old = (MaskHead(tiny_hiera(seed=3), HIDDEN) for _ in range(2))
    old.load_state_dict(ours.state_dict())
    ours.decode = SA2VA_DECODE
    pixels = ours.pixels_of(IMAGES)
    sam = Sam2Model.from_pretrained(parts / "sam2").eval()
    with torch.no_grad():
        wanted = oracle_masks(sam, ours.projection(states), pixels)
        drawn = ours(states, ours.encoded(pixels))
        first = old(states, old.encoded(pixels))
    scale = float(wanted.abs().max())
    torch.testing.assert_close(drawn.logits, wanted, atol=EXACT * scale, rtol=0)
    assert torch.all((drawn.quality >= 0) & (drawn.quality <= 1))
    overlaps = [
        mask_iou((first.logits[f, n] > 0).numpy(), (wanted[f, n] > 0).numpy())
        for f in range(2)
        for n in range(3)
    ]
    assert float(np.mean(overlaps)) < 0.9, "the first mask would do as well: a test of nothing"


def test_two_points_that_are_none_stand_before_the_state() -> None:
    head = MaskHead(tiny_hiera(), HIDDEN, decode=SA2VA_DECODE)
    prompts = head.prompts(torch.randn(4, HIDDEN))
    assert prompts.shape == (4, 3, 128)
    none = head.sam.prompt_encoder.not_a_point_embed.weight[0]
    assert torch.equal(prompts[:, :2], none.expand(4, 2, -1))
    assert MaskHead(tiny_hiera(), HIDDEN).prompts(torch.randn(4, HIDDEN)).shape == (4, 1, 128)


def test_frames_are_resized_in_8_bits_as_pil_does_where_the_publisher_did() -> None:
    image = pytest.importorskip("PIL.Image", reason="the reference is PIL's")
    head = MaskHead(tiny_hiera(), HIDDEN, decode=SegDecode(frame_resize=FrameResize.BICUBIC))
    plain = MaskHead(tiny_hiera(), HIDDEN)
    found = head.pixels_of(IMAGES[:1])[0]
    mean, std = (
        torch.tensor(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    levels = (found * std + mean) * 255
    wanted = torch.tensor(np.array(image.fromarray(IMAGES[0]).resize((64, 64))))
    assert float((levels - wanted.permute(2, 0, 1)).abs().max()) <= LEVELS + 1e-3
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert not torch.allclose(plain.pixels_of(IMAGES[:1])[0], found, atol=0.05)


def request_of(text: str = "what?", *, forces: bool = False) -> SegmentRequest:
    content = (FRAMES[0].image, text)
    completion = LanguageRequest(
        messages=(Message(role=Role.USER, content=content),), max_tokens=80
    )
    ending = (lambda _: " It is [SEG].") if forces else None
    return SegmentRequest(completion=completion, frames=FRAMES, ending=ending)


def model_of(folder: Path, *stop_strings: str) -> SegLanguageModel:
    made = load_seg_vlm(folder, precision=Precision.FP32, device="cpu")
    return SegLanguageModel(replace(made, loaded=replace(made.loaded, stop_strings=stop_strings)))


def steer(monkeypatch: pytest.MonkeyPatch, model: SegLanguageModel, text: str) -> None:
    """Let the model itself say this, a byte a token, whatever its weights would."""
    tokens = list(model.loaded.tokenizer(text, add_special_tokens=False).input_ids)
    for module in (seg_language_model, vlm_language_model):
        left = iter([*tokens, *model.loaded.end_ids])
        monkeypatch.setattr(module, "chosen", lambda *_, left=left: (next(left), -0.5))


@pytest.mark.parametrize("position", StatePosition)
def test_the_state_is_the_publishers_position(
    made: Path, monkeypatch: pytest.MonkeyPatch, position: StatePosition
) -> None:
    model = model_of(made)
    seg, states = model._model, []
    seg.head.decode = SegDecode(state_position=position)
    hook = seg.head.projection.register_forward_pre_hook(lambda _, given: states.append(given[0]))
    steer(monkeypatch, model, "It is [SEG].")
    request = request_of()
    list(model.segment(request))
    hook.remove()
    inputs = model.inputs(request.completion.messages)
    whole = inputs.as_arguments()
    more = torch.tensor([model.loaded.tokenizer("It is [SEG].").input_ids])
    ids = torch.cat((whole["input_ids"], more), dim=1)
    whole |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    whole["mm_token_type_ids"] = torch.nn.functional.pad(
        whole["mm_token_type_ids"], (0, more.shape[1])
    )
    with torch.no_grad():
        hidden = seg.vlm.model(**whole).last_hidden_state
    completion = (torch.arange(ids.shape[1]) >= inputs.num_tokens)[None]
    (wanted,) = token_states(hidden, ids, completion, seg.token_id, position)
    (at,) = (ids[0] == seg.token_id).nonzero()[:, 0].tolist()
    offset = {StatePosition.READS: 0, StatePosition.PREDICTS: -1}[position]
    torch.testing.assert_close(wanted[0], hidden[0, at + offset])
    torch.testing.assert_close(states[0], wanted, atol=2e-3, rtol=2e-3)


def test_nothing_is_read_after_a_stop_string_that_came_in_pieces(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(made, "<|end|>")
    steer(monkeypatch, model, "Sure, [SEG].<|end|>\n<|user|> and [SEG]")
    items = list(model.segment(request_of()))
    assert "".join(i.text for i in items if isinstance(i, Chunk)) == "Sure, ."
    assert sum(isinstance(item, Segmented) for item in items) == 1
    assert not any(item.is_cut for item in items if isinstance(item, Chunk))
    steer(monkeypatch, model, "30%<|end|>40%")
    completion = request_of().completion
    assert "".join(chunk.text for chunk in model.generate(completion)) == "30%"
    steer(monkeypatch, model, "none<|end|>")
    forced = list(model.segment(request_of(forces=True)))
    assert [item.is_forced for item in forced if isinstance(item, Segmented)] == [True]


def test_a_completion_without_the_token_is_left_as_it_is_or_told_to_be_cut(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(made)
    steer(monkeypatch, model, "no such thing")
    items = list(model.segment(request_of()))
    assert not any(isinstance(item, Segmented) for item in items)
    assert "".join(i.text for i in items if isinstance(i, Chunk)) == "no such thing"
    assert not any(item.is_cut for item in items if isinstance(item, Chunk))
    steer(monkeypatch, model, "so " * 60)
    assert list(model.segment(request_of()))[-1] == Chunk(is_cut=True)


def test_the_record_is_read_back_and_an_older_folder_is_decoded_as_ever(made: Path) -> None:
    record = json.loads((made / "seg.json").read_text())
    assert record["decode"] == SegDecode().as_record()
    assert load_seg_vlm(made, device="cpu").loaded.precision is Precision.BF16
    try:
        wanted = replace(SA2VA_DECODE, stop_strings=("<|end|>",), precision=Precision.FP32)
        changed = record | {"decode": wanted.as_record()}
        (made / "seg.json").write_text(json.dumps(changed))
        loaded = load_seg_vlm(made, device="cpu")
        assert loaded.model.head.decode == wanted
        assert loaded.loaded.precision is Precision.FP32
        assert loaded.loaded.stop_strings == ("<|end|>",)
        for change, message in (
            ({"mask_choice": "second"}, "wants one of first, best_of_three in 'mask_choice'"),
            ({"num_padding_tokens": 17}, "num_padding_tokens wants 0 to 16, got 17"),
            ({"stop_strings": [""]}, "none of them empty"),
            ({"stop_strings": [3]}, "wants texts in 'stop_strings'"),
        ):
            bad = record | {"decode": wanted.as_record() | change}
            (made / "seg.json").write_text(json.dumps(bad))
            with pytest.raises(EngineError, match=message):
                load_seg_vlm(made, device="cpu")
        (made / "seg.json").write_text(json.dumps(record | {"format_version": 3}))
        with pytest.raises(EngineError, match="format version 3, this foreseg reads 1 to 2"):
            load_seg_vlm(made, device="cpu")
        old = {k: v for k, v in record.items() if k != "decode"} | {"format_version": 1}
        (made / "seg.json").write_text(json.dumps(old))
        assert load_seg_vlm(made, device="cpu").model.head.decode == SegDecode()
    finally:
        (made / "seg.json").write_text(json.dumps(record))


def test_choices_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_padding_tokens wants 0 to 16, got -1"):
        SegDecode(num_padding_tokens=-1)
    with pytest.raises(ConfigError, match="stop_strings wants at most 16"):
        SegDecode(stop_strings=("",))


def test_a_chosen_mask_is_drawn_in_source_pixels() -> None:
    torch.manual_seed(0)
    head = MaskHead(tiny_hiera(), HIDDEN, decode=SegDecode(mask_choice=MaskChoice.BEST_OF_THREE))
    with torch.no_grad():
        decoded = head(torch.randn(2, HIDDEN), head.encoded(head.pixels_of(IMAGES)))
    assert [mask.shape for mask in source_masks(decoded, FRAMES, 1)] == [(72, 96)] * 2
    with torch.no_grad():
        none = head(torch.empty(0, HIDDEN), head.encoded(head.pixels_of(IMAGES)))
    assert none.logits.shape == (2, 0, 16, 16)
