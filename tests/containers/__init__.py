"""The fleet in containers, on a real engine."""
