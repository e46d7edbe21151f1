"""Made by `shortrun report --myst`: sphinx-build -b html . _build"""

project = "adamw-then-rope"
extensions = ["myst_nb"]
nb_execution_mode = "off"
html_theme = "alabaster"
html_show_copyright = False
exclude_patterns = ["_build"]
