# SPDX-License-Identifier: Apache-2.0
"""A table of drawn shapes, seen from above, with a known future."""
