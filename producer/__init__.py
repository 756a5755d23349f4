"""What submits: the command line, the measurements and the reports. It never imports ``worker``."""
