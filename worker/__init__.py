"""What runs on a host of the fleet: a Celery worker whose slots each supervise one process."""
