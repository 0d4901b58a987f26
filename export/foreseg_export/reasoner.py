# SPDX-License-Identifier: Apache-2.0
"""Makes the bundle of a nano reasoner: trace, lower, hold against the torch model, hash.

The lowest precision whose greedy answers to the golden prompts are the torch model's, letter by
letter, is kept. The same folder gives the same bytes. Does not know how the model was trained.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from foreseg.dialogue import Query, QueryId
from foreseg.engines.manifest import sha256_of
from foreseg.engines.onnx import OnnxEngine
from foreseg.errors import EngineError, InputError
from foreseg.language.base import LanguageModel, LanguageRequest, Message, Role
from foreseg.language.images import F32Array
from foreseg.methods.base import AnswerStep
from foreseg.nano.bundle import (
    CALIBRATION,
    DECODER,
    FAMILIAR,
    FAMILY,
    FILES,
    FORMAT_VERSION,
    TOKENIZER,
    VISION,
    Agreement,
    DecoderGeometry,
    NanoManifest,
    files_of,
    read_nano_bundle,
    write_nano_manifest,
)
from foreseg.nano.language_model import OnnxLanguageModel
from foreseg.nano.reasoner import method_of_card
from foreseg.nano.seeing import VisionEncoder
from foreseg.nano.words import chat_text
from foreseg.reasoner.calibration import read_calibration, write_calibration
from foreseg.reasoner.prompt_card import (
    CARD,
    PromptCard,
    check_trained,
    read_card,
)
from foreseg_export.familiar import familiar_from, means_of_images, means_of_pictures
from foreseg_export.graphs import export_piece
from foreseg_export.plain_drawings import plain_drawings
from foreseg_export.reasoner_graphs import DecoderGraph, VisionGraph, graph_specs
from foreseg_export.reasoner_precision import PRECISIONS, lower
from foreseg_export.vlm_quality import ValidationSet
from foreseg_torch.new_folder import new_folder
from foreseg_torch.vlm.language_model import TransformersLanguageModel
from foreseg_torch.vlm.loading import LoadedVlm, Precision, load_vlm
from foreseg_torch.vlm.vision_inputs import prompt_from_messages

LICENCE = "Apache-2.0"
NUM_DRAWINGS = 1500  # that are told from the training's frames, where other pictures are
_EXPORTERS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonerExportOptions:
    """What to make.

    Attributes:
        name: of the bundle.
        licence: of the weights, as an SPDX expression.
        precision: the lowest to try, one of `PRECISIONS`.
        max_tokens: of each golden completion.
        seen: `.npy` of what the tower saw in training, (frames, tokens, C): pictures unlike it are
            left to another reasoner; None: none are.
        unlike: folders of pictures that it is not for, such as photographs; only beside `seen`.
        calibration: of the confidences, as `foreseg-eval --fit-calibration` writes it; None: they stay.
    """

    name: str
    licence: str = LICENCE
    precision: str = "int8"
    max_tokens: int = 64
    seen: Path | None = None
    unlike: tuple[Path, ...] = ()
    calibration: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Golden:
    """What the torch model answers."""

    requests: tuple[LanguageRequest, ...]
    texts: tuple[str, ...]
    log_probs: tuple[tuple[float, ...], ...]


def export_reasoner(
    source: Path,
    out: Path,
    options: ReasonerExportOptions,
    asked: ValidationSet,
    report: Report = lambda _: None,
) -> NanoManifest:
    """Make the new folder `out` of a trained folder.

    Args:
        source: as `foreseg-train nano` leaves it, with its card.
        out: must not exist, or be an empty folder.
        options: what to make.
        asked: the golden prompts.
        report: is told each step.

    Raises:
        InputError: no usable model, or `out` exists.
        ConfigError: the card is of other words than this version's, or no calibration there.
        EngineError: no precision gives the torch model's answers.
    """
    card = read_card(source)
    if card is None:
        msg = f"{source} wants a {CARD} that says how it was trained to be asked, it has none"
        raise InputError(msg)
    check_trained(card)
    calibration = None if options.calibration is None else read_calibration(options.calibration)
    loaded = load_vlm(str(source), precision=Precision.FP32, device="cpu")
    _check_model(loaded, source)
    golden = _golden(loaded, card, asked, options)
    report(f"the torch model answered {len(golden.texts)} prompts")
    with new_folder(out) as folder:
        graphs = {VISION: VisionGraph(loaded.model), DECODER: DecoderGraph(loaded.model)}
        specs = graph_specs(loaded.model)
        for name, graph in graphs.items():
            start = time.monotonic()
            export_piece(graph.eval(), specs[name.removesuffix(".onnx")], folder / f"fp32-{name}")
            report(f"traced {name} in {time.monotonic() - start:.1f} s")
        shutil.copyfile(source / TOKENIZER, folder / TOKENIZER)
        (folder / CARD).write_text(card.to_json(), encoding="utf-8")
        draft = _draft(loaded, source, options)
        if options.seen is not None:
            draft = _familiar(folder, options.seen, draft, card, options, report)
        if calibration is not None:
            write_calibration(folder / CALIBRATION, calibration)
        manifest = _lowest(folder, draft, card, golden, options, report)
        for name in graphs:
            (folder / f"fp32-{name}").unlink()
    return manifest


def _familiar(
    folder: Path,
    seen: Path,
    draft: NanoManifest,
    card: PromptCard,
    options: ReasonerExportOptions,
    report: Report,
) -> NanoManifest:
    """Write what the bundle is to know of pictures, beside its traced graphs."""
    others, drawings = _others(folder / f"fp32-{VISION}", draft, card, options.unlike)
    statistics, limits = familiar_from(seen, draft.decoder.channels, others, drawings)
    np.save(folder / FAMILIAR, statistics)
    beside = (
        ""
        if others is None or drawings is None
        else f", parted from {len(others)} others and {len(drawings)} plain drawings at {limits.lean:.1f}"
    )
    report(
        f"answers about pictures at a distance of up to {limits.distance:.2f} from the training's{beside}"
    )
    return dataclasses.replace(draft, familiar=limits)


def _others(
    vision: Path, draft: NanoManifest, card: PromptCard, folders: Sequence[Path]
) -> tuple[F32Array, F32Array] | tuple[None, None]:
    """What the tower makes of pictures that the reasoner is not for, and of plain drawings; None where there are no pictures."""
    if not folders:
        return None, None
    encoder = VisionEncoder(
        OnnxEngine("vision", vision.read_bytes()),
        draft.images,
        window_px=draft.window_px,
        frame_pixels=card.frame_pixels,
        max_bytes=0,
    )
    others = np.concatenate([means_of_pictures(encoder, folder) for folder in folders])
    return others, means_of_images(encoder, plain_drawings(NUM_DRAWINGS))


def _lowest(
    folder: Path,
    draft: NanoManifest,
    card: PromptCard,
    golden: _Golden,
    options: ReasonerExportOptions,
    report: Report,
) -> NanoManifest:
    """Fill the folder with the lowest precision that answers as the torch model does.

    Raises:
        EngineError: none does.
    """
    names = FILES if draft.familiar is None else (*FILES, FAMILIAR)
    names = (*names, CALIBRATION) if options.calibration is not None else names
    for precision in PRECISIONS[PRECISIONS.index(options.precision) :]:
        for name in (VISION, DECODER):
            lower(folder / f"fp32-{name}", folder / name, precision)
        files = files_of(folder, names)
        manifest = dataclasses.replace(draft, precision=precision, files=files)
        write_nano_manifest(folder, manifest)
        model = OnnxLanguageModel(read_nano_bundle(folder), frame_pixels=card.frame_pixels)
        agreement = _agreement(model, golden)
        size = sum(file.num_bytes for file in files) / 1e6
        report(
            f"{precision}: {size:.2f} MB, {agreement.same} of {agreement.prompts} answers equal,"
            f" log-probabilities within {agreement.max_log_prob:.4f}"
        )
        if agreement.same == agreement.prompts:
            manifest = dataclasses.replace(manifest, agreement=agreement)
            write_nano_manifest(folder, manifest)
            return manifest
    msg = f"{draft.name}: no precision gave the torch model's answers to all golden prompts"
    raise EngineError(msg)


def _agreement(model: LanguageModel, golden: _Golden) -> Agreement:
    same, worst = 0, 0.0
    for request, text, log_probs in zip(
        golden.requests, golden.texts, golden.log_probs, strict=True
    ):
        found, numbers = _said(model, request)
        if found == text and len(numbers) == len(log_probs):
            same += 1
            worst = max([worst, *(abs(a - b) for a, b in zip(numbers, log_probs, strict=True))])
    return Agreement(
        reference=f"transformers {importlib.metadata.version('transformers')}, torch {torch.__version__}",
        prompts=len(golden.texts),
        same=same,
        tokens=sum(map(len, golden.log_probs)),
        max_log_prob=round(worst, 6),
    )


def _said(model: LanguageModel, request: LanguageRequest) -> tuple[str, tuple[float, ...]]:
    text = ""
    log_probs: list[float] = []
    for chunk in model.generate(request):
        text += chunk.text
        log_probs += chunk.log_probs
    return text, tuple(log_probs)


def _golden(
    loaded: LoadedVlm, card: PromptCard, asked: ValidationSet, options: ReasonerExportOptions
) -> _Golden:
    """Ask the torch model as the robot will."""
    method, _ = method_of_card(card, loaded.geometry.unit_px)
    model = TransformersLanguageModel(loaded, frame_pixels=card.frame_pixels)
    requests: list[LanguageRequest] = []
    said = []
    for window in asked.windows:
        for text in asked.queries:
            query = Query(id=QueryId(f"golden-{len(requests)}"), text=text)
            step = next(method.plan(query, window))
            if not isinstance(step, AnswerStep):
                msg = f"a nano reasoner answers at once, the method {card.method} asks before it does"
                raise InputError(msg)
            request = dataclasses.replace(step.request, max_tokens=options.max_tokens)
            _check_template(loaded, request.messages)
            requests.append(request)
            said.append(_said(model, request))
    texts, log_probs = zip(*said, strict=True)
    return _Golden(requests=tuple(requests), texts=texts, log_probs=log_probs)


def _check_template(loaded: LoadedVlm, messages: Sequence[Message]) -> None:
    """Raises InputError unless the runtime writes a chat as the model's own template does."""
    image_token = loaded.geometry.image_token
    several = (
        Message(role=Role.SYSTEM, content=("See.",)),
        *messages,
        Message(role=Role.ASSISTANT, content=("a <|im_end|> b",)),
    )
    tokens = {*loaded.tokenizer.all_special_tokens, image_token}
    ours = chat_text(several, image_token, tokens)
    theirs = prompt_from_messages(several, loaded.tokenizer, loaded.geometry)
    if ours != theirs:
        msg = f"{loaded.name} wants a chat template of ChatML with Qwen's images, its own differs"
        raise InputError(msg)


