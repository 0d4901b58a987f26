# SPDX-License-Identifier: Apache-2.0
"""Loads vision-language models of the Qwen-VL and InternVL kinds with `transformers`, quantised or not.

A model is a folder that `transformers` saved, one that `foreseg-export vlm` made (its hashes are
verified), or `owner/name` on the model hub. No code of a model is run. Knows nothing of
generation.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    BitsAndBytesConfig,
)
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import snapshot_download

from foreseg.errors import ConfigError, InputError, MissingExtraError
from foreseg.language.images import ImageGeometry
from foreseg.texts import first_names
from foreseg_torch.hub import HUB_ID, told_of_hub
from foreseg_torch.json_file import read_json_object
from foreseg_torch.vlm.manifest import MANIFEST_NAME, verified_manifest
from foreseg_torch.vlm.square_images import SquareGeometry
from foreseg_torch.vlm.weight_files import (
    MAX_LISTED,
    WEIGHTS,
    check_has_weights,
    refuse_adapters,
    refuse_other_weights,
)

CONTEXT_TOKENS = 4_096  # the estimate of memory holds keys and values of so many
MB = 1e6
NOT_QUANTISED = (  # small, and what they say is fragile
    *("model.visual", "lm_head"),
    *("model.vision_tower", "model.multi_modal_projector"),  # of InternVL
)
INTERNVL = "internvl"
PUBLISHED = "sa2va_chat"  # the model_type of all of Sa2VA's exports
FRAME_MARK = "<img>"  # InternVL's, around the tokens of a frame

SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "quality.md")
_MAX_QUOTED = 300  # characters of another library's message
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# how a family's own processor normalises where the folder does not say it
_NORMALISATION = {"qwen2": _CLIP, "qwen3": _HALF, INTERNVL: _IMAGENET}

_LOG = logging.getLogger(__name__)


class Precision(Enum):
    """Of a model's weights in memory; arithmetic is in bfloat16, except with fp32."""

    NF4 = "nf4"  # 4 bits a weight, in blocks of 64
    INT8 = "int8"
    BF16 = "bf16"
    FP32 = "fp32"

    @property
    def is_quantised(self) -> bool:
        """True for what needs bitsandbytes."""
        return self in (Precision.NF4, Precision.INT8)

    @property
    def dtype(self) -> torch.dtype:
        """Of what is not quantised."""
        return torch.float32 if self is Precision.FP32 else torch.bfloat16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedVlm:
    """A model in evaluation mode, with what belongs to it."""

    model: Any  # of transformers, for conditional generation
    tokenizer: Any
    geometry: ImageGeometry
    name: str
    folder: Path
    precision: Precision
    is_stored: bool  # in this precision in its folder, not only in memory
    device: torch.device
    stop_strings: tuple[str, ...] = ()  # text that ends a completion, beside the end tokens

    @property
    def num_bytes(self) -> int:
        """What the weights take in memory."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return sum(t.numel() * t.element_size() for t in tensors) + _num_state_bytes(self.model)

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a completion."""
        ids = self.model.generation_config.eos_token_id
        ids = self.tokenizer.eos_token_id if ids is None else ids
        return frozenset(ids if isinstance(ids, list) else [ids])


def load_vlm(
    where: str,
    *,
    precision: Precision | None = None,
    otherwise: Precision = Precision.NF4,
    device: str = "auto",
    max_memory_mb: float = 0.0,
) -> LoadedVlm:
    """Load a model.

    Args:
        where: a folder, or `owner/name` on the hub.
        precision: None: a quantised folder's own, else `otherwise`.
        otherwise: where neither the caller nor the folder says one.
        device: "auto" takes the GPU where there is one.
        max_memory_mb: refuse what is estimated to need more; 0: no limit.

    Raises:
        ConfigError: no such device, or more memory needed than allowed.
        InputError: no usable model there, or not in this precision.
        EngineError: a quantised folder that was changed since it was made.
        MissingExtraError: bitsandbytes or accelerate is absent.
    """
    place = _device(device)
    folder = model_folder(where, SMALL_FILES)
    config = read_config(folder)
    stored = stored_precision(config, folder)
    precision = precision or stored or otherwise
    if stored not in (None, precision):
        msg = f"{where} is quantised to {stored.value}: it cannot be had as {precision.value}"
        raise InputError(msg)
    if precision.is_quantised:
        _check_quantiser()
    if max_memory_mb:
        _check_fits(where, folder, config, precision, max_memory_mb)
    if not Path(where).is_dir():
        folder = model_folder(where, (*SMALL_FILES, WEIGHTS))
    check_has_weights(folder)
    if (folder / MANIFEST_NAME).exists():
        verified_manifest(folder)
    tokenizer = read_tokenizer(folder)
    geometry = _geometry(config, tokenizer, folder)
    model = _model(folder, config, precision, place, is_stored=stored is not None)
    _check_rows(where, tokenizer, model)
    name = folder.resolve().name if Path(where).is_dir() else where
    loaded = LoadedVlm(
        model=model,
        tokenizer=tokenizer,
        geometry=geometry,
        name=name,
        folder=folder,
        precision=precision,
        is_stored=stored is not None,
        device=place,
    )
    _LOG.info(
        "%s as %s on %s: %.0f MB of weights", name, precision.value, place, loaded.num_bytes / MB
    )
    return loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class VlmParts:
    """What belongs to a model without its weights."""

    config: Any  # of transformers
    tokenizer: Any
    geometry: ImageGeometry


