# SPDX-License-Identifier: Apache-2.0
"""A vision-language model that segments, in this process."""
