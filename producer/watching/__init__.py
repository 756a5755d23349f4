"""What shows a running fleet: in the terminal and on a page."""
