# SPDX-License-Identifier: Apache-2.0
"""A model that segments, tiny and random: its parts, its folder, its stream, a whole answer."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.sam2_models import make_frame, tiny_hiera, tiny_nano
from tests.support.scene import Recorder
from tests.support.tiny_vlm import HIDDEN, KINDS, save_tiny_vlm
from transformers import Sam2Model

from foreseg.config import Config
from foreseg.dialogue import (
    AnswerDone,
    AnswerPart,
    AnswerStatus,
    FramesWanted,
    Query,
    QueryId,
    RationalePart,
    TargetsFound,
)
from foreseg.driving.executor import Executor
from foreseg.driving.player import Latencies, Player
from foreseg.engines.load import load_bundle
from foreseg.errors import ConfigError, EngineError, InputError
from foreseg.frames import DEFAULT_CAMERA, FrameIndex, FrameWindow
from foreseg.language.base import (
    Chunk,
    LanguageRequest,
    Message,
    Role,
    Segmented,
    SegmentingModel,
    SegmentRequest,
)
from foreseg.masks import mask_from_rle, mask_iou, rle_area
from foreseg.methods.base import Method
from foreseg.methods.fevos import FevosMethod, FevosSettings
from foreseg.methods.seg_answers import forced_ending
from foreseg.methods.visa import VisaMethod, VisaSettings
from foreseg.pipeline.state import State
from foreseg.reasoner.base import ReasonerSpec
from foreseg.reasoner.exchange import checked_ask
from foreseg.reasoner.load import build_reasoner
from foreseg.reasoner.vlm import VlmReasoner
from foreseg.tracker.sam2 import Sam2Tracker
from foreseg_export.cli import main as export_main
from foreseg_export.vlm import save_quantised
from foreseg_torch.seg import language_model as seg_language_model
from foreseg_torch.seg.language_model import SegLanguageModel
from foreseg_torch.seg.model import MaskHead, SegVlm, source_masks
from foreseg_torch.seg.store import assemble_seg_vlm, load_seg_vlm, save_seg_vlm
from foreseg_torch.vlm.loading import Precision, load_vlm

FRAMES = tuple(make_frame(i) for i in range(3))
SAID = "<think>So.</think><answer>They are [SEG] and [SEG].</answer>"
ROUNDING = 2e-3  # of states around 1 in float32, read in pieces or at once
ASK = Query(id=QueryId("q"), text="what falls?")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Language models, a SAM2 and a nano tracker to assemble from."""
    folder = tmp_path_factory.mktemp("parts")
    for kind in KINDS:
        save_tiny_vlm(folder / kind, kind)
    tiny_hiera().save_pretrained(folder / "sam2")
    tiny_nano(folder / "nano.safetensors")
    return folder


def assembled(parts: Path, folder: Path, *, kind: str = KINDS[0], method: str = "fevos") -> Path:
    assemble_seg_vlm(
        str(parts / kind), parts / "sam2", folder, method=method, precision=Precision.FP32
    )
    return folder


