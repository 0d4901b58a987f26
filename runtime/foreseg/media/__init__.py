# SPDX-License-Identifier: Apache-2.0
"""Where frames come from and where what was found goes: files, cameras, pictures."""
