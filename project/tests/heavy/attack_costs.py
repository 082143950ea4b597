"""No request within the limits costs much CPU: each limit is used up in the way that costs the most."""

import json
import time
from pathlib import Path
from urllib.parse import quote

from project.api.paging import cursor
from project.tests.base import make_app
from project.tests.support.attack_case import CHUNKED, DELETE, LIST, PING, POST, AttackCase
from project.tests.support.raw import RawClient
from project.tests.support.servers import TOKEN

MOST_MS = 20.0  # if loop_ms() returns LOOP_MS; a slower Python gets more
LOOP_MS = 25.0
MOST_BYTES = 65_536  # of a body
ONE = b'GET /users/1 HTTP/1.1\r\nHost: x\r\n'
PATCH = b'PATCH /users/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ' + TOKEN.encode() + b'\r\n'
OPTIONS = b'OPTIONS /users HTTP/1.1\r\nHost: x\r\n'
# Characters that the rules for names and emails examine: joined, invisible, expanded eighteenfold by NFKC, emoji.
CHARACTERS = ('\u200d', '\u0644\u200d', '\ufdfa', '\U0001f468\u200d', '\U0001f3f4\U000e0067', '0\ufe0f', '\u0301', 'ﬁ')


def body(data: bytes) -> bytes:
    """Return a POST with a body."""
    return POST + b'Content-Length: %d\r\n\r\n' % len(data) + data


def user(username: bytes, email: bytes) -> bytes:
    """Return a POST of a user; whatever the field repeats fills the body."""
    return body(b'{"username":"%b","email":"%b"}' % (username, email))


