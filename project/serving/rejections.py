"""The JSON responses that gunicorn sends instead of the app."""

import os

import orjson
from gunicorn.http import errors as http_errors

INTERNAL_ERROR = (500, 'Internal Server Error')
# The first match counts. Other exceptions are a 500.
REJECTIONS = {
    # The stub lacks these two.
    http_errors.InvalidResponseHeader: INTERNAL_ERROR,  # pyright: ignore[reportAttributeAccessIssue]
    http_errors.InvalidResponseHeaderName: INTERNAL_ERROR,  # pyright: ignore[reportAttributeAccessIssue]
    http_errors.ConfigurationProblem: (404, 'Not Found'),  # the path is outside of SCRIPT_NAME
    http_errors.LimitRequestLine: (414, 'URI Too Long'),
    http_errors.ExpectationFailed: (417, 'Expectation Failed'),
    http_errors.LimitRequestHeaders: (431, 'Request Header Fields Too Large'),
    http_errors.UnsupportedTransferCoding: (501, 'Not Implemented'),
    http_errors.ParseException: (400, 'Bad Request'),
}
# The origins whose pages may read the responses; only * if it is among them.
ORIGINS = {item.strip().lower() for item in (os.environ.get('CORS_ORIGINS', '').strip() or '*').split(',')} - {''}
if '*' in ORIGINS:
    ORIGINS = {'*'}


def rejection(error: BaseException) -> tuple[int, str]:
    """Return the status of the response to a request that gunicorn rejects with ``error``, and its reason phrase."""
    return next((response for kind, response in REJECTIONS.items() if isinstance(error, kind)), INTERNAL_ERROR)


def error_response(status: int, reason: str, origin: str | None) -> bytes:
    """Return the JSON response to a request that gunicorn rejects.

    :param reason: the reason phrase, which is the message, too.
    :param origin: the Origin header, if gunicorn has read one. If CORS_ORIGINS has one origin, the response names it
        whatever this header is.
    """
    allowed = next(iter(ORIGINS)) if len(ORIGINS) == 1 else origin
    body = orjson.dumps({'status': 'fail' if status < 500 else 'error', 'message': reason})
    lines = (
        f'HTTP/1.1 {status} {reason}',
        'Connection: close',
        'Content-Type: application/json',
        f'Content-Length: {len(body)}',
        # The headers of project/headers.py, which does not handle this response.
        *([f'Access-Control-Allow-Origin: {allowed}'] if allowed in ORIGINS else []),
        *([] if '*' in ORIGINS else ['Vary: Origin']),
        'Access-Control-Expose-Headers: X-Request-ID',
        "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'",
        'Cache-Control: private, no-cache',
        'Referrer-Policy: no-referrer',
        'X-Content-Type-Options: nosniff',
        'X-Frame-Options: DENY',
        f'X-Request-ID: {os.urandom(16).hex()}',
        '\r\n',
    )
    return '\r\n'.join(lines).encode('latin1') + body
