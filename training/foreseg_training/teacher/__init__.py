# SPDX-License-Identifier: Apache-2.0
"""What a teacher is asked for: chains of thought and difficulties, checked against the truth.

The teacher is a model behind an OpenAI-compatible server. No trainer and no torch here.
"""
