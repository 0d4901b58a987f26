# SPDX-License-Identifier: Apache-2.0
"""What drives the step, in real time or on a simulated clock."""
