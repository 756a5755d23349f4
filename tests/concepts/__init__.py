"""The concepts."""
