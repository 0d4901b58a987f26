# SPDX-License-Identifier: Apache-2.0
"""From checkpoints to engine bundles: graphs, parity gate, manifest."""
