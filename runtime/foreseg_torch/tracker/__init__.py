# SPDX-License-Identifier: Apache-2.0
"""The trackers' networks in torch, as they are trained and exported, and an engine that runs them.

No language model, and nothing of how a stream is tracked: that is `foreseg.tracker`.
"""
