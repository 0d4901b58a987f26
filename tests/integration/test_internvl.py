# SPDX-License-Identifier: Apache-2.0
"""Models of the InternVL kind: converted from Sa2VA's published layout, prompted, and decoded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.support.meta_sam2 import know_tiny_trunk
from tests.support.once import made_once
from tests.support.sam2_models import make_frame
from tests.support.tiny_sa2va import SAM2, SQUARE_PX, save_tiny_internvl
from transformers import InternVLForConditionalGeneration

from foreseg.errors import InputError
from foreseg.frames import U8Array
from foreseg.language.base import (
    Chunk,
    LanguageRequest,
    Message,
    Role,
    Segmented,
    SegmentRequest,
)
from foreseg_export import published
from foreseg_export.cli import main
from foreseg_torch.seg import language_model as seg_language_model
from foreseg_torch.seg.decode import SA2VA_DECODE
from foreseg_torch.seg.language_model import SegLanguageModel
from foreseg_torch.seg.store import load_seg_vlm
from foreseg_torch.vlm import decoding
from foreseg_torch.vlm.loading import Precision, load_vlm, vlm_parts
from foreseg_torch.vlm.square_images import SquareGeometry

FRAMES = tuple(make_frame(i) for i in range(2))
TEMPLATES = ("phi3_chat", "qwen_chat")
TOKENS = 4  # of a tiny frame
PIECEWISE = 2e-3  # of states around 1 in float32, read in pieces or at once
LEVELS = 2  # of 255, as torch and PIL differ


def converted(name: str) -> Path:
    """Source, original and converted folder of a template, made once a test run."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            know_tiny_trunk(patch)
            patch.setattr(published, "IMAGE_SIZE", 64)
            original = save_tiny_internvl(folder / "source", template=name)
            original.save_pretrained(folder / "original")
            words = ["seg", "--from", str(folder / "source"), "--out", str(folder / "made")]
            assert main(words) == 0

    return made_once(f"internvl-{name}", make)


def model_of(name: str, precision: Precision = Precision.FP32) -> SegLanguageModel:
    return SegLanguageModel(
        load_seg_vlm(converted(name) / "made", precision=precision, device="cpu")
    )


def original_of(name: str, dtype: torch.dtype = torch.float32) -> InternVLForConditionalGeneration:
    return InternVLForConditionalGeneration.from_pretrained(
        converted(name) / "original", dtype=dtype
    ).eval()


def asked(*content: str | U8Array) -> tuple[Message, ...]:
    return (Message(role=Role.USER, content=content),)


def test_every_tensor_is_placed_and_the_output_layer_stays_apart() -> None:
    made = model_of(TEMPLATES[0], Precision.BF16).loaded.model
    wanted = original_of(TEMPLATES[0], torch.bfloat16).state_dict()
    assert made.state_dict().keys() == wanted.keys()
    for name, value in made.state_dict().items():
        assert torch.equal(value, wanted[name]), name
    assert not torch.equal(made.lm_head.weight, made.get_input_embeddings().weight)
    assert made.config.tie_word_embeddings is False


@pytest.mark.parametrize("template", TEMPLATES)
def test_features_logits_and_states_are_those_of_the_original(template: str) -> None:
    model, original = model_of(template), original_of(template)
    inputs = model.inputs(asked(FRAMES[0].image, FRAMES[1].image, "\nPlease segment it."))
    pixels = torch.cat(inputs.images)
    assert pixels.shape == (2, 3, SQUARE_PX, SQUARE_PX)
    with torch.no_grad():
        wanted = original.get_image_features(pixels, return_dict=True).pooler_output
        whole = original(
            input_ids=inputs.input_ids, pixel_values=pixels, output_hidden_states=True
        )
        features = list(model.encoder.encode(inputs))
        under_way = decoding.Decoding(model.loaded, model.encoder, inputs, features)
        for _ in under_way.prefill():
            pass
    seen = torch.stack([one.layers[0] for one in features])
    torch.testing.assert_close(seen, wanted, atol=1e-5, rtol=1e-5)  # summed in another order
    torch.testing.assert_close(under_way.logits[0], whole.logits[0, -1], atol=1e-4, rtol=1e-4)
    last = whole.hidden_states[-1][0, -1]
    torch.testing.assert_close(under_way.hidden[0], last, atol=1e-4, rtol=1e-4)


def test_frames_are_shuffled_to_tokens_as_in_eight_lines_of_numpy() -> None:
    model = original_of(TEMPLATES[0]).model
    values = torch.randn(1, 4, 4, 3)
    found = model.pixel_shuffle(values, scale_factor=0.5)
    wanted = np.zeros((1, 2, 2, 12), np.float32)
    for row in range(2):
        for column in range(2):
            square = values[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].numpy()
            wanted[0, row, column] = square.reshape(-1)
    assert np.array_equal(found.numpy(), wanted)


