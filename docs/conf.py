"""Sphinx configuration: MyST Markdown and docstrings, built offline, without warnings (`make docs`)."""

project = "shortrun"
author = "the shortrun authors"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "shortrun"
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
default_role = "code"  # a docstring's `name` is code