def vlm_parts(folder: Path) -> VlmParts:
    """Read what a trainer needs beside the weights, which it loads itself.

    Raises:
        InputError: no model of the Qwen-VL kind.
    """
    config = read_config(folder)
    if config.model_type == INTERNVL:
        msg = f"{folder} is of the InternVL kind: it is run here, not trained"
        raise InputError(msg)
    tokenizer = read_tokenizer(folder)
    return VlmParts(
        config=config, tokenizer=tokenizer, geometry=_geometry(config, tokenizer, folder)
    )


def read_config(folder: Path) -> Any:  # noqa: ANN401 (a configuration of transformers)
    """The configuration of a model of the Qwen-VL or InternVL kind.

    Raises:
        InputError: there is none, or it is of another kind.
    """
    if not (folder / "config.json").is_file():
        msg = f"{folder} is no folder that transformers saved: it has no config.json"
        if (folder / "vlm" / "config.json").is_file():
            msg = (
                f"{folder} is a model that segments, of visa or fevos: wanted here is a language"
                " model alone, of veason or videoseg"
            )
        raise InputError(msg)
    if read_json_object(folder / "config.json").get("model_type") == PUBLISHED:
        msg = (
            f"{folder} is as Sa2VA's code exports it: convert it once (foreseg-export seg --from"
            f" {folder} --out NEW), and give the new folder, with the method sa2va"
        )
        raise InputError(msg)
    with quiet(), loading(folder):
        config = AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    vision = getattr(config, "vision_config", None)
    if config.model_type == INTERNVL:
        return config
    wanted = ("patch_size", "temporal_patch_size", "spatial_merge_size")
    lacks = [name for name in wanted if not isinstance(getattr(vision, name, None), int)]
    if lacks or not isinstance(getattr(config, "image_token_id", None), int):
        msg = (
            f"{folder} is a {config.model_type!r}: wanted is a model of the Qwen-VL kind, with"
            f" image_token_id and a vision_config with {', '.join(wanted)}, or an InternVL"
        )
        raise InputError(msg)
    return config


def stored_precision(config: Any, folder: Path) -> Precision | None:  # noqa: ANN401
    """The precision that a folder's weights are quantised to; None if they are not.

    Raises:
        InputError: quantised in a way that is not supported.
    """
    quantisation = getattr(config, "quantization_config", None)
    if quantisation is None:
        return None
    if not isinstance(quantisation, dict):
        quantisation = quantisation.to_dict()
    if quantisation.get("load_in_4bit") and quantisation.get("bnb_4bit_quant_type") == "nf4":
        return Precision.NF4
    if quantisation.get("load_in_8bit"):
        return Precision.INT8
    msg = (
        f"{folder} is quantised with {quantisation.get('quant_method')!r}: only bitsandbytes nf4"
        " and int8 are loaded here; serve others, and use the reasoner openai:FILE"
    )
    raise InputError(msg)


def estimated_bytes(config: Any, precision: Precision) -> int:  # noqa: ANN401
    """What a model needs in memory: its weights, and keys and values of `CONTEXT_TOKENS`."""
    with quiet(), torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    small = {Precision.NF4: 0.5625, Precision.INT8: 1.0}  # 4 bits, and 4 bytes for each 64
    size = precision.dtype.itemsize
    total = sum(parameter.numel() * size for parameter in model.parameters())
    if precision in small:
        total -= sum(
            round(module.weight.numel() * (size - small[precision]))
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and not name.startswith(NOT_QUANTISED)
        )
    text = config.get_text_config()
    heads = text.num_key_value_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return total + CONTEXT_TOKENS * text.num_hidden_layers * 2 * heads * head * size


