# SPDX-License-Identifier: Apache-2.0
"""Language models that see frames: their contract, and one behind an OpenAI-compatible server.

No query, method or box is known here; what needs torch is in `foreseg_torch`.
"""
