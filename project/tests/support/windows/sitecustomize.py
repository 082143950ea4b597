"""Removes from Python what it lacks on Windows. Python imports this at its start if the folder is in PYTHONPATH.

Python and click need some of it for themselves on Linux: ``SIGKILL``, for example, ends processes, click imports
``termios``, and ``asyncio`` imports ``fcntl``. That stays, or is imported before.
"""

import os
import select
import signal
import sys
import time

for module, names in {
    os: 'chown fork forkpty getegid geteuid getgid getpgid getuid killpg mkfifo openpty setgid setsid setuid uname',
    select: 'epoll poll',
    signal: 'SIGALRM SIGCONT SIGHUP SIGQUIT SIGSTOP SIGUSR1 SIGUSR2 SIGWINCH alarm pause setitimer',
    time: 'tzset',
}.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)

import asyncio  # noqa: E402, F401
import subprocess  # noqa: E402, F401
import tempfile  # noqa: E402, F401

# Those below gunicorn are not in requirements.txt for Windows.
for name in ('fcntl', 'grp', 'pty', 'pwd', 'resource', 'syslog', 'gevent', 'gunicorn'):
    sys.modules[name] = None  # importing it raises ImportError
