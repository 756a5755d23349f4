"""CPython's own multiprocessing suite, run against the lab's contexts.

``python -m conformance`` executes ``test._test_multiprocessing`` of the interpreter at hand with ``multiprocessing`` bound to
a context of the lab, in each place, and prints what passed. None of CPython's test code is copied.

* ``suite.py`` loads the suite for a place, and says in what details it is adapted.
* ``runner.py`` runs tests of one class in a process of its own; ``judge.py`` watches it, and kills it when it hangs.
* ``exclusions.toml`` names what cannot apply where there are several hosts, with the reason; nothing else is left out.
* ``cluster.txt`` is the ratchet: what has passed on the cluster once must not fail again.
* ``futures.py`` judges executors by ``test.test_concurrent_futures``: ``python -m conformance.futures``.
"""
