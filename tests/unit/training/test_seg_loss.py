# SPDX-License-Identifier: Apache-2.0
"""What masks cost, by hand; and a forward that decodes what its completion says."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="losses are torch's")
pytest.importorskip("cv2", reason="rows come with the robot's frames")
import torch
from tests.support.sam2_models import tiny_hiera

from foreseg_torch.seg.model import MaskHead
from foreseg_training.vlm.seg_loss import (
    MaskForward,
    MaskTruth,
    MaskWeights,
    mask_loss,
    union_logits,
)

WIDTH = 12
TOKEN = 7
BOTH = MaskWeights(bce=2.0, dice=0.5)


def test_a_mask_costs_what_it_costs_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0], [0.0, 0.0]]])
    truth = torch.tensor([[[True, False], [False, False]]])
    bce = math.log(2)
    dice = 1 - (2 * 0.5 + 1) / (2 + 1 + 1)
    found = mask_loss(logits, truth, BOTH)
    assert float(found) == pytest.approx(2 * bce + 0.5 * dice, abs=1e-6)
    assert float(mask_loss(logits, truth, MaskWeights(bce=1, dice=0))) == pytest.approx(bce)


def test_the_true_mask_costs_nothing_and_points_cost_as_pixels_do() -> None:
    truth = torch.zeros(2, 32, 32, dtype=torch.bool)
    truth[0, 8:24, 8:24] = True
    right = torch.where(truth, 30.0, -30.0)
    assert float(mask_loss(right, truth, BOTH)) == pytest.approx(0, abs=1e-6)
    assert float(mask_loss(-right, truth, BOTH)) > 50
    torch.manual_seed(0)
    vague = torch.where(truth, 1.0, -1.0)
    points = MaskWeights(bce=2.0, dice=0.0, num_points=20_000)
    whole = mask_loss(vague, truth, MaskWeights(bce=2.0, dice=0.0))
    assert float(mask_loss(vague, truth, points)) == pytest.approx(float(whole), rel=0.1)


def test_logits_of_another_size_are_enlarged() -> None:
    truth = torch.zeros(1, 64, 48, dtype=torch.bool)
    truth[:, :32] = True
    said = torch.full((1, 16, 16), -9.0)
    said[:, :8] = 9.0
    assert float(mask_loss(said, truth, BOTH)) < 0.3


class Tiny(torch.nn.Module):
    """As a model of transformers: a backbone under `model`, and an output with what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Module()
        self.model.table = torch.nn.Embedding(10, WIDTH)
        self.model.forward = lambda input_ids: SimpleNamespace(  # type: ignore[method-assign]
            last_hidden_state=self.model.table(input_ids)
        )
        self.mask_head = MaskHead(tiny_hiera(), WIDTH)

    def forward(self, input_ids: object, labels: object = None, **_: object) -> dict[str, object]:
        del labels
        hidden = self.model(input_ids=input_ids)
        return {"loss": hidden.last_hidden_state.detach().sum()}


@pytest.fixture(scope="module")
def model() -> Tiny:
    torch.manual_seed(0)
    return Tiny()


def truth(frames: int = 1) -> MaskTruth:
    masks = torch.zeros(frames, 20, 24, dtype=torch.bool)
    masks[:, :10] = True
    return MaskTruth(pixels=torch.randn(frames, 3, 64, 64), masks=masks)


def test_only_labelled_tokens_of_wanted_rows_are_decoded_and_gradients_reach_their_states() -> (
    None
):
    model = Tiny()
    forward = MaskForward(model, TOKEN, BOTH, "mask_head")
    ids = torch.tensor([[TOKEN, 1, TOKEN, 2], [TOKEN, 1, 2, 3], [1, 2, TOKEN, 3]])
    labels = ids.masked_fill(torch.tensor([[True, True, False, False]]), -100)
    forward.want([truth(2), truth(), None])
    output = model.forward(input_ids=ids, labels=labels)
    losses = forward.losses()
    assert len(losses) == 1  # the second says no token, the third is not wanted
    before = model.model.table.weight.detach()[ids].sum()
    torch.testing.assert_close(output["loss"], before)  # the cost is apart
    reached, ends = set(), [output["loss"].grad_fn]
    while ends:  # but what it uses is found from what comes out
        node = ends.pop()
        reached.add(node)
        ends += [more for more, _ in node.next_functions if more and more not in reached]
    used = {id(getattr(node, "variable", None)) for node in reached}
    assert id(model.mask_head.projection[0].weight) in used
    losses[0].backward()
    assert model.model.table.weight.grad[TOKEN].abs().sum() > 0
    assert model.mask_head.projection[0].weight.grad.abs().sum() > 0
    assert forward.losses() == []
    assert model.forward(input_ids=ids, labels=labels)["loss"].grad_fn is None
    forward.want([truth(2), None, None])
    assert model.forward(input_ids=ids)["loss"].grad_fn is None  # generation has no labels


def test_a_union_is_all_that_its_tokens_mean(model: Tiny) -> None:
    states, pixels = torch.randn(2, WIDTH), truth(2).pixels
    with torch.no_grad():
        both = union_logits(model.mask_head, states, pixels)
        each = [union_logits(model.mask_head, state[None], pixels) for state in states]
    assert both.shape == (2, 16, 16)
    torch.testing.assert_close(both, torch.maximum(*each), atol=1e-4, rtol=1e-4)