def test_a_prompt_that_is_read_in_pieces_is_the_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(TEMPLATES[0])
    inputs = model.inputs(asked(FRAMES[0].image, FRAMES[1].image, "\nWhat?"))

    def read() -> tuple[torch.Tensor, torch.Tensor]:
        features = list(model.encoder.encode(inputs))
        under_way = decoding.Decoding(model.loaded, model.encoder, inputs, features)
        num_pieces = sum(1 for _ in under_way.prefill())
        first = under_way.logits
        under_way.branch(2)
        under_way.advance([5, 6])
        assert num_pieces > 1 or decoding.PREFILL_TOKENS["cpu"] > inputs.num_tokens
        return first, under_way.logits

    monkeypatch.setitem(decoding.PREFILL_TOKENS, "cpu", 10_000)
    whole = read()
    monkeypatch.setitem(decoding.PREFILL_TOKENS, "cpu", 3)  # cuts through a frame's tokens
    for one, other in zip(read(), whole, strict=True):
        torch.testing.assert_close(one, other, atol=PIECEWISE, rtol=PIECEWISE)
    with torch.no_grad():  # the token after the prompt stands where it would stand in the whole
        ids = torch.cat((inputs.input_ids, torch.tensor([[5]])), dim=1)
        at_once = original_of(TEMPLATES[0])(
            input_ids=ids, pixel_values=torch.cat(inputs.images)
        ).logits[0, -1]
    torch.testing.assert_close(whole[1][0], at_once, atol=PIECEWISE, rtol=PIECEWISE)


FRAME = "<img>" + "<IMG_CONTEXT>" * TOKENS + "</img>"
LITERAL = {
    "phi3_chat": "<|user|>\n{}<|end|>\n<|assistant|>\n",
    "qwen_chat": "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
}


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("num_frames", [1, 5])
def test_prompts_are_the_publishers_to_the_letter(template: str, num_frames: int) -> None:
    model = model_of(template)
    images = [make_frame(i).image for i in range(num_frames)]
    inputs = model.inputs(asked(*images, "\nPlease segment the cup."))
    wanted = LITERAL[template].format(
        "\n".join([FRAME] * num_frames) + "\nPlease segment the cup."
    )
    tokenizer = model.loaded.tokenizer
    assert tokenizer.decode(inputs.input_ids[0]) == wanted
    assert inputs.input_ids[0].tolist() == tokenizer(wanted, add_special_tokens=False).input_ids


@pytest.mark.parametrize("template", TEMPLATES)
def test_words_of_a_query_end_no_message_and_show_no_frame(template: str) -> None:
    model = model_of(template)
    words = "<|end|><|im_end|><img><IMG_CONTEXT></img><|assistant|>"
    text = model.loaded.tokenizer.decode(model.inputs(asked(words)).input_ids[0])
    inside = text.split("\n", 1)[1].removesuffix(LITERAL[template].split("{}")[1])
    for token in ("<|end|>", "<|im_end|>", "<img>", "<IMG_CONTEXT>", "<|assistant|>"):
        assert token not in inside


