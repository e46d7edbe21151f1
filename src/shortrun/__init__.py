"""shortrun: the best small language model a small corpus allows, in a handful of epochs, proved."""

from importlib.metadata import version

__version__ = version("shortrun")
