# SPDX-License-Identifier: Apache-2.0
"""See it and ask it in a browser: a thin shell over the core, here or beside a node.

`board` keeps what there is to see, `host` says what is looked at, `painter` draws, `app` serves.
Nothing here decides what is asked or tracked. Starlette and uvicorn are imported when it serves.
"""