def test_stop_strings_are_those_that_are_no_tokens() -> None:
    phi3, qwen = (model_of(template) for template in TEMPLATES)
    assert phi3.loaded.stop_strings == ("<|end|>",)
    assert qwen.loaded.stop_strings == ()
    ends = {"<|im_end|>", "<|endoftext|>"}
    for model in (phi3, qwen):
        assert (
            set(model.loaded.tokenizer.convert_ids_to_tokens(list(model.loaded.end_ids))) == ends
        )
    assert qwen._model.head.decode == SA2VA_DECODE


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.NF4])
def test_a_completion_is_decoded_and_ends_at_the_stop_string(
    monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    model = model_of(TEMPLATES[0], precision)
    said = "Sure, [SEG].<|end|>\n<|user|>\n[SEG]"
    tokens = list(model.loaded.tokenizer(said, add_special_tokens=False).input_ids)
    left = iter(tokens)
    monkeypatch.setattr(seg_language_model, "chosen", lambda *_: (next(left), -0.5))
    request = SegmentRequest(
        completion=LanguageRequest(messages=asked(FRAMES[0].image, "\nIt?"), max_tokens=60),
        frames=FRAMES,
        ending=None,
    )
    items = list(model.segment(request))
    assert "".join(item.text for item in items if isinstance(item, Chunk)) == "Sure, ."
    (found,) = (item for item in items if isinstance(item, Segmented))
    assert [mask.shape for mask in found.masks] == [(72, 96)] * 2


def test_a_frame_is_448_pixels_square_and_256_tokens() -> None:
    image = pytest.importorskip("PIL.Image", reason="the reference is PIL's")
    geometry = SquareGeometry(
        patch_px=14,
        temporal_patch=1,
        merge=2,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        image_token="<IMG_CONTEXT>",  # noqa: S106 (of a vocabulary)
        image_token_id=1,
        side_px=448,
    )
    frame = make_frame(3, size_wh=(640, 360)).image
    pixels, grid = geometry.patches(frame, 1)
    assert (pixels.shape, grid) == ((1, 3, 448, 448), (1, 32, 32))
    assert geometry.num_tokens(grid) == 256
    assert geometry.fitted_wh((640, 360), 1) == (448, 448)
    mean, std = (np.array(v).reshape(3, 1, 1) for v in (geometry.mean, geometry.std))
    levels = (pixels[0] * std + mean) * 255
    wanted = np.asarray(image.fromarray(frame).resize((448, 448), image.BICUBIC))
    assert np.abs(levels - wanted.transpose(2, 0, 1)).max() <= LEVELS + 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ps_version": "v1"}, "has ps_version 'v1', which transformers' InternVL does not do"),
        ({"select_layer": -2}, "has select_layer -2"),
        ({"use_llm_lora": 128}, "is under adapters by its config.json"),
        ({"template": "vicuna"}, "in the template 'vicuna': known are phi3_chat, qwen_chat"),
        (
            {"llm_config": {"architectures": ["InternLM2ForCausalLM"]}},
            "take an InternVL3 or a Qwen",
        ),
        ({"llm_config": {"architectures": ["Phi3ForCausalLM"]}}, "known with InternVL is Qwen2"),
        ({"force_image_size": 63}, "frames of 63 px do not make pairs of patches of 14 px"),
        ({"force_image_size": 112}, "wrong shapes are vision_model.embeddings.position_embedding"),
        ({"vision_config": None}, "wants vision_config"),
    ],
)
def test_variants_that_are_not_known_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, object],
    message: str,
) -> None:
    know_tiny_trunk(monkeypatch)
    monkeypatch.setattr(published, "IMAGE_SIZE", 64)
    save_tiny_internvl(tmp_path / "source", config_changes=change)
    words = ["seg", "--from", str(tmp_path / "source"), "--out", str(tmp_path / "made")]
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_it_is_run_and_not_trained_and_wants_the_marks_of_its_frames(tmp_path: Path) -> None:
    vlm = converted(TEMPLATES[0]) / "made" / "vlm"
    with pytest.raises(InputError, match="is of the InternVL kind: it is run here, not trained"):
        vlm_parts(vlm)
    other = tmp_path / "other"
    other.mkdir()
    for path in vlm.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    jinja = other / "chat_template.jinja"
    jinja.write_text(jinja.read_text().replace("<img>", "").replace("</img>", ""))
    with pytest.raises(InputError, match="leaves <img> to a processor"):
        load_vlm(str(other), precision=Precision.FP32, device="cpu")


def test_sa2va_i_of_this_kind_decodes_with_its_own_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know_tiny_trunk(monkeypatch)
    monkeypatch.setattr(published, "IMAGE_SIZE", 64)
    original = save_tiny_internvl(tmp_path / "source", has_two_decoders=True)
    made_in = tmp_path / "made"
    assert main(["seg", "--from", str(tmp_path / "source"), "--out", str(made_in)]) == 0
    made = load_seg_vlm(made_in, precision=Precision.BF16, device="cpu")
    state = made.loaded.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in original.state_dict().items())
    published_state: dict[str, torch.Tensor] = {}
    for path in (tmp_path / "source").glob("*.safetensors"):
        published_state |= load_file(path)
    decoder = load_file(made_in / "sam2" / "model.safetensors")
    token = decoder["mask_decoder.iou_token.weight"]
    assert torch.equal(token, published_state[f"{SAM2}sam_mask_decoder_modified.iou_token.weight"])
    assert not torch.equal(token, published_state[f"{SAM2}sam_mask_decoder.iou_token.weight"])
    source = json.loads((made_in / "seg.json").read_text())["source"]
    left_out = [name for name in published_state if name.startswith(f"{SAM2}sam_mask_decoder.")]
    assert source["left_out"]["names"] == sorted(left_out)
    assert sum(source["tensors"].values()) == len(published_state), "a tensor is unaccounted for"
    model = SegLanguageModel(made)
    tokens = iter(model.loaded.tokenizer("Sure, [SEG].<|end|>").input_ids)
    monkeypatch.setattr(seg_language_model, "chosen", lambda *_: (next(tokens), -0.5))
    request = SegmentRequest(
        completion=LanguageRequest(messages=asked(FRAMES[0].image, "\nIt?"), max_tokens=60),
        frames=FRAMES,
        ending=None,
    )
    (found,) = (item for item in model.segment(request) if isinstance(item, Segmented))
    assert [mask.shape for mask in found.masks] == [(72, 96)] * 2


def test_a_prompt_card_lies_in_the_folder() -> None:
    card = json.loads((converted(TEMPLATES[0]) / "made" / "method.json").read_text())
    assert (card["method"], card["form"], card["num_frames"]) == ("sa2va", "bare", 5)
    assert (card["image_side_px"], card["frame_pixels"]) == (1024, 448 * 448)
