# SPDX-License-Identifier: Apache-2.0
"""What makes a run one that can be trusted: figures, pages, checkpoints, its card, its faults.

Callbacks of `transformers` that any trainer takes. Does not know: methods, models, rewards.
"""
