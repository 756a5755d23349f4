"""A map's items on the side of the worker: chunks, what serves them, time limits.

It imports lab.program; producer imports it.
"""
