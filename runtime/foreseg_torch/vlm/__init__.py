# SPDX-License-Identifier: Apache-2.0
"""A vision-language model in this process: loading, inputs, decoding.

It keeps to the contract of `foreseg.language`, and knows no method and no mask.
"""
