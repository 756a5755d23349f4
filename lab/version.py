"""The version of Crosshost: both sides of a fleet must have the same."""

__version__ = "0.1.0"
