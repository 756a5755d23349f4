"""The hosts of any fleet, the embedded one, the Celery app that places processes on them, the distance to Redis.

It imports lab.store and onloan; cluster, jobs, worker and producer import it.
"""
