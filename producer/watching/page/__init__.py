"""A page that shows a running fleet, served on the loopback: ``producer page``."""
