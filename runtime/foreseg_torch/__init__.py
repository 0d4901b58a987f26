# SPDX-License-Identifier: Apache-2.0
"""All that needs torch: nano architectures, checkpoints, reference engines."""
