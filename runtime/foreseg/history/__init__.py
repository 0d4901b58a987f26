# SPDX-License-Identifier: Apache-2.0
"""Past frames: the ring, the sparse tier, the windows picked from them, and reduced copies.

Nothing here knows why frames are held or what is asked about them.
"""
