"""A fleet as its watchers see it: who runs, who holds, who waits, where. To look at, and to change nothing."""
