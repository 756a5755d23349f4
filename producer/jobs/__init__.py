"""Jobs from the side of who submits them: composed of Celery's canvas, sent by name, followed from any terminal."""
