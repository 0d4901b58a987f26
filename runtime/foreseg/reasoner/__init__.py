# SPDX-License-Identifier: Apache-2.0
"""Reasoners: from a query and a window of past frames to spatial prompts on a keyframe."""
