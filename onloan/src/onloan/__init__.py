"""Celery's messages on loan: a transport over Redis that loses nothing.

::

    import onloan
    onloan.configure(app)

It imports celery, kombu and redis, and nothing else of this repository; anything may import it.
"""

from onloan.settings import configure

__all__ = ["configure"]
