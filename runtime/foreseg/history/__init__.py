# SPDX-License-Identifier: Apache-2.0
"""Past frames: the ring, the sparse tier, and the windows chosen from them."""
