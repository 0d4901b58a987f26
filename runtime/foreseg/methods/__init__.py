# SPDX-License-Identifier: Apache-2.0
"""Methods: each paper's way to choose frames, to ask a language model, and to read its answer."""
