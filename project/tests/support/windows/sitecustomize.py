"""Removes from Python what it lacks on Windows. Python imports this at its start if the folder is in PYTHONPATH.

Python and click themselves need some of these parts on Linux: ``SIGKILL`` ends processes, click imports ``termios``,
and ``asyncio`` imports ``fcntl``. Those stay, or are imported first.
"""

import errno
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

for module, names in {
    os: 'chown fork forkpty getegid geteuid getgid getpgid getuid killpg mkfifo openpty setgid setsid setuid uname',
    select: 'epoll poll',
    signal: 'SIGALRM SIGCONT SIGHUP SIGQUIT SIGSTOP SIGUSR1 SIGUSR2 SIGWINCH alarm pause setitimer',
    time: 'tzset',
}.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)


def unless_open(function: Callable[..., None]) -> Callable[..., None]:
    """Return a function of ``os`` that removes or replaces files, changed to fail for open files as on Windows."""

    def checked(*paths: Any, **options: Any) -> None:
        opened = {os.path.realpath(file.path) for file in os.scandir('/proc/self/fd')}
        for path in map(os.path.realpath, paths):
            if path in opened and not path.startswith('/dev/shm/'):  # multiprocessing's on Linux
                raise PermissionError(errno.EACCES, 'the file is open', path)
        function(*paths, **options)

    return checked


if os.path.isdir('/proc/self/fd'):  # not on macOS
    for name in ('remove', 'rename', 'replace', 'unlink'):
        setattr(os, name, unless_open(getattr(os, name)))

import asyncio  # noqa: E402, F401
import subprocess  # noqa: E402, F401
import tempfile  # noqa: E402, F401

# Those below gunicorn are not in requirements.txt for Windows.
for name in ('fcntl', 'grp', 'pty', 'pwd', 'resource', 'syslog', 'gevent', 'gunicorn'):
    sys.modules[name] = None  # importing it raises ImportError
