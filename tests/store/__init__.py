"""What survives a lost connection, a forged message, a dead peer."""
