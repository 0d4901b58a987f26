# SPDX-License-Identifier: Apache-2.0
"""The step, `step(state, event) -> (state, commands)`, and the records it turns over.

No thread, clock, engine or pixel enters, and no particular reasoner or tracker.
"""
