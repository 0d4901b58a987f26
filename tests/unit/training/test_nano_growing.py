# SPDX-License-Identifier: Apache-2.0
"""A nano reasoner that grows deeper: it says what it said, and the new layers learn."""

from __future__ import annotations

import dataclasses

import pytest

pytest.importorskip("torch", reason="trains: pip install 'foreseg[train]'")
pytest.importorskip("transformers", reason="the nano reasoner is built from transformers")

import torch
from tests.support.prepared_nano import SMALL

from foreseg_training.nano.architecture import build_nano_reasoner, grown
from foreseg_training.nano.tokenizer import train_tokenizer


def test_a_deeper_model_says_the_same_and_its_new_layers_learn() -> None:
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(["a few words, and 12 more"], [])
    model = build_nano_reasoner(dataclasses.replace(SMALL, text_layers=2), tokenizer, 0)
    deeper = grown(model, tokenizer, 3)
    ids = torch.randint(0, len(tokenizer), (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        said, again = model(input_ids=ids).logits, deeper(input_ids=ids).logits
    assert torch.allclose(said, again, atol=1e-5)
    assert deeper.config.text_config.num_hidden_layers == 3
    own = deeper.model.language_model.layers[1]
    assert not own.mlp.down_proj.weight.any()
    optimiser = torch.optim.SGD(deeper.parameters(), lr=0.1)
    deeper(input_ids=ids, labels=ids).loss.backward()
    optimiser.step()
    assert own.mlp.down_proj.weight.any()
    assert model.model.visual.state_dict().keys() == deeper.model.visual.state_dict().keys()


def test_what_has_the_layers_stays_and_none_is_taken_away() -> None:
    tokenizer = train_tokenizer(["a few words"], [])
    model = build_nano_reasoner(SMALL, tokenizer, 0)
    assert grown(model, tokenizer, SMALL.text_layers) is model
    with pytest.raises(ValueError, match="cannot grow to 1"):
        grown(model, tokenizer, 1)