def _check_model(loaded: LoadedVlm, source: Path) -> None:
    config = loaded.model.config
    text = config.text_config
    for wanted, is_so in (
        ("a Qwen2.5-VL", config.model_type == FAMILY),
        ("plain rotary positions", text.rope_parameters.get("rope_type") == "default"),
        ("no sliding window", set(text.layer_types) == {"full_attention"}),
        (f"a {TOKENIZER}", (source / TOKENIZER).is_file()),
    ):
        if not is_so:
            msg = f"{source} cannot become a nano reasoner: wanted is {wanted}"
            raise InputError(msg)


def _draft(loaded: LoadedVlm, source: Path, options: ReasonerExportOptions) -> NanoManifest:
    text = loaded.model.config.text_config
    decoder = DecoderGeometry(
        layers=text.num_hidden_layers,
        heads=text.num_key_value_heads,
        head_channels=text.hidden_size // text.num_attention_heads,
        channels=text.hidden_size,
        vocabulary=text.vocab_size,
        max_tokens=text.max_position_embeddings,
        end_ids=tuple(sorted(loaded.end_ids)),
    )
    unmeasured = Agreement(reference="", prompts=0, same=0, tokens=0, max_log_prob=0.0)
    return NanoManifest(
        format_version=FORMAT_VERSION,
        family=FAMILY,
        name=options.name,
        licence=options.licence,
        source_name=loaded.name,
        source_sha256=sha256_of(source),
        precision="fp32",
        images=loaded.geometry,
        window_px=loaded.model.config.vision_config.window_size,
        decoder=decoder,
        familiar=None,
        agreement=unmeasured,
        exporters=tuple(f"{name} {importlib.metadata.version(name)}" for name in _EXPORTERS),
        files=(),
    )
