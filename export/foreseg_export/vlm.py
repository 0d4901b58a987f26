# SPDX-License-Identifier: Apache-2.0
"""Makes a folder with a quantised vision-language model: quantise, save, hash, compare.

It is saved before it has computed anything: on a CPU the first forward repacks 4-bit weights, and
what is saved after it is corrupt.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.metadata
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from foreseg.engines.manifest import sha256_of
from foreseg.errors import EngineError, InputError
from foreseg.reasoner.prompt_card import CARD, read_card
from foreseg.reasoner.recipe import RECIPE, read_recipe
from foreseg_export.vlm_quality import NOT_COMPARED, ValidationSet, measured_quality
from foreseg_torch.new_folder import new_folder
from foreseg_torch.vlm.loading import MB, LoadedVlm, Precision, load_vlm, quiet
from foreseg_torch.vlm.manifest import (
    FORMAT_VERSION,
    Quality,
    VlmManifest,
    files_of,
    write_vlm_manifest,
)

PRECISIONS = (Precision.NF4.value, Precision.INT8.value)
REPORT_NAME = "quality.md"

_EXPORTERS = ("torch", "transformers", "bitsandbytes", "accelerate")


@dataclass(frozen=True, slots=True, kw_only=True)
class VlmExportOptions:
    """What to make."""

    name: str
    precision: Precision
    device: str = "auto"
    max_tokens: int = 256  # of each completion that is compared


def export_vlm(
    source: str,
    out: Path,
    options: VlmExportOptions,
    asked: ValidationSet | None,
    report: Callable[[str], None] = lambda _: None,
) -> VlmManifest:
    """Quantise a model into the new folder `out`.

    Args:
        source: a folder, or `owner/name` on the hub.
        out: must not exist, or be an empty folder.
        options: what to make.
        asked: what it is compared with its source on; None: not at all.
        report: is told each step.

    Raises:
        InputError: no usable model, one that is quantised already, or `out` exists.
    """
    with new_folder(out) as folder:
        start = time.monotonic()
        model = load_vlm(source, precision=options.precision, device=options.device)
        if model.is_stored:
            msg = f"{source} is quantised already, to {options.precision.value}"
            raise InputError(msg)
        took = time.monotonic() - start
        report(f"quantised {model.name} to {options.precision.value} in {took:.1f} s")
        save_quantised(model, folder)
        card = read_card(model.folder)
        if card is not None:
            (folder / CARD).write_text(card.to_json(), encoding="utf-8")
            report(f"kept {CARD}: the robot asks as it was trained, {card.method}, {card.form}")
        if (model.folder / RECIPE).is_file():
            read_recipe(model.folder / RECIPE)  # refused here rather than on the robot
            shutil.copyfile(model.folder / RECIPE, folder / RECIPE)
            report(f"kept {RECIPE}: the robot asks by it")
        manifest = _manifest(model, folder, options)
        write_vlm_manifest(folder, manifest)
        report(f"saved {_num_bytes(manifest) / MB:.2f} MB; weights take {_weights(model)} loaded")
        del model  # two more are to be loaded
        if asked is not None:
            manifest = _with_quality(source, folder, manifest, options, asked, report)
    return manifest


def save_quantised(loaded: LoadedVlm, folder: Path) -> None:
    """Write model, tokenizer and image settings into a folder.

    Raises:
        EngineError: the model has computed something, and its weights are repacked.
    """
    states = (getattr(weight, "quant_state", None) for weight in loaded.model.parameters())
    if any(getattr(state, "packing_format_for_cpu", False) for state in states):
        msg = (
            f"{loaded.name} wants to be saved before its first forward: its weights are repacked,"
            " and what is saved of them would be corrupt"
        )
        raise EngineError(msg)
    geometry = loaded.geometry
    settings = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "image_mean": geometry.mean,
        "image_std": geometry.std,
        "patch_size": geometry.patch_px,
        "temporal_patch_size": geometry.temporal_patch,
        "merge_size": geometry.merge,
    }
    with quiet():
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
    text = json.dumps(settings, indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")


def report_text(manifest: VlmManifest) -> str:
    """The quality of a quantised model as Markdown."""
    lines = [
        f"# {manifest.name}: {manifest.precision} of {manifest.source_name}",
        "",
        (
            f"{manifest.num_parameters / 1e6:.1f} M parameters, made with"
            f" {', '.join(manifest.exporters)}."
        ),
    ]
    for quality in manifest.quality:
        lines += [
            "",
            f"## Against {quality.reference}: {quality.validation_set}",
            "",
            (
                f"{quality.num_prompts} prompts of the method veason, greedy;"
                f" the reference answered {quality.num_answers} of them in the method's grammar."
            ),
            "",
            "| What agrees | Share |",
            "|---|---|",
            f"| verdict: targets, no target, or no answer | {_share(quality.verdict_agreement)} |",
            f"| keyframe, where both found targets | {_share(quality.keyframe_agreement)} |",
            f"| boxes (IoU), where the keyframe is the same | {_share(quality.box_iou)} |",
            f"| most probable next token, of {quality.tokens} | {_share(quality.token_agreement)} |",
            "",
            (
                f"Mean divergence of the next token's distribution: {quality.mean_kl:.4f} nats."
                f" Memory of the weights: {quality.bytes_ratio:.2f} of the reference's."
            ),
        ]
    return "\n".join(lines) + "\n"


def _with_quality(
    source: str,
    folder: Path,
    manifest: VlmManifest,
    options: VlmExportOptions,
    asked: ValidationSet,
    report: Callable[[str], None],
) -> VlmManifest:
    """Load what was saved as a user would, hold it against the source, and write the report."""
    quantised = load_vlm(str(folder), device=options.device)
    reference = load_vlm(source, precision=Precision.BF16, device=options.device)
    quality = measured_quality(reference, quantised, asked, max_tokens=options.max_tokens)
    manifest = dataclasses.replace(manifest, quality=(quality,))
    text = report_text(manifest)
    (folder / REPORT_NAME).write_text(text, encoding="utf-8")
    manifest = dataclasses.replace(manifest, files=files_of(folder))
    write_vlm_manifest(folder, manifest)
    report(_told(quality))
    return manifest


def _told(quality: Quality) -> str:
    return (
        f"against {quality.reference} over {quality.num_prompts} prompts:"
        f" verdict {_share(quality.verdict_agreement)}, keyframe"
        f" {_share(quality.keyframe_agreement)}, box IoU {_share(quality.box_iou)},"
        f" tokens {_share(quality.token_agreement)}, KL {quality.mean_kl:.4f} nats,"
        f" memory {quality.bytes_ratio:.2f}"
    )


def _manifest(loaded: LoadedVlm, folder: Path, options: VlmExportOptions) -> VlmManifest:
    return VlmManifest(
        format_version=FORMAT_VERSION,
        name=options.name,
        precision=options.precision.value,
        source_name=loaded.name,
        source_sha256=sha256_of(loaded.folder),
        num_parameters=loaded.model.num_parameters(),
        files=files_of(folder),
        exporters=tuple(f"{name} {importlib.metadata.version(name)}" for name in _EXPORTERS),
        created=dt.datetime.now(tz=dt.timezone.utc).isoformat(timespec="seconds"),
        quality=(),
    )


def _num_bytes(manifest: VlmManifest) -> int:
    return sum(file.num_bytes for file in manifest.files)


def _weights(loaded: LoadedVlm) -> str:
    return f"{loaded.num_bytes / MB:.2f} MB"


def _share(value: float) -> str:
    return "not compared" if value == NOT_COMPARED else f"{value:.3f}"
