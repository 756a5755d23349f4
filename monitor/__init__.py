"""What shows a fleet to people: Flower, without a password in sight."""
