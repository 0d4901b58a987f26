# SPDX-License-Identifier: Apache-2.0
"""The methods of the papers: which frames, which words, and how a completion becomes prompts."""
