"""``producer map``."""
