"""CPython's own test suites as judges of the cluster."""
