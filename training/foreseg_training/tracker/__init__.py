# SPDX-License-Identifier: Apache-2.0
"""Training of the nano tracker on simulated clips and moving composites."""
