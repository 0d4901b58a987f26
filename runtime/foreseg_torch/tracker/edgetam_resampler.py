# SPDX-License-Identifier: Apache-2.0
"""EdgeTAM's perceiver in static form: the cells of a memory map are resampled into few latents.

Free latents look at the whole map; each gridded one looks at its own window of the map. Cells are
brought into the order of windows once, so that both kinds share keys and values. Does not know
what the latents are good for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import EdgeTamVideoConfig, EdgeTamVideoModel
from transformers.models.edgetam_video.modeling_edgetam_video import (
    EdgeTamVideoPerceiverAttention,
    EdgeTamVideoPerceiverEncoderLayer,
)

from foreseg_torch.tracker.sam2_geometry import latent_grid
from foreseg_torch.tracker.sam2_positions import sine_position


def check_resampler(config: EdgeTamVideoConfig) -> None:
    """Refuse a perceiver of another form than EdgeTAM's.

    Raises:
        ValueError: names what is wanted and what was found.
    """
    grid, cells = latent_grid(config), config.memory_attention_rope_feat_sizes[0]
    width = config.perceiver_resampler_hidden_size
    wanted = {
        "attention heads": (config.perceiver_resampler_num_attention_heads, 1),
        "channels of a head": (config.perceiver_resampler_attention_head_dim, width),
        "channels": (width, config.memory_encoder_output_channels),
        "gridded latents": (config.perceiver_resampler_num_latents_2d, grid**2),
        "the grid of their keys": (list(config.memory_attention_rope_k_sizes), [grid, grid]),
    }
    faults = [f"{what} {want}, got {got}" for what, (got, want) in wanted.items() if got != want]
    if config.perceiver_resampler_num_latents < 1:
        faults.append(f"free latents, got {config.perceiver_resampler_num_latents}")
    if cells % grid:
        faults.append(f"windows of whole cells, got {cells} cells a side for {grid} windows")
    if faults:
        msg = f"the memory's perceiver wants {'; '.join(faults)}"
        raise ValueError(msg)


class Resampler(nn.Module):
    """A memory map (B, L, Cm) -> latents (B, F + G, Cm), the F free ones before the G gridded."""

    free: Tensor
    gridded: Tensor
    position: Tensor

    def __init__(self, model: EdgeTamVideoModel) -> None:
        super().__init__()
        source = model.spatial_perceiver
        self.layers = nn.ModuleList(_Layer(layer) for layer in source.layers)
        self.norm = source.layer_norm
        self.grid = latent_grid(model.config)
        self.window = int(model.backbone_feature_sizes[-1][0]) // self.grid
        self.register_buffer("free", source.latents_1d.detach().unsqueeze(0))
        self.register_buffer("gridded", source.latents_2d.detach().reshape(1, self.grid**2, 1, -1))
        side = self.grid * self.window
        position = sine_position(model.memory_encoder.position_encoding, model.mem_dim, side)
        self.register_buffer("position", self._windows(position).flatten(1, 2))

    def forward(self, memory: Tensor) -> Tensor:
        """Resample B maps whose cells come row by row."""
        cells = self._windows(memory.to(self.free.dtype))
        batch = cells.shape[0]
        free = self.free.expand(batch, -1, -1)
        gridded = self.gridded.expand(batch, -1, -1, -1)
        for layer in self.layers:
            free, gridded = layer(free, gridded, cells, self.position)
        return self.norm(torch.cat((free, gridded.squeeze(2)), dim=1))

    def _windows(self, cells: Tensor) -> Tensor:
        """(B, L, Cm) row by row -> (B, windows, cells of a window, Cm)."""
        channels = cells.shape[2]
        split = cells.reshape(-1, self.grid, self.window, self.grid, self.window, channels)
        split = split.permute(0, 1, 3, 2, 4, 5)
        return split.reshape(-1, self.grid**2, self.window**2, channels)


class _Layer(nn.Module):
    """Cross-attention to the cells, an MLP, self-attention among latents, and an MLP."""

    def __init__(self, source: EdgeTamVideoPerceiverEncoderLayer) -> None:
        super().__init__()
        self.norm_cells = source.layer_norm_input
        self.norm_latents = source.layer_norm_latents
        self.norm_self = source.layer_norm_self
        self.to_cells = _Attention(source.cross_attention)
        self.mlp = source.mlp
        self.to_latents = _Attention(source.self_attention)
        self.self_mlp = source.self_mlp

    def forward(
        self, free: Tensor, gridded: Tensor, cells: Tensor, position: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Map free (B, F, Cm) and gridded (B, G, 1, Cm) for cells (B, G, W, Cm)."""
        cells = self.norm_cells(cells)
        keys, values = self.to_cells.key(cells), self.to_cells.value(cells)
        everywhere = keys.flatten(1, 2) + position, values.flatten(1, 2) + position
        free = free + self.to_cells(self.norm_latents(free), *everywhere)
        free = free + self.mlp(free)
        among = self.norm_self(free)
        free = free + self.to_latents(
            among, self.to_latents.key(among), self.to_latents.value(among)
        )
        free = free + self.self_mlp(free)

        gridded = gridded + self.to_cells(self.norm_latents(gridded), keys, values)
        gridded = gridded + self.mlp(gridded)
        # one latent a window attends to itself alone: its weight is 1
        alone = self.to_latents.value(self.norm_self(gridded))
        gridded = gridded + self.to_latents.out(alone)
        return free, gridded + self.self_mlp(gridded)


class _Attention(nn.Module):
    """One head over the last two axes; keys and values are made by the caller."""

    def __init__(self, source: EdgeTamVideoPerceiverAttention) -> None:
        super().__init__()
        self.query, self.key = source.q_proj, source.k_proj
        self.value, self.out = source.v_proj, source.o_proj
        self.scale = source.scaling

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend from (.., Q, Cm) to (.., N, Cm)."""
        logits = (self.query(x) * self.scale) @ keys.transpose(-1, -2)
        return self.out(torch.softmax(logits, dim=-1) @ values)
