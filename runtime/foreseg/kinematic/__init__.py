# SPDX-License-Identifier: Apache-2.0
"""The reasoner that needs no weights: regions that move, and what lies on their path.

It knows the reasoner's contract and nothing of processes, language models or other reasoners.
"""
