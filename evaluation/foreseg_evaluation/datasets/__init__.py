# SPDX-License-Identifier: Apache-2.0
"""Datasets on disk become episodes: one module for each form, and what they share."""

from .read import FORMS, Form, read_dataset
from .ref_davis import annotator_of

__all__ = ["FORMS", "Form", "annotator_of", "read_dataset"]
