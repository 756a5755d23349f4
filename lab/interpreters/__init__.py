"""A place between threads and processes: each child is an interpreter of its own, with a lock of its own, in this process.

It may import nothing but `lab`: where Python has `concurrent.interpreters` (since 3.14), it needs no more.
"""
