# SPDX-License-Identifier: Apache-2.0
"""The long stories of the shapes world: many acts in one view, one of which is asked about.

A story's truth is a function of time, so any frame can be drawn at any size without those before
it. Each kind of act has its file. Does not know: files, datasets, models.
"""