def filled(unit: bytes, size: int) -> bytes:
    """Return ``unit`` repeated up to ``size`` bytes."""
    return unit * (size // len(unit))


def headers(start: bytes, name: bytes, unit: bytes, count: int = 2) -> bytes:
    """Return a request with headers of the maximum length."""
    return start + (name + b': ' + filled(unit, 8000 - len(name)) + b'\r\n') * count + b'\r\n'


def query(text: bytes) -> bytes:
    """Return a request for the list with this query string, up to the length of a request line."""
    return b'GET /users?%b HTTP/1.1\r\nHost: x\r\n\r\n' % text[:4060]


def requests() -> dict[str, bytes]:
    """Return requests by name."""
    rest = MOST_BYTES - 100
    app = make_app(SECRET_KEY='a-key-of-the-tests-that-only-signs-their-cursors')
    with app.app_context():
        valid = cursor({'created_at': '2026-01-01T00:00:00.000000Z', 'id': 1}).encode()
    found = {
        'chunks of one byte': POST + CHUNKED + b'1\r\n \r\n' * 60_000,
        'chunks of one byte, unread': PING + CHUNKED + b'1\r\n \r\n' * 60_000,
        'chunks with extensions': POST + CHUNKED + (b'1;' + b'a=b;' * 500 + b'\r\n \r\n') * 30,
        'trailers': POST + CHUNKED + b'0\r\n' + b'A: b\r\n' * 10_000 + b'\r\n',
        'empty lines before a request': b'\r\n' * 8000 + PING + b'\r\n',
        'headers': PING + b'X-A: x\r\n' * 62 + b'\r\n',
        'headers of the same name': PING + b'Accept: x\r\n' * 62 + b'\r\n',
        'proxies': LIST + b'X-Forwarded-For: %b\r\nX-Forwarded-Host: %b\r\n\r\n' % (b'1,' * 4000, b'a,' * 4000),
        'a host': b'GET /users HTTP/1.1\r\nHost: ' + b'a.' * 4000 + b'\r\n\r\n',
        'a path': b'GET /' + b'%2e%2f' * 670 + b' HTTP/1.1\r\nHost: x\r\n\r\n',
        'a long id': b'GET /users/' + b'9' * 4000 + b' HTTP/1.1\r\nHost: x\r\n\r\n',
        'a path of slashes': b'GET /' + b'/' * 4000 + b' HTTP/1.1\r\nHost: x\r\n\r\n',
        'parameters': query(b'a&' * 2000),
        'parameters, repeated': query(b'limit=1&' * 500),
        'parameters, escaped': query(b'%61%3d&' * 600),
        'parameters kept in the next URL': query(b'limit=1&' + b'a=%ff&' * 700),
        'a search': query(b'q=' + b',' * 4000),
        'a search for wildcards': query(b'q=' + b'%25_' * 1000),
        'a search, escaped': query(b'q=' + b'%F0%9F%98%80' * 330),
        'a cursor': query(b'limit=1&after=' + valid),
        'a long cursor': query(b'limit=1&after=' + b'A' * 4000 + valid[valid.index(b'.') :]),
        'a cursor of dots': query(b'limit=1&after=' + b'.' * 4000),
        'an email': query(b'email=' + b'a.' * 2000 + b'@example.com'),
        'an email, at signs': query(b'email=' + b'@' * 4000),
        'an email, quoted': query(b'email=%22' + b'%5C%22' * 600 + b'%22@example.com'),
        'an email, domains': query(b'email=a@' + b'a.' * 2000 + b'com'),
        'an email, IDNA': query(b'email=a@' + (b'xn--' + b'a' * 59 + b'.') * 60 + b'com'),
        'brackets': body(b'[' * MOST_BYTES),
        'braces': body(filled(b'{"username":', MOST_BYTES)),
        'a long number': body(b'{"username":' + b'9' * rest + b'}'),
        'a long exponent': body(b'{"username":1e' + b'9' * rest + b'}'),
        'fields': body(b'{' + b','.join(b'"%x":1' % n for n in range(6000)) + b'}'),
        'fields, the same': body(b'{' + filled(b'"username":"a",', rest) + b'"email":1}'),
        'escapes': user(filled(b'\\u0061', rest), b'a@example.com'),
        'a username': user(filled(b'a ', rest), b'a@example.com'),
        'blanks': user(filled(b' ', rest), filled(b' ', 0)),
        'a long email': user(b'a', filled(b'a.', rest)),
        'domains': user(b'a', b'a@' + filled(b'a.', rest)),
        'a Content-Type': LIST.replace(b'GET', b'POST')
        + b'Content-Type: application/json'
        + b';a="\\"' * 1100
        + b'\r\n'
        b'Content-Length: 2\r\n\r\n{}',
        'If-Match': headers(PATCH + b'Content-Type: application/json\r\nContent-Length: 2\r\n', b'If-Match', b'"a",')
        + b'{}',
        'a token': DELETE + b'Authorization: Bearer ' + b'a ' * 4000 + b'\r\n\r\n',
    }
    for unit in (b',', b'"a",', b'"', b'W/"', b'a b'):
        found[f'If-None-Match, {unit.decode()}'] = headers(ONE, b'If-None-Match', unit)
        found[f'60 times If-None-Match, {unit.decode()}'] = headers(ONE, b'If-None-Match', unit, 60)
    for name in (
        b'Accept',
        b'Cookie',
        b'Range',
        b'Connection',
        b'Transfer-Encoding',
        b'Forwarded',
        b'Origin',
        b'Upgrade',
    ):
        for unit in (b',', b'a;q=1,', b'"'):
            found[f'{name.decode()}, {unit.decode()}'] = headers(LIST, name, unit)
    for unit in (b'a,', b',', b'!' * 100 + b','):
        found[f'preflight, {unit.decode()}'] = headers(OPTIONS, b'Access-Control-Request-Headers', unit)
    for text in CHARACTERS:
        unit = text.encode()
        found[f'usernames of {text!a}'] = user(filled(unit, rest), b'a@example.com')
        found[f'emails of {text!a}'] = user(unit * 20, (unit * 200)[: 120 // len(unit) * len(unit)] + b'@example.com')
        found[f'domains of {text!a}'] = user(b'a', b'a@' + unit * (110 // len(unit)) + b'.com')
        found[f'look-ups of {text!a}'] = query(
            b'email=' + quote(text * 300).encode()[: 4000 // 9 * 9] + b'@example.com'
        )
    return found


class CostTest(AttackCase):
    """The kernel reports the CPU time of the worker, so that other programs have no influence."""

    def test_costly_requests(self) -> None:
        self.exchange(self.server.port, body(json.dumps({'username': 'ann', 'email': 'ann@example.com'}).encode()))
        (worker,) = self.server.workers()
        most, costs = most_ms(), {}
        for name, data in requests().items():
            with self.subTest(name):
                costs[name] = min(self.cost(worker, data) for _ in range(4))
                self.assertLessEqual(costs[name], most)
        for name, cost in sorted(costs.items(), key=lambda item: -item[1])[:5]:
            print(f'  measured: {name}: {cost:.1f} ms of CPU, at most {most:.1f}', flush=True)

    def test_requests_in_packets_of_one_byte(self) -> None:
        (worker,) = self.server.workers()
        most = most_ms()
        for name, start, data in (
            ('headers', LIST, b'X: ' + b'x' * 3000),
            ('a body', POST + b'Content-Length: 60000\r\n\r\n', b' ' * 3000),
            ('chunks', POST + CHUNKED, b'1\r\n \r\n' * 500),
        ):
            costs = []
            for _ in range(2):
                before = cpu_ms(worker)
                with RawClient(self.server.port) as client:
                    client.send(start)
                    client.dribble(data)
                costs.append(cpu_ms(worker) - before)
            print(f'  measured: {name}, byte by byte: {min(costs):.1f} ms of CPU, at most {most:.1f}', flush=True)
            with self.subTest(name):
                self.assertLessEqual(min(costs), most)

    def cost(self, worker: int, data: bytes) -> float:
        """Return how much CPU time a request takes, in ms."""
        before = cpu_ms(worker)
        for _ in range(3):
            with RawClient(self.server.port) as client:
                client.send(data)
                status, _, _ = client.receive()
                self.assertNotIn(status, (500, 503))
        return (cpu_ms(worker) - before) / 3


def most_ms() -> float:
    """Return how much CPU time a request may take, in ms."""
    return MOST_MS * max(1.0, min(loop_ms() for _ in range(5)) / LOOP_MS)


def loop_ms() -> float:
    """Return how much CPU time a loop in Python takes, in ms."""
    start = time.process_time()
    for number in range(100_000):
        f'{number}'.encode().partition(b'5')
    return (time.process_time() - start) * 1000


def cpu_ms(pid: int) -> float:
    """Return the CPU time that a process has used, in ms."""
    return int(Path(f'/proc/{pid}/schedstat').read_text().split()[0]) / 1e6
