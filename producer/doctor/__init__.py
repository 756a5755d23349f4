"""What can be wrong with a machine, its settings, its Docker, its Redis and its fleet, each with what to type."""
