# SPDX-License-Identifier: Apache-2.0
"""The reasoner that needs no weights: motion and colour."""
