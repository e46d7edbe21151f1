"""Sphinx configuration: MyST Markdown, built offline, without warnings (`make docs`)."""

project = "shortrun"
author = "the shortrun authors"
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "shortrun"
exclude_patterns = ["_build"]
