"""The tests; a package, so that children can import their targets."""
