# SPDX-License-Identifier: Apache-2.0
"""Training of language models that see frames, by TRL, PEFT and accelerate.

Words, forms and readings are those of `foreseg.methods`; no loop of our own stands here.
"""
