# SPDX-License-Identifier: Apache-2.0
"""A vision-language model that segments: SAM2's heads on a language model's features.

What a language model without masks needs too belongs in `vlm`.
"""
