# SPDX-License-Identifier: Apache-2.0
"""Engines: compiled graphs, the bundles they come in, and what runs them."""
