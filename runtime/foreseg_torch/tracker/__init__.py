# SPDX-License-Identifier: Apache-2.0
"""Trackers in torch: what is exported, and what stands in for an engine."""
