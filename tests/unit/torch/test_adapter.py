# SPDX-License-Identifier: Apache-2.0
"""A model answers with its adapter and samples without it, on the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="a model needs it: pip install 'foreseg[vlm]'")
peft = pytest.importorskip("peft", reason="adapters are PEFT's: the extra [train]")
for name in ("transformers", "accelerate", "cv2"):
    pytest.importorskip(name, reason="a model needs it: pip install 'foreseg[vlm]'")

from tests.support.tiny_vlm import save_tiny_vlm  # noqa: E402

from foreseg.errors import InputError  # noqa: E402
from foreseg.language.base import LanguageRequest, Message, Role  # noqa: E402
from foreseg_torch.vlm.adapter import WithoutAdapter, load_adapter  # noqa: E402
from foreseg_torch.vlm.language_model import TransformersLanguageModel  # noqa: E402
from foreseg_torch.vlm.loading import LoadedVlm, Precision, load_vlm  # noqa: E402

pytestmark = pytest.mark.filterwarnings(  # peft asks transformers 5.23 by its older names
    "ignore:.*checkpointing.* is deprecated:FutureWarning"
)
IMAGE = np.full((56, 56, 3), 90, np.uint8)
REQUEST = LanguageRequest(
    messages=(Message(role=Role.USER, content=("<0>", IMAGE, "what falls?")),), max_tokens=8
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_vlm(tmp_path_factory.mktemp("model") / "tiny")


def loaded(folder: Path) -> LoadedVlm:
    return load_vlm(str(folder), precision=Precision.FP32, device="cpu")


def adapter_in(folder: Path, base: Path, targets: str) -> Path:
    """An adapter that changes what is said."""
    torch.manual_seed(3)
    config = peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
    model: Any = peft.get_peft_model(loaded(base).model, config)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if ".lora_" in parameter_name:
                parameter.mul_(20.0)
    model.save_pretrained(folder)
    return folder


def said(model: Any) -> str:
    return "".join(chunk.text for chunk in model.generate(REQUEST))


def test_the_sampler_says_what_the_untuned_model_says(folder: Path, tmp_path: Path) -> None:
    before = said(TransformersLanguageModel(loaded(folder)))
    tuned = loaded(folder)
    adapted = load_adapter(tuned, adapter_in(tmp_path, folder, r".*language_model.*\.[qv]_proj"))
    model = TransformersLanguageModel(tuned)
    sampler = WithoutAdapter(model, adapted)
    after = said(model)
    assert after != before
    assert said(sampler) == before
    assert said(model) == after  # the adapter is back


def test_a_stream_that_is_closed_brings_the_adapter_back(folder: Path, tmp_path: Path) -> None:
    tuned = loaded(folder)
    adapted = load_adapter(tuned, adapter_in(tmp_path, folder, r".*language_model.*\.[qv]_proj"))
    model = TransformersLanguageModel(tuned)
    after = said(model)
    stream = WithoutAdapter(model, adapted).generate(REQUEST)
    next(stream)
    stream.close()
    assert said(model) == after


def test_what_is_no_adapter_of_the_language_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"wants a folder with adapter_config\.json and"):
        load_adapter(loaded(folder), tmp_path)
    seeing = adapter_in(tmp_path / "seeing", folder, r".*visual.*\.(qkv|proj)")
    with pytest.raises(InputError, match="adapts the vision tower"):
        load_adapter(loaded(folder), seeing)
