"""Requests that contain a secret, each in another place, whole and malformed: no log may contain it afterwards."""

SECRET = b'SECRET7Q2XK9'  # also valid as a method
LINE = b'GET /users HTTP/1.1\r\nHost: x\r\n'
POST = b'POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'
USER = b'{"username": "%b", "email": "%b@example.com"}' % (SECRET, SECRET)
BAD_EMAIL = b'{"username": "ann", "email": "%b"}' % SECRET
# A valid X-Request-ID is not among them: clients send it so that it can be found in the log.
HEADERS = (
    b'Accept',
    b'Access-Control-Request-Headers',
    b'Authorization',
    b'Connection',
    b'Content-Length',
    b'Content-Type',
    b'Cookie',
    b'Expect',
    b'Forwarded',
    b'If-Match',
    b'If-None-Match',
    b'Origin',
    b'Range',
    b'Referer',
    b'TE',
    b'Transfer-Encoding',
    b'Upgrade',
    b'User-Agent',
    b'X-Forwarded-For',
    b'X-Forwarded-Host',
    b'X-Forwarded-Proto',
    b'X_Underscores',
)


def body(data: bytes, length: int | None = None) -> bytes:
    """Return a POST with a body.

    :param data: the body.
    :param length: its Content-Length, if that is not its real length.
    """
    return POST + b'Content-Length: %d\r\n\r\n' % (len(data) if length is None else length) + data


PLACES: dict[str, bytes] = {
    **{f'the header {name.decode()}': LINE + name + b': ' + SECRET + b'\r\n\r\n' for name in HEADERS},
    'the header Host': b'GET /users HTTP/1.1\r\nHost: ' + SECRET + b'\r\n\r\n',
    'a malformed Host': b'GET /users HTTP/1.1\r\nHost: a b' + SECRET + b'\r\n\r\n',
    'a request id that is not valid': LINE + b'X-Request-ID: "' + SECRET + b'"\r\n\r\n',
    'a trace id': LINE + b'traceparent: 00-' + SECRET + b'-00f067aa0ba902b7-01\r\n\r\n',
    'a field after the trace id': LINE
    + b'traceparent: 01-'
    + b'a' * 32
    + b'-00f067aa0ba902b7-01-'
    + SECRET
    + b'\r\n\r\n',
    'a token': b'DELETE /users/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ' + SECRET + b'\r\n\r\n',
    'the name of a header': LINE + SECRET + b': x\r\n\r\n',
    'a malformed name of a header': LINE + SECRET + b' : x\r\n\r\n',
    'a header without a colon': LINE + SECRET + b'\r\n\r\n',
    'a folded header': LINE + b'X: x\r\n ' + SECRET + b'\r\n\r\n',
    'a header with a control character': LINE + b'X: \x01' + SECRET + b'\r\n\r\n',
    'a header that is too long': LINE + b'X: ' + SECRET * 1000 + b'\r\n\r\n',
    'headers that are cut off': LINE + b'X: ' + SECRET,
    'the path': b'GET /' + SECRET + b' HTTP/1.1\r\nHost: x\r\n\r\n',
    'the path of a user': b'GET /users/' + SECRET + b' HTTP/1.1\r\nHost: x\r\n\r\n',
    'a path that leads out': b'GET /../%2e%2e/' + SECRET + b' HTTP/1.1\r\nHost: x\r\n\r\n',
    'a path with a malformed escape': b'GET /%zz' + SECRET + b' HTTP/1.1\r\nHost: x\r\n\r\n',
    'a path that is too long': b'GET /' + SECRET * 1000 + b' HTTP/1.1\r\nHost: x\r\n\r\n',
    'the query': b'GET /users?email=' + SECRET + b'@example.com HTTP/1.1\r\nHost: x\r\n\r\n',
    'an invalid query': b'GET /users?limit=' + SECRET + b' HTTP/1.1\r\nHost: x\r\n\r\n',
    'a query that is not encoded': b'GET /users?email=\xc3\xa9' + SECRET + b' HTTP/1.1\r\nHost: x\r\n\r\n',
    'a query with a blank': b'GET /users?q=a ' + SECRET + b' HTTP/1.1\r\nHost: x\r\n\r\n',
    'a cursor': b'GET /users?limit=1&after=' + SECRET + b' HTTP/1.1\r\nHost: x\r\n\r\n',
    'the method': SECRET + b' /users HTTP/1.1\r\nHost: x\r\n\r\n',
    'a malformed method': SECRET.lower() + b' /users HTTP/1.1\r\nHost: x\r\n\r\n',
    'a request line of one word': SECRET + b'\r\n\r\n',
    'a request line that is cut off': b'GET /users?q=' + SECRET,
    'a request line with a bare line feed': b'GET /' + SECRET + b' HTTP/1.1\nHost: x\r\n\r\n',
    'the version': b'GET / ' + SECRET + b'\r\nHost: x\r\n\r\n',
    'the host of the target': b'GET http://' + SECRET + b'/users HTTP/1.1\r\nHost: x\r\n\r\n',
    'the target of CONNECT': b'CONNECT ' + SECRET + b':80 HTTP/1.1\r\nHost: x\r\n\r\n',
    'a target that is no path': b'GET ' + SECRET + b' HTTP/1.1\r\nHost: x\r\n\r\n',
    'a body': body(USER),
    'the same body again': body(USER),
    'an invalid body': body(BAD_EMAIL),
    'a body that is not JSON': body(SECRET),
    'a body that is cut off': body(USER, 1000),
    'bytes beyond the Content-Length': body(USER, 5),
    'a body that is not read': LINE + b'Content-Length: %d\r\n\r\n' % len(SECRET) + SECRET,
    'the size of a chunk': POST + b'Transfer-Encoding: chunked\r\n\r\n' + SECRET + b'\r\n',
    'the extension of a chunk': POST + b'Transfer-Encoding: chunked\r\n\r\n1;' + SECRET + b'\r\nx\r\n0\r\n\r\n',
    'the end of a chunk': POST + b'Transfer-Encoding: chunked\r\n\r\n1\r\nx' + SECRET + b'\r\n0\r\n\r\n',
    'a trailer': POST + b'Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n' + SECRET + b'\r\n\r\n',
    'TLS': b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + SECRET + b'\r\n\r\n',
    'the preface of HTTP/2': b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + SECRET,
}
