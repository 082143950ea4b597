"""gunicorn's configuration for production. gunicorn reads this file from the directory in which it is started.

This file and the package serving import neither Flask nor other modules of the project: gunicorn's master runs them
before gevent patches the workers, and modules that are imported earlier stay unpatched.
"""

import sys

if sys.version_info < (3, 11):  # before the imports, which need it
    sys.exit('The users service needs Python 3.11 or later; this is %d.%d.' % sys.version_info[:2])

import gc
import os
import resource
import shutil
import socket
import subprocess
import tempfile
from typing import Any

from gunicorn.workers.ggevent import GeventWorker

# Importing project.serving would import Flask, in project/__init__.py.
folders = (os.path.dirname(os.path.realpath(__file__)), os.getcwd())  # this file may be a link or a copy
sys.path[:0] = [os.path.join(folder, 'project') for folder in folders]
for module in [name for name in sys.modules if name.partition('.')[0] == 'serving']:
    del sys.modules[module]  # gunicorn runs this file again on HUP, when the code may be new
from serving.logs import Logger
from serving.worker import Worker

del sys.path[:2]

SEND_BUFFER_BYTES = 256 * 1024  # of each socket; without it, the kernel may buffer 4 MiB for a slow client


def variable(name: str, default: str) -> str:
    """Return an environment variable without white space around it; the default if it is missing or blank."""
    return os.environ.get(name, '').strip() or default


def number(name: str, default: str) -> int:
    """Return the number in an environment variable. :func:`on_starting` checks its limits.

    :raises SystemExit: it is not a number.
    """
    text = variable(name, default)
    if not (text.isascii() and text.isdecimal()):
        sys.exit(f'{name} must be a whole number, such as {default}.')
    return int(text)


worker_class = Worker  # one process serves thousands of slow or idle clients, each in a greenlet
workers = number('WEB_CONCURRENCY', '2')
worker_connections = 10_000
# Each connection is an open file, and some systems limit a process to 1,024 of them unless it raises its limit.
_, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
if most_files == resource.RLIM_INFINITY:
    most_files = 10_240  # macOS rejects more (OPEN_MAX), and has no other limit by default
resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
# Seconds. A worker that stops finishes its requests. The database's deadlines limit the longest, except for streams.
graceful_timeout = 10
# Seconds. Longer than the proxy's (nginx: 60 s), so that the proxy closes an idle connection first. Otherwise,
# this server could close one while the proxy is sending a request.
keepalive = 75
# The number of requests after which a worker is replaced; 0 is never.
max_requests = number('MAX_REQUESTS', '0')
max_requests_jitter = max_requests // 10
if 'SCRIPT_NAME' in os.environ:
    os.environ['SCRIPT_NAME'] = variable('SCRIPT_NAME', '')  # which gunicorn reads for each request
# PROXY_HOPS says which proxies to trust, see project/headers.py. gunicorn itself trusts no header of a proxy.
forwarded_allow_ips = '*'
forwarder_headers = ''
secure_scheme_headers: dict[str, str] = {}
sendfile = False  # sendfile() would send before the buffered headers; no response is a file object
# Bytes, and header lines.
limit_request_line = 4094
limit_request_field_size = 8190
limit_request_fields = 64
# The heartbeat is a file. If it were on a disk that stalls, gunicorn would kill healthy workers. mkstemp() makes it, so
# no other user can choose its name.
worker_tmp_dir = '/dev/shm' if os.path.isdir('/dev/shm') else None  # noqa: S108  # nosec B108
control_socket_disable = True
loglevel = variable('LOG_LEVEL', 'info').lower()
with_metrics = variable('METRICS', '0') == '1'
accesslog = '-'
logger_class = Logger


# gunicorn, too, finds manage.py in the current directory.
LOAD_APP = "import sys; sys.path.insert(0, ''); import manage"


def on_starting(server: Any) -> None:
    """Check the settings, and make the directory in which the workers store their metrics.

    :raises SystemExit: a setting is wrong, or ``--preload`` is used. A child process loads the app, so that an error is
        printed once, and not by each worker. With ``--preload``, the app would be loaded before gevent patches, and the
        workers would block.
    """
    if server.cfg.preload_app and issubclass(server.worker_class, GeventWorker):
        sys.exit('gunicorn --preload does not work with the gevent worker of this service: remove --preload.')
    command = [sys.executable, '-c', LOAD_APP]
    loaded = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)  # noqa: S603, with nothing from outside
    if loaded.returncode:
        sys.exit(loaded.returncode)
    if with_metrics:
        os.environ['PROMETHEUS_MULTIPROC_DIR'] = tempfile.mkdtemp(prefix='users-metrics-')


def post_worker_init(worker: Worker) -> None:
    """Limit the send buffers; exclude long-lived objects from garbage collection."""
    for listener in worker.sockets:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def child_exit(server: Any, worker: Any) -> None:
    """Remove the gauges of a worker that has ended. Its counters stay."""
    if with_metrics:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    """Remove the metrics directory."""
    if with_metrics:
        shutil.rmtree(os.environ['PROMETHEUS_MULTIPROC_DIR'], ignore_errors=True)
