# SPDX-License-Identifier: Apache-2.0
"""Engines: compiled graphs, the bundles they come in, and what runs them.

Arrays in, arrays out: what a graph is for is known in `tracker`.
"""
