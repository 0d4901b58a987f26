# SPDX-License-Identifier: Apache-2.0
"""`foreseg record`: what a node sees and says, into a bag. A client of the node, never part of it."""
