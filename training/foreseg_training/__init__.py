# SPDX-License-Identifier: Apache-2.0
"""Training of the models that the repository ships, and of the users own."""