@pytest.fixture(scope="module")
def folder(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assembled(parts, tmp_path_factory.mktemp("seg") / "made")


def test_the_decoder_draws_what_sam2_draws_from_the_same_prompt(parts: Path) -> None:
    head = MaskHead(tiny_hiera(), HIDDEN)
    reference = Sam2Model.from_pretrained(parts / "sam2").eval()
    reference.mask_decoder.dynamic_multimask_via_stability = False
    pixels = head.pixels_of([frame.image for frame in FRAMES])
    boxes = torch.tensor([[[8.0, 8.0, 40.0, 40.0], [2.0, 20.0, 30.0, 60.0]]])
    with torch.no_grad():
        wanted = reference(
            pixel_values=pixels,
            input_boxes=boxes.expand(len(FRAMES), -1, -1).clone(),
            multimask_output=False,
        )
        prompts, _ = head.sam.prompt_encoder(None, None, boxes, None)
        drawn = head.decoded(prompts[0], head.encoded(pixels))
    assert drawn.logits.shape == (3, 2, 16, 16)
    torch.testing.assert_close(drawn.logits, wanted.pred_masks[:, :, 0], atol=1e-4, rtol=1e-4)
    assert torch.all((drawn.quality >= 0) & (drawn.quality <= 1))


def test_frames_are_squeezed_and_normalised_as_sam2_wants_them() -> None:
    head = MaskHead(tiny_hiera(), HIDDEN)
    grey = np.full((30, 50, 3), 128, np.uint8)
    pixels = head.pixels_of([grey, FRAMES[0].image])
    assert pixels.shape == (2, 3, 64, 64)
    wanted = (128 / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(pixels[0].mean((1, 2)), wanted)


def test_masks_come_in_source_pixels_of_each_frame() -> None:
    torch.manual_seed(1)
    head = MaskHead(tiny_hiera(), HIDDEN)
    frames = (make_frame(0), make_frame(1, size_wh=(40, 30)))
    with torch.no_grad():
        decoded = head(
            torch.randn(2, HIDDEN), head.encoded(head.pixels_of([f.image for f in frames]))
        )
    first, second = source_masks(decoded, frames, 1)
    assert (first.shape, first.dtype) == ((72, 96), np.dtype(np.bool_))
    assert second.shape == (30, 40)
    assert 0 < first.mean() < 1
    assert abs(first.mean() - float((decoded.logits[0, 1] > 0).float().mean())) < 0.1


def test_a_folder_is_loaded_as_it_was_made_and_verified(folder: Path, parts: Path) -> None:
    record = json.loads((folder / "seg.json").read_text())
    assert (record["method"], record["token"], record["is_trained"]) == ("fevos", "[SEG]", False)
    assert not [p for p in folder.rglob("*") if p.suffix in {".bin", ".pt", ".pth", ".pkl"}]
    made = load_seg_vlm(folder, precision=Precision.FP32, device="cpu")
    assert made.loaded.tokenizer.convert_ids_to_tokens(made.model.token_id) == "[SEG]"
    assert (
        made.loaded.tokenizer("It is [SEG].", add_special_tokens=False).input_ids.count(
            made.model.token_id
        )
        == 1
    )
    again = assembled(parts, folder.parent / "again")
    other = load_seg_vlm(again, precision=Precision.FP32, device="cpu")
    for name, value in made.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


@pytest.mark.parametrize("name", ["projection.safetensors", "vlm/config.json", "sam2/extra.json"])
def test_a_changed_or_added_file_is_refused(parts: Path, tmp_path: Path, name: str) -> None:
    made = assembled(parts, tmp_path / "made")
    path = made / name
    path.write_bytes((path.read_bytes() if path.exists() else b"") + b" ")
    with pytest.raises(EngineError, match=f"{Path(name).name} is not as seg.json says"):
        load_seg_vlm(made)


def test_a_nano_tracker_lends_its_heads_and_four_bits_are_saved_whole(
    parts: Path, tmp_path: Path
) -> None:
    assemble_seg_vlm(
        str(parts / KINDS[1]),
        parts / "nano.safetensors",
        tmp_path / "made",
        method="visa",
        precision=Precision.NF4,
    )
    made = load_seg_vlm(tmp_path / "made", device="cpu")
    assert made.loaded.precision is Precision.NF4
    assert next(made.model.head.parameters()).dtype is torch.float32
    with torch.no_grad():
        maps = made.model.head.encoded(made.model.head.pixels_of([FRAMES[0].image]))
        assert made.model.head(torch.randn(1, HIDDEN), maps).logits.shape == (1, 1, 16, 16)
    with pytest.raises(InputError, match="in use as nf4 is not saved"):
        save_seg_vlm(made, tmp_path / "other", notes="")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "veason"}, "method wants one of visa, fevos, got 'veason'"),
        ({"vlm": "no/where/at all"}, "no model at"),
        ({"sam2": Path("nowhere")}, "is no SAM2"),
        ({"sam2": KINDS[0]}, f"is a '{KINDS[0]}': wanted is a SAM2"),
        ({"vlm": "quantised", "precision": Precision.NF4}, "is quantised already"),
        ({"folder": Path(__file__).parent}, "exists: remove it"),
        ({"folder": Path(__file__) / "made"}, "cannot be written"),
    ],
)
def test_what_cannot_be_assembled_is_said_in_a_sentence(
    parts: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    wanted = {
        "vlm": str(parts / KINDS[0]),
        "sam2": parts / "sam2",
        "folder": tmp_path / "made",
        "method": "visa",
    } | change
    if change.get("sam2") == KINDS[0]:
        wanted["sam2"] = parts / KINDS[0]
    if change.get("vlm") == "quantised":
        wanted["vlm"] = str(tmp_path / "quantised")
        stored = load_vlm(str(parts / KINDS[0]), precision=Precision.NF4, device="cpu")
        save_quantised(stored, tmp_path / "quantised")
    with pytest.raises((ConfigError, InputError), match=message):
        assemble_seg_vlm(**wanted)  # type: ignore[arg-type]
    assert {path.name for path in tmp_path.iterdir()} <= {"quantised"}  # nothing is left


def test_a_token_that_a_model_knows_keeps_its_meaning(parts: Path, tmp_path: Path) -> None:
    first = assembled(parts, tmp_path / "first")
    known = load_seg_vlm(first, precision=Precision.FP32, device="cpu")
    with torch.no_grad():
        known.loaded.model.get_input_embeddings().weight[known.model.token_id] = 7.0
    known.loaded.model.save_pretrained(tmp_path / "vlm")
    known.loaded.tokenizer.save_pretrained(tmp_path / "vlm")
    again = tmp_path / "again"
    assemble_seg_vlm(
        str(tmp_path / "vlm"), parts / "sam2", again, method="visa", precision=Precision.FP32
    )
    made = load_seg_vlm(again, precision=Precision.FP32, device="cpu")
    assert made.model.token_id == known.model.token_id
    row = made.loaded.model.get_input_embeddings().weight[made.model.token_id]
    torch.testing.assert_close(row, torch.full_like(row, 7.0))


def test_the_command_joins_the_two_and_says_that_nothing_is_trained(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "joined"
    words = ["seg", "--vlm", str(parts / KINDS[0]), "--sam2", str(parts / "sam2"), "--out"]
    assert export_main([*words, str(out), "--method", "fevos", "--precision", "fp32"]) == 0
    assert "UNTRAINED" in capsys.readouterr().out
    made = load_seg_vlm(out, device="cpu")
    assert (made.method, made.is_trained) == ("fevos", False)
    assert export_main([*words, str(out)]) == 2
    assert str(out) in capsys.readouterr().err
    for seed in ("-1", str(2**64)):
        assert export_main([*words, str(tmp_path / "new"), "--seed", seed]) == 2
        assert f"got {seed}" in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no model that segments in"):
        load_seg_vlm(tmp_path)


def request_of(max_tokens: int = 80, text: str = "[SEG]?") -> SegmentRequest:
    content = ("<0>", FRAMES[0].image, "<1>", FRAMES[1].image, text)
    completion = LanguageRequest(
        messages=(Message(role=Role.USER, content=content),), max_tokens=max_tokens
    )
    return SegmentRequest(completion=completion, frames=FRAMES, ending=forced_ending)


def exactly(folder: Path) -> SegLanguageModel:
    return SegLanguageModel(load_seg_vlm(folder, precision=Precision.FP32, device="cpu"))


def steer(monkeypatch: pytest.MonkeyPatch, model: SegLanguageModel, text: str) -> list[int]:
    """Let the model itself say this, whatever its weights would; the tokens."""
    tokens = list(model.loaded.tokenizer(text, add_special_tokens=False).input_ids)
    left = iter([*tokens, *model.loaded.end_ids])
    monkeypatch.setattr(seg_language_model, "chosen", lambda *_: (next(left), -0.5))
    return tokens


def completion_of(ids: torch.Tensor, num_prompt: int) -> torch.Tensor:
    return (torch.arange(ids.shape[1]) >= num_prompt).expand(ids.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_a_streams_states_and_masks_are_those_of_teacher_forcing(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    model = exactly(assembled(parts, tmp_path / "made", kind=kind))
    seg, states = model._model, []
    hook = seg.head.projection.register_forward_pre_hook(lambda _, given: states.append(given[0]))
    tokens = steer(monkeypatch, model, SAID)
    request = request_of()
    items = list(model.segment(request))
    hook.remove()
    said = "".join(item.text for item in items if isinstance(item, Chunk))
    assert said == SAID.replace("[SEG]", "")
    found = [item for item in items if isinstance(item, Segmented)]
    assert [item.is_forced for item in found] == [False, False]

    inputs = model.inputs(request.completion.messages)
    assert seg.token_id in inputs.input_ids  # the query's own means nothing
    whole = inputs.as_arguments()
    more = torch.tensor([tokens])
    whole["input_ids"] = torch.cat((whole["input_ids"], more), dim=1)
    whole["attention_mask"] = torch.ones_like(whole["input_ids"])
    types = whole["mm_token_type_ids"]
    whole["mm_token_type_ids"] = torch.cat((types, torch.zeros_like(more, dtype=types.dtype)), 1)
    with torch.no_grad():
        said_at = completion_of(whole["input_ids"], inputs.num_tokens)
        output = seg(whole, said_at, [seg.head.pixels_of([f.image for f in FRAMES])])
        before = seg.vlm.model(**whole).last_hidden_state[0, :-1]
    streamed = torch.cat(states)
    torch.testing.assert_close(streamed, output.states[0], atol=ROUNDING, rtol=ROUNDING)
    is_next = whole["input_ids"][0, 1:] == seg.token_id
    assert not torch.allclose(
        before[is_next][-2:], output.states[0], atol=0.05
    )  # it reads the token
    for number, item in enumerate(found):
        wanted = source_masks(output.masks[0], FRAMES, number)
        assert all(mask_iou(a, b) > 0.99 for a, b in zip(item.masks, wanted, strict=True))
        quality = output.masks[0].quality[:, number].tolist()
        assert item.qualities == pytest.approx(quality, abs=ROUNDING)


@pytest.mark.filterwarnings("ignore:.*checkpointing.* is deprecated:FutureWarning")  # peft asks so
def test_a_batch_under_adapters_says_what_its_rows_say(folder: Path) -> None:
    peft = pytest.importorskip("peft", reason="adapters are peft's: the extra [train]")
    made = load_seg_vlm(folder, precision=Precision.FP32, device="cpu")
    model = SegLanguageModel(made)
    inputs = model.inputs(request_of(text="what?").completion.messages)
    whole = inputs.as_arguments()
    more = torch.tensor([model.loaded.tokenizer("It is [SEG].").input_ids])
    whole["input_ids"] = torch.cat((whole["input_ids"], more), dim=1)
    whole["attention_mask"] = torch.ones_like(whole["input_ids"])
    types = whole["mm_token_type_ids"]
    whole["mm_token_type_ids"] = torch.cat((types, torch.zeros_like(more, dtype=types.dtype)), 1)
    said_at = completion_of(whole["input_ids"], inputs.num_tokens)
    pixels = made.model.head.pixels_of([FRAMES[0].image])
    with torch.no_grad():
        one = made.model(whole, said_at, [pixels])
        config = peft.LoraConfig(target_modules=r".*language_model.*\.q_proj")
        under = peft.get_peft_model(made.model.vlm, config)
        seg = SegVlm(under, made.model.head, made.model.token_id)
        both = {name: torch.cat((value, value)) for name, value in whole.items()}
        both["input_ids"][1, inputs.num_tokens :] = more[0, 0]  # the second row says no token
        two = seg(both, completion_of(both["input_ids"], inputs.num_tokens), [pixels, pixels])
    assert one.token_logits.shape == (1, more.shape[1] + 1, under.config.text_config.vocab_size)
    torch.testing.assert_close(
        two.token_logits[:1], one.token_logits, atol=ROUNDING, rtol=ROUNDING
    )
    torch.testing.assert_close(two.states[0], one.states[0], atol=ROUNDING, rtol=ROUNDING)
    assert [len(states) for states in two.states] == [1, 0]
    assert two.masks[1].logits.shape == (1, 0, 16, 16)
    trained = replace(made, model=seg, is_trained=True)
    with pytest.raises(ConfigError, match="is under adapters, which a folder cannot hold"):
        save_seg_vlm(trained, folder.parent / "merged", notes="")
    save_seg_vlm(trained, folder.parent / "merged", notes="", merge=True)
    assert load_seg_vlm(folder.parent / "merged", device="cpu").is_trained


def test_only_trained_models_are_saved_as_such(folder: Path, tmp_path: Path) -> None:
    made = load_seg_vlm(folder, precision=Precision.FP32, device="cpu")
    with pytest.raises(ConfigError, match="is not trained"):
        save_seg_vlm(made, tmp_path / "out", notes="")


def test_gradients_of_words_and_masks_reach_every_part(folder: Path) -> None:
    model = exactly(folder)
    seg = model._model.train()
    for parameter in seg.parameters():
        parameter.requires_grad = True
    inputs = model.inputs(request_of(text="what?").completion.messages)
    whole = inputs.as_arguments()
    more = torch.tensor([model.loaded.tokenizer("It is [SEG].").input_ids])
    whole["input_ids"] = torch.cat((whole["input_ids"], more), dim=1)
    whole["attention_mask"] = torch.ones_like(whole["input_ids"])
    types = whole["mm_token_type_ids"]
    whole["mm_token_type_ids"] = torch.cat((types, torch.zeros_like(more, dtype=types.dtype)), 1)
    said_at = completion_of(whole["input_ids"], inputs.num_tokens)
    output = seg(whole, said_at, [seg.head.pixels_of([FRAMES[0].image])])
    truth = (torch.arange(16) < 8).float().expand(1, 1, 16, 16)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(output.masks[0].logits, truth)
    loss = loss + torch.nn.functional.cross_entropy(output.token_logits[0, :-1], more[0])
    loss.backward()
    for part in (seg.vlm.model.language_model, seg.vlm.model.visual, seg.head.projection):
        assert sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None) > 0
    assert seg.head.sam.mask_decoder.mask_tokens.weight.grad[0].abs().sum() > 0
    assert seg.head.sam.vision_encoder.neck.convs[0].weight.grad.abs().sum() > 0


def test_a_model_that_never_says_the_token_gets_it_from_the_request(folder: Path) -> None:
    model = exactly(folder)
    assert isinstance(model, SegmentingModel)
    items = list(model.segment(request_of(max_tokens=6)))
    (found,) = (item for item in items if isinstance(item, Segmented))
    assert found.is_forced
    assert len(found.masks) == len(found.qualities) == 3
    said = "".join(item.text for item in items if isinstance(item, Chunk))
    assert said.endswith("<answer>It is .</answer>")
    quiet = replace(request_of(max_tokens=6), ending=lambda _: "")
    assert not any(isinstance(item, Segmented) for item in model.segment(quiet))


def test_a_request_for_nothing_or_for_several_samples_is_refused() -> None:
    request = request_of()
    with pytest.raises(ConfigError, match="got 1 samples and 0 frames"):
        replace(request, frames=())
    with pytest.raises(ConfigError, match="got 2 samples and 3 frames"):
        replace(request, completion=replace(request.completion, num_samples=2))


def test_a_closed_stream_ends_the_generation(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = exactly(folder)
    said: list[int] = []

    def chosen(*_: object) -> tuple[int, float]:
        said.append(65)
        return 65, 0.0

    monkeypatch.setattr(seg_language_model, "chosen", chosen)
    with closing(model.segment(request_of(max_tokens=4_000))) as stream:
        for item in stream:
            if isinstance(item, Chunk) and item.num_tokens:
                break
    assert len(said) == 1


METHODS: dict[str, Method] = {
    "visa": VisaMethod(VisaSettings(num_answers=3, sampler_tokens=4, answer_tokens=4)),
    "fevos": FevosMethod(FevosSettings(num_frames=3, reasoning_tokens=6, answer_tokens=4)),
}


@pytest.mark.parametrize(("method", "kind"), list(zip(METHODS, KINDS, strict=True)))
def test_a_whole_answer_of_four_bits_ends_in_a_mask_prompt(
    parts: Path, tmp_path: Path, method: str, kind: str
) -> None:
    made = assembled(parts, tmp_path / "made", kind=kind, method=method)
    model = SegLanguageModel(load_seg_vlm(made, precision=Precision.NF4, device="cpu"))
    window = FrameWindow(
        frames=tuple(make_frame(i) for i in (2, 9, 16)), origin_index=FrameIndex(2)
    )
    parts_of_answer: list[AnswerPart] = []
    stream = checked_ask(VlmReasoner(METHODS[method], model), ASK, window)
    part = next(stream)
    while not isinstance(part, AnswerDone):
        parts_of_answer.append(part)
        more = None
        if isinstance(part, FramesWanted):
            frames = tuple(make_frame(int(index)) for index in part.indices)
            more = FrameWindow(frames=frames, origin_index=FrameIndex(2))
        part = stream.send(more)
    (found,) = (p for p in parts_of_answer if isinstance(p, TargetsFound))
    (prompt,) = found.prompts
    assert prompt.mask is not None
    assert mask_from_rle(prompt.mask).shape == (72, 96)
    assert 0 < rle_area(prompt.mask) < 72 * 96
    assert 0 <= found.confidence < 1
    told = "".join(p.text for p in parts_of_answer if isinstance(p, RationalePart))
    assert "[SEG] was not said but forced" in told


@pytest.mark.parametrize("method", METHODS)
def test_the_tracker_goes_on_from_the_decoded_mask(folder: Path, method: str) -> None:
    bundle = load_bundle("nano", threads=1)
    config = Config()
    executor = Executor(
        config, (DEFAULT_CAMERA,), lambda rows: Sam2Tracker(bundle, max_objects=rows)
    )
    output = Recorder()
    player = Player(
        State.start(config, (DEFAULT_CAMERA,)),
        executor,
        output,
        reasoner=VlmReasoner(METHODS[method], exactly(folder)),
        latencies=Latencies(tracker_ns=20_000_000, reasoner_ns=300_000_000),
    )
    for number in range(50):
        if number == 10:
            player.ask(ASK)
        player.feed(DEFAULT_CAMERA, make_frame(number).image, number * 40_000_000)
    player.settle()
    (answer,) = output.answers
    assert answer.status is AnswerStatus.OK
    assert answer.prompts[0].mask is not None
    tracked = [masks for masks in output.masks if masks.tracks and masks.label_map.any()]
    assert len(tracked) > 5


@pytest.mark.parametrize("method", METHODS)
def test_the_kind_transformers_takes_a_folder_that_was_made_for_the_method(
    parts: Path, tmp_path: Path, method: str
) -> None:
    assembled(parts, tmp_path / "made", method=method)
    (tmp_path / "model.json").write_text(
        json.dumps({"model": "./made", "method": method, "precision": "fp32", "device": "cpu"})
    )
    kind = f"transformers:{tmp_path / 'model.json'}"
    assert build_reasoner(ReasonerSpec(kind=kind)).window_policy
    other = next(name for name in METHODS if name != method)
    with pytest.raises(ConfigError, match=f"was made for the method {method}, got '{other}'"):
        build_reasoner(ReasonerSpec(kind=kind, options={"method": other}))
    with pytest.raises(ConfigError, match=f"{method} wants a folder made for it by"):
        build_reasoner(ReasonerSpec(kind=kind, options={"model": str(parts / KINDS[0])}))
    with pytest.raises(ConfigError, match=f"was made for the method {method}, got 'veason'"):
        build_reasoner(ReasonerSpec(kind=kind, options={"method": "veason"}))


def test_a_server_cannot_segment() -> None:
    options = {"url": "http://127.0.0.1:1/v1", "model": "m", "method": "visa"}
    with pytest.raises(ConfigError, match=r"VisaMethod wants a model that decodes \[SEG\] tokens"):
        build_reasoner(ReasonerSpec(kind="openai", options=options))
    with pytest.raises(ConfigError, match="fast is for the methods videoseg and visa"):
        build_reasoner(
            ReasonerSpec(kind="openai", options=options | {"method": "fevos", "fast": True})
        )
    with pytest.raises(ConfigError, match="num_frames is for the methods veason and fevos"):
        build_reasoner(ReasonerSpec(kind="openai", options=options | {"num_frames": 3}))
