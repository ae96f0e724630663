"""The version of this package, which every artifact names."""

__version__ = "0.1.0"
