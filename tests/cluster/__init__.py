"""The stdlib's nouns across hosts."""
