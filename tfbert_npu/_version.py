"""The package's version, in a file that every folder may import."""

__version__ = "0.1.0"
