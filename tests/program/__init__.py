"""A program's source, and whole programs in each place."""