def quantisation(precision: Precision) -> BitsAndBytesConfig | None:
    """How `transformers` is told to quantise."""
    skipped = list(NOT_QUANTISED)
    if precision is Precision.NF4:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=skipped,
        )
    if precision is Precision.INT8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the advice of `transformers`; its bars only where somebody watches."""
    level, has_bars = transformers_logging.get_verbosity(), sys.stderr.isatty()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    if not has_bars:
        transformers_logging.disable_progress_bar()
    # It advises about an optional package, and warns of each cast in each layer.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if had_bars and not has_bars:
            transformers_logging.enable_progress_bar()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        msg = f"device wants auto, cpu, cuda or cuda:N, got {name!r}"
        raise ConfigError(msg)
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        msg = f"device {name!r} is not at hand: torch sees {torch.cuda.device_count()} GPUs"
        raise ConfigError(msg)
    return device


def model_folder(where: str, patterns: tuple[str, ...]) -> Path:
    """The folder of a model; from the hub, or its cache, if it is no folder here.

    Args:
        where: a folder, or `owner/name`.
        patterns: of the files that are downloaded.

    Raises:
        InputError: neither, a folder of other weights, or the hub cannot be reached.
    """
    if Path(where).is_dir():
        refuse_other_weights(Path(where))
        return Path(where)
    if not HUB_ID.fullmatch(where):
        msg = f"no model at {where!r}: wanted is a folder, or owner/name on the model hub"
        raise InputError(msg)
    with told_of_hub(where):
        return Path(snapshot_download(where, allow_patterns=list(patterns)))


def _check_fits(
    where: str,
    folder: Path,
    config: Any,  # noqa: ANN401
    precision: Precision,
    max_memory_mb: float,
) -> None:
    with loading(folder):
        needed = estimated_bytes(config, precision)
    if needed > max_memory_mb * MB:
        msg = (
            f"{where} as {precision.value} needs some {needed / MB:.0f} MB, max_memory_mb allows"
            f" {max_memory_mb:g}: choose a smaller model or precision, or allow more"
        )
        raise ConfigError(msg)


def _check_quantiser() -> None:
    for package in ("bitsandbytes", "accelerate"):
        if importlib.util.find_spec(package) is None:
            extra = "vlm"
            raise MissingExtraError(package, extra, "a quantised model")


def read_tokenizer(folder: Path, template: str | None = None) -> Any:  # noqa: ANN401 (of transformers)
    """The tokenizer of a folder, with its chat template.

    Args:
        folder: of the model.
        template: in place of the folder's.

    Raises:
        InputError: there is none, or it wants to run code of its own.
    """
    with quiet(), loading(folder):
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    if template is not None:
        tokenizer.chat_template = template
    older = folder / "chat_template.json"  # where processors used to keep it
    if tokenizer.chat_template is None and older.is_file():
        tokenizer.chat_template = read_json_object(older).get("chat_template")
    if tokenizer.chat_template is None:
        msg = f"{folder} wants a chat template beside its tokenizer, it has none"
        raise InputError(msg)
    return tokenizer


def _geometry(config: Any, tokenizer: Any, folder: Path) -> ImageGeometry:  # noqa: ANN401
    vision = config.vision_config
    mean, std = _normalisation(config, folder)
    image_token = tokenizer.convert_ids_to_tokens(config.image_token_id)
    if image_token is None:
        msg = (
            f"{folder} wants the tokenizer of its model: the one that lies there has no token"
            f" {config.image_token_id}, which stands for an image"
        )
        raise InputError(msg)
    if config.model_type == INTERNVL:
        if FRAME_MARK not in tokenizer.chat_template:
            msg = (
                f"{folder}: its chat template leaves {FRAME_MARK} to a processor: of this kind only"
                " folders are shown frames that `foreseg-export seg --from` made"
            )
            raise InputError(msg)
        return SquareGeometry(
            patch_px=vision.patch_size[0],
            temporal_patch=1,
            merge=round(1 / config.downsample_ratio),
            mean=mean,
            std=std,
            image_token=image_token,
            image_token_id=config.image_token_id,
            side_px=vision.image_size[0],
        )
    return ImageGeometry(
        patch_px=vision.patch_size,
        temporal_patch=vision.temporal_patch_size,
        merge=vision.spatial_merge_size,
        mean=mean,
        std=std,
        image_token=image_token,
        image_token_id=config.image_token_id,
    )


_Three = tuple[float, float, float]


def _normalisation(config: Any, folder: Path) -> tuple[_Three, _Three]:  # noqa: ANN401
    """Mean and deviation of pixels: as the folder says, else as the family's processor does."""
    settings: dict[str, Any] = {}
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            found = read_json_object(folder / name)
            settings |= found.get("image_processor", found)
    family = next((f for f in _NORMALISATION if config.model_type.startswith(f)), None)
    if family is None and "image_mean" not in settings:
        msg = f"{folder} wants image_mean and image_std in preprocessor_config.json, it has none"
        raise InputError(msg)
    mean, std = _NORMALISATION[family] if family else ((), ())
    values = (settings.get("image_mean", mean), settings.get("image_std", std))
    if not all(isinstance(v, (list, tuple)) and len(v) == 3 for v in values) or not all(  # noqa: PLR2004 (RGB)
        isinstance(number, (int, float)) for value in values for number in value
    ):
        msg = f"{folder}: image_mean and image_std want three numbers each, got {values}"
        raise InputError(msg)
    return tuple(values[0]), tuple(values[1])


