"""The log lines of gunicorn, and one for each request, as JSON on stdout."""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from gunicorn import glogging

# The methods that are logged by name. Any other one is text from the client, and is logged as "other".
METHODS = {'GET', 'HEAD', 'POST', 'PATCH', 'DELETE', 'OPTIONS', 'PUT', 'TRACE', 'CONNECT'}


class JSONFormatter(logging.Formatter):
    """One JSON object a line: time in UTC, level, event, request id, the record's ``fields``, a traceback."""

    def formatException(self, ei: Any) -> str:  # noqa: N802, the name is logging's
        """Return a traceback without the messages of its exceptions.

        They may contain what a client sent: PostgreSQL's contain the row that violates a constraint.
        """
        lines, error = [], ei[1]
        while error is not None:
            lines[:0] = [
                *traceback.format_tb(error.__traceback__),
                f'{type(error).__module__}.{type(error).__name__}\n',
            ]
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return ''.join(lines)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for ``record``."""
        line = {'time': datetime.fromtimestamp(record.created, UTC), 'level': record.levelname.lower()}
        line |= {'event': record.getMessage(), **getattr(record, 'fields', {})}
        if record.exc_info:
            line['traceback'] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z).decode()


class Logger(glogging.Logger):
    """gunicorn's own lines, and one for each request, as JSON on stdout."""

    def setup(self, cfg: Any) -> None:
        """Give gunicorn's loggers one handler, which the app's logger uses too."""
        super().setup(cfg)
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(JSONFormatter())
        self.error_log.handlers = [handler]

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Write nothing: gunicorn's lines of this level contain what clients sent."""

    def access(self, resp: Any, req: Any, environ: MutableMapping[str, Any], request_time: timedelta) -> None:
        """Write the access-log line. It has the route, never the path or query, which may contain personal data.

        The logging package would cost 16 % of the CPU of ``/ping``.
        """
        if self.error_log.level > logging.INFO:
            return
        # With -k sync, gunicorn also logs requests that it has rejected. They have no route and no status_code.
        line = {
            'time': datetime.now(UTC),
            'level': 'info',
            'event': 'request',
            'request_id': environ.get('users.request_id'),
            'method': req.method if req.method in METHODS else 'other',
            'route': environ.get('users.route'),
            'status': int(resp.status.split()[0]),
            'ms': round(request_time.total_seconds() * 1000, 1),
        }
        for name in ('trace_id', 'token', 'user_id'):  # the name of the token, and the id of the user that was changed
            if value := environ.get(f'users.{name}'):
                line[name] = value
        sys.stdout.buffer.write(orjson.dumps(line, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()
