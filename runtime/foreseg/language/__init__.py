# SPDX-License-Identifier: Apache-2.0
"""Language models that see frames: their contract, and one behind a server."""
