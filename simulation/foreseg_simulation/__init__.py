# SPDX-License-Identifier: Apache-2.0
"""Simulated worlds with exact masks and a known future."""
