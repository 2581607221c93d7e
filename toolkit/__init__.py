"""Measure which embedding dimension, precision, index and instruction your data needs."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("embedding-toolkit")
except PackageNotFoundError:  # run from a bare checkout, as on a lent GPU machine
    __version__ = "0+unknown"
