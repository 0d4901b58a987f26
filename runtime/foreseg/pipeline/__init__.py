# SPDX-License-Identifier: Apache-2.0
"""The step without a thread, clock, engine or pixel."""
