# SPDX-License-Identifier: Apache-2.0
"""The nano reasoner on the robot: a small Qwen2.5-VL as two ONNX graphs, without torch.

Its bundle, its prompts, positions and decoding stand here; the methods' words and how it is trained do not.
"""
