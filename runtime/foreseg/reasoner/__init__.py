# SPDX-License-Identifier: Apache-2.0
"""Reasoners: their contract, their process, and the one that is a method over a language model.

No method's words and no model's protocol stand here, and nothing about tracks or masks over time.
"""
