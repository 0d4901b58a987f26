# SPDX-License-Identifier: Apache-2.0
"""Tiny random models of the real architectures, quantised or not, behind the language contract."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="a model needs it: pip install 'foreseg[vlm]'")
for name in ("transformers", "bitsandbytes", "accelerate", "cv2"):
    pytest.importorskip(name, reason="a model needs it: pip install 'foreseg[vlm]'")

from tests.support.tiny_vlm import IMAGE, KINDS, save_tiny_vlm, tiny_tokenizer  # noqa: E402

from foreseg.errors import ConfigError, InputError  # noqa: E402
from foreseg.language.base import (  # noqa: E402
    Chunk,
    LanguageModelError,
    LanguageRequest,
    Message,
    Role,
)
from foreseg.language.completion_text import CompletionText  # noqa: E402
from foreseg_torch.vlm.decoding import Decoding  # noqa: E402
from foreseg_torch.vlm.language_model import TransformersLanguageModel, decoder_of  # noqa: E402
from foreseg_torch.vlm.loading import LoadedVlm, Precision, estimated_bytes, load_vlm  # noqa: E402

ROUNDING = 1e-3  # of logits around 1 in float32, read in other pieces


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_vlm(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def exact(folder: Path) -> LoadedVlm:
    return load_vlm(str(folder), precision=Precision.FP32, device="cpu")


@pytest.fixture
def model(exact: LoadedVlm) -> TransformersLanguageModel:
    return TransformersLanguageModel(exact)


def images(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 255, (60 + 30 * (i % 2), 100, 3), np.uint8) for i in range(count)]


def asked(shown: list[np.ndarray], **options: Any) -> LanguageRequest:
    parts: list[str | np.ndarray] = ["frames "]
    for label, image in enumerate(shown):
        parts += [f"<{label}>", image]
    message = Message(role=Role.USER, content=(*parts, "what falls next?"))
    return LanguageRequest(messages=(message,), **{"max_tokens": 12, **options})


def texts(model: TransformersLanguageModel, request: LanguageRequest) -> list[str]:
    found = [""] * request.num_samples
    for chunk in model.generate(request):
        found[chunk.sample] += chunk.text
    return found


def result_of(stream: Generator[Chunk, None, Decoding]) -> Decoding:
    while True:
        try:
            next(stream)
        except StopIteration as end:
            return end.value


def test_greedy_completions_are_those_of_generate(
    model: TransformersLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foreseg_torch.vlm.decoding.PREFILL_TOKENS", {"cpu": 17})  # through images
    request = asked(images(3))
    chunks = list(model.generate(request))
    loaded = model.loaded
    inputs = model.inputs(request.messages)
    with torch.inference_mode():
        whole = loaded.model.generate(
            **inputs.as_arguments(), max_new_tokens=12, do_sample=False, return_dict_in_generate=True,
            output_logits=True,
        )  # fmt: skip
    tokens = whole.sequences[0, inputs.num_tokens :].tolist()
    ours = [c for c in chunks if c.num_tokens]
    assert len(ours) == len(tokens) == 12
    assert "".join(c.text for c in chunks) == loaded.tokenizer.decode(
        tokens, skip_special_tokens=True
    )
    for chunk, token, logits in zip(ours, tokens, whole.logits, strict=True):
        expected = float(torch.log_softmax(logits[0].float(), dim=-1)[token])
        assert chunk.log_probs == (pytest.approx(expected, abs=ROUNDING),)
    assert len(chunks) - len(ours) >= 3 + inputs.num_tokens // 17  # signs of life
    assert [chunk.is_cut for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_positions_follow_the_images_only_where_their_places_are_told(
    model: TransformersLanguageModel,
) -> None:
    request = asked(images(2))
    inputs = model.inputs(request.messages)
    arguments = inputs.as_arguments()
    with torch.inference_mode():
        right = model.loaded.model(**arguments).logits[0, -1]
    logits = result_of(model.prepared(inputs, 1)).logits[0]
    assert torch.allclose(logits, right, atol=ROUNDING)
    flat = torch.arange(inputs.num_tokens).expand(3, 1, -1)  # as without the places of images
    with torch.inference_mode():
        wrong = model.loaded.model(**arguments, position_ids=flat).logits[0, -1]
    assert (wrong - right).abs().max() > 100 * ROUNDING


def test_streams_in_turn_do_not_disturb_each_other(model: TransformersLanguageModel) -> None:
    requests = [asked(images(2)), asked([]), asked(images(1, seed=3))]
    alone = [texts(model, request)[0] for request in requests]
    streams = [model.generate(request) for request in requests]
    found = [""] * len(streams)
    left = set(range(len(streams)))
    while left:
        for number in sorted(left):
            chunk = next(streams[number], None)
            if chunk is None:
                left.remove(number)
            else:
                found[number] += chunk.text
    assert found == alone
    assert len(set(found)) == len(found)


def test_samples_differ_and_come_again_with_their_seed(model: TransformersLanguageModel) -> None:
    request = asked(images(1), num_samples=3, temperature=1.0, seed=5)
    first = texts(model, request)
    assert len(set(first)) == 3
    assert texts(model, request) == first
    assert texts(model, asked(images(1), num_samples=1, temperature=1.0, seed=5)) == first[:1]
    assert texts(model, asked(images(1), num_samples=3, temperature=1.0, seed=6)) != first


def test_samples_end_at_their_own_end(model: TransformersLanguageModel) -> None:
    request = asked(images(1), num_samples=6, temperature=1.5, max_tokens=40)
    whole = texts(model, request)
    ends = model.loaded.model.generation_config.eos_token_id
    letters = [letter for letter in "".join(whole) if letter.isascii()]
    common = max(sorted(set(letters)), key=letters.count)
    stop = model.loaded.tokenizer(common).input_ids
    model.loaded.model.generation_config.eos_token_id = [ends, *stop]
    try:
        cut = texts(model, request)
    finally:
        model.loaded.model.generation_config.eos_token_id = ends
    assert len({len(text) for text in cut}) > 1
    assert all(mine == full.partition(common)[0] for mine, full in zip(cut, whole, strict=True))


def test_frames_seen_before_are_not_encoded_again(exact: LoadedVlm) -> None:
    model = TransformersLanguageModel(exact)
    old, new = images(3), images(1, seed=9)
    first = texts(model, asked(old))
    assert model.encoder.num_encoded == 3
    assert texts(model, asked(old)) == first
    assert model.encoder.num_encoded == 3
    texts(model, asked([*old[1:], *new]))
    assert model.encoder.num_encoded == 4


def test_kept_features_are_bounded_and_change_no_word(exact: LoadedVlm) -> None:
    plenty = TransformersLanguageModel(exact)
    request = asked(images(4))
    expected = texts(plenty, request)
    one = plenty.encoder.num_bytes / 4 / 1e6
    scarce = TransformersLanguageModel(exact, vision_cache_mb=1.5 * one)
    assert texts(scarce, request) == expected
    assert 0 < scarce.encoder.num_bytes <= 1.5 * one * 1e6
    none = TransformersLanguageModel(exact, vision_cache_mb=0)
    assert texts(none, request) == expected
    assert none.encoder.num_bytes == 0


def test_closing_ends_the_work(
    model: TransformersLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwards = []
    inner = model.loaded.model.model
    forward = inner.forward
    monkeypatch.setattr(inner, "forward", lambda *a, **k: forwards.append(1) or forward(*a, **k))
    with closing(model.generate(asked(images(1), max_tokens=200))) as stream:
        for _ in range(6):
            assert isinstance(next(stream), Chunk)
        before = len(forwards)
    assert len(forwards) == before <= 6


def test_a_prompt_beyond_the_models_reach_fails_with_both_numbers(
    model: TransformersLanguageModel,
) -> None:
    with pytest.raises(LanguageModelError, match=r"reads at most 8192 tokens, got a prompt of"):
        next(model.generate(asked([], max_tokens=8_192)))


def test_running_out_of_memory_is_a_failed_completion(
    model: TransformersLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(*_: Any, **__: Any) -> None:
        torch.empty(2**60)  # as the host's own system says it

    monkeypatch.setattr(model.loaded.model.model, "forward", hungry)
    with pytest.raises(LanguageModelError, match="ran out of memory over a prompt of"):
        list(model.generate(asked([])))


def test_characters_of_several_tokens_come_whole() -> None:
    tokenizer = tiny_tokenizer()
    writer = CompletionText(decoder_of(tokenizer))
    said = "é→🙂 end"
    pieces = [writer.feed(token) for token in tokenizer(said).input_ids]
    assert "".join(pieces) + writer.finish() == said
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    assert "" in pieces
    assert writer.feed(tokenizer("é").input_ids[0]) == ""
    assert writer.finish() == "\N{REPLACEMENT CHARACTER}"
    assert writer.feed(tokenizer.convert_tokens_to_ids(IMAGE)) == ""


@pytest.mark.parametrize("precision", [Precision.NF4, Precision.INT8, Precision.BF16])
def test_lower_precisions_answer_and_take_less(
    folder: Path, exact: LoadedVlm, precision: Precision
) -> None:
    loaded = load_vlm(str(folder), precision=precision, device="cpu")
    assert loaded.num_bytes < exact.num_bytes
    model = TransformersLanguageModel(loaded)
    request = asked(images(2))
    assert texts(model, request) == texts(model, request)
    kinds = {type(module).__name__ for module in loaded.model.model.language_model.modules()}
    wanted = {
        Precision.NF4: "Linear4bit",
        Precision.INT8: "Linear8bitLt",
        Precision.BF16: "Linear",
    }
    assert wanted[precision] in kinds
    assert not {"Linear4bit", "Linear8bitLt"} & {
        type(module).__name__ for module in loaded.model.model.visual.modules()
    }


def test_more_memory_than_allowed_is_refused_with_both_numbers(folder: Path) -> None:
    needed = estimated_bytes(
        load_vlm(str(folder), precision=Precision.BF16).model.config, Precision.NF4
    )
    load_vlm(str(folder), precision=Precision.NF4, max_memory_mb=needed / 1e6 + 0.1)
    with pytest.raises(
        ConfigError, match=rf"needs some {needed / 1e6:.0f} MB, max_memory_mb allows 0.5"
    ):
        load_vlm(str(folder), precision=Precision.NF4, max_memory_mb=0.5)


def test_weights_are_fetched_from_the_hub_only_if_they_will_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[list[str]] = []

    def snapshot(name: str, allow_patterns: list[str]) -> str:
        assert name == "owner/tiny"
        fetched.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr("foreseg_torch.vlm.loading.snapshot_download", snapshot)
    with pytest.raises(ConfigError, match=r"owner/tiny as nf4 needs some \d MB"):
        load_vlm("owner/tiny", max_memory_mb=0.5)
    assert len(fetched) == 1
    assert "*.safetensors" not in fetched[0]
    assert load_vlm("owner/tiny", precision=Precision.BF16).name == "owner/tiny"
    assert "*.safetensors" in fetched[2]


def test_folders_that_hold_no_such_model_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model at"):
        load_vlm(str(tmp_path / "nothing"))
    with pytest.raises(InputError, match=r"has no config\.json"):
        load_vlm(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="is a 'bert': wanted is a model of the Qwen-VL kind"):
        load_vlm(str(tmp_path))
    with pytest.raises(ConfigError, match="device wants auto, cpu, cuda"):
        load_vlm(str(folder), device="tpu")


@pytest.mark.parametrize(
    "damage", ["cut", "lacking", "template", "heads", "tokenizer.json", "preprocessor_config.json"]
)
def test_damaged_folders_are_refused(tmp_path: Path, damage: str) -> None:
    folder = save_tiny_vlm(tmp_path / "model")
    weights = folder / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "lacking":
        weights.unlink()
    elif damage == "template":
        (folder / "chat_template.jinja").unlink()
    elif damage == "heads":
        config = json.loads((folder / "config.json").read_text())
        config["text_config"]["hidden_size"] = 63
        (folder / "config.json").write_text(json.dumps(config))
    else:
        (folder / damage).write_text('{"image_mean": 0.5, "image_std": 0.5}')
    with pytest.raises(InputError, match=str(folder)):
        load_vlm(str(folder), precision=Precision.BF16, max_memory_mb=1000)


def test_other_quantisations_are_named_and_refused(tmp_path: Path) -> None:
    folder = save_tiny_vlm(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="quantised with 'awq': only bitsandbytes"):
        load_vlm(str(folder))
