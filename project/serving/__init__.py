"""Changes to gunicorn, for gunicorn.conf.py: connections with limits, the worker, and the log lines.

gunicorn's master imports these modules, as ``serving``, before gevent patches the workers. So they import neither Flask
nor Werkzeug nor other modules of the project, which would stay unpatched.
"""