def _model(
    folder: Path,
    config: Any,  # noqa: ANN401
    precision: Precision,
    device: torch.device,
    *,
    is_stored: bool,
) -> Any:  # noqa: ANN401
    options: dict[str, Any] = {} if is_stored else {"quantization_config": quantisation(precision)}
    with quiet(), loading(folder):
        model, found = AutoModelForImageTextToText.from_pretrained(
            str(folder),
            config=config,
            dtype=precision.dtype,
            device_map={"": str(device)},
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    lacking, unknown = (
        sorted(str(name) for name in found[kind]) for kind in ("missing_keys", "unexpected_keys")
    )
    refuse_adapters(str(folder), unknown)
    if lacking:
        msg = (
            f"{folder} is not whole: it lacks {len(lacking)} tensors, {lacking[0]} among them:"
            " download or copy it again"
        )
        raise InputError(msg)
    if unknown:
        msg = (
            f"{folder} holds {len(unknown)} tensors that a {config.model_type!r} does not have"
            f" ({first_names(unknown, most=MAX_LISTED)}), so it is another model than its config.json says: ask its"
            " publisher for a folder that transformers loads whole"
        )
        raise InputError(msg)
    if config.model_type != INTERNVL and not hasattr(model.model, "get_rope_index"):
        msg = f"{folder} is a {config.model_type!r}, whose positions are not known here"
        raise InputError(msg)
    if "mm_encoder_outputs" not in inspect.signature(model.model.forward).parameters:
        msg = (
            f"{folder} is a {config.model_type!r}, which transformers {transformers.__version__}"
            " does not give features made before: upgrade transformers"
        )
        raise InputError(msg)
    return model.eval().requires_grad_(False)  # noqa: FBT003 (torch takes it by position)


def _check_rows(where: str, tokenizer: Any, model: Any) -> None:  # noqa: ANN401 (of transformers)
    """Fewer tokens than rows are usual, for embeddings are padded; more belong to another model."""
    num_rows = int(model.get_input_embeddings().weight.shape[0])
    if len(tokenizer) > num_rows:
        msg = (
            f"{where}: its tokenizer knows {len(tokenizer)} tokens, its embeddings have {num_rows}"
            " rows: one of the two is of another model; copy the folder again"
        )
        raise InputError(msg)


def _num_state_bytes(model: Any) -> int:  # noqa: ANN401
    """What quantised weights keep beside themselves."""
    states = (getattr(p, "quant_state", None) for p in model.parameters())
    return sum(s.absmax.numel() * s.absmax.element_size() for s in states if s is not None)


@contextlib.contextmanager
def loading(folder: Path) -> Iterator[None]:
    """What `transformers` raises for damaged files, as one sentence."""
    try:
        yield
    except (
        SafetensorError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
    ) as error:
        why = _brief(error)
        if "trust_remote_code" in str(error):
            why = (
                f"it wants to run code of its own, which is never done here: take a model that"
                f" transformers {transformers.__version__} knows itself, or put it behind a server"
                " and use the reasoner openai:FILE"
            )
        msg = f"{folder} cannot be loaded: {why}"
        raise InputError(msg) from error


def _brief(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "..."
