"""The embedded fleet, delivery in it, the rights of each role, the distance."""
