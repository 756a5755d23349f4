"""What becomes of a trace: checked, told as lanes, written for other viewers."""
