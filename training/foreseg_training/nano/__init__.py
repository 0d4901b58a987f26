# SPDX-License-Identifier: Apache-2.0
"""The nano reasoner: a few million parameters, taught on this repository's own worlds."""
