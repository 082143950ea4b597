"""Views that a student adds behave as in any Flask app: JSON, text, templates, sessions and ``async``."""

import asyncio
import sys
import uuid
from collections import namedtuple
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import IntEnum
from unittest import mock

from flask import Flask, abort, flash, jsonify, render_template_string, session
from markupsafe import Markup

from project.service import NO_SESSIONS
from project.tests.base import BaseTestCase


@dataclass
class Point:
    x: int
    _y: Decimal
    at: object = None


class Level(IntEnum):
    LOW = 1


class HTML:
    def __html__(self):
        return '<b>&</b>'


Pair = namedtuple('Pair', 'left right')
ID = uuid.UUID('12345678-1234-5678-1234-567812345678')


class JSONTest(BaseTestCase):
    def test_values_are_written_as_by_flask(self):
        flask = Flask('other').json
        for value in (
            Decimal('1.10'),
            date(2026, 7, 1),
            ID,
            Point(1, Decimal('2.5'), [Point(3, ID)]),
            Level.LOW,
            Pair(1, 2),
            (1, 2),
            {1: 'a', 2: 'b'},
            {True: 1},
            {None: 1},
            {1.5: 1},
            {Level.LOW: 1},
            2**70,
            1.5,
            'ü"\\\n\u2028',
            '\ud800',
            Markup('<b>'),
            HTML(),
            None,
        ):
            with self.subTest(value=value):
                expected = flask.loads(flask.dumps(value))
                self.assertEqual(flask.loads(self.app.json.dumps(value)), expected)
                self.assertEqual(flask.loads(jsonify(value).data), expected)
                self.assertEqual(flask.loads(jsonify({'a': [value]}).data), {'a': [expected]})

    def test_values_that_flask_does_not_write_are_rejected(self):
        for value in (object(), {1, 2}, b'x', timedelta(1), 1j, time(12), {(1, 2): 3}):
            with self.subTest(value=value), self.assertRaises(TypeError):
                jsonify(value)

    def test_keys_keep_their_order(self):
        self.assertEqual(jsonify(b=1, a={'d': 1, 'c': 2}).get_data(as_text=True), '{"b":1,"a":{"d":1,"c":2}}')
        self.assertEqual(jsonify({2: 1, 1: 2}).json, {'2': 1, '1': 2})

    def test_arguments_are_those_of_flask(self):
        self.assertEqual((jsonify().json, jsonify(1, 2).json, jsonify([1]).json), (None, [1, 2], [1]))
        self.assertEqual(self.app.json.dumps({'b': 1, 'a': 2}, sort_keys=True, indent=1), '{\n "a": 2,\n "b": 1\n}')
        with self.assertRaises(TypeError):
            jsonify(1, a=2)

    def test_no_number_is_null(self):
        self.assertEqual(jsonify([float('nan'), float('inf')]).get_data(as_text=True), '[null,null]')
        with self.assertRaises(ValueError):
            jsonify({1: float('nan')})


class MediaTypeTest(BaseTestCase):
    def test_views_return_the_usual_media_types(self):
        views = {
            'string': lambda: 'hello',
            'bytes': lambda: b'hello',
            'template': lambda: render_template_string('<b>{{ x }}</b>{{ session.x }}', x='<'),
            'generator': lambda: (part for part in ('a', 'b')),
            'created': lambda: ('hello', 201),
            'text': lambda: ('hello', {'Content-Type': 'text/plain'}),
            'dict': lambda: {'a': 1},
            'list': lambda: [1],
            'jsonify': lambda: jsonify(a=1),
        }
        for name, view in views.items():
            self.app.add_url_rule(f'/try/{name}', name, view)
        html = 'text/html; charset=utf-8'
        types = dict.fromkeys(views, html) | dict.fromkeys(('dict', 'list', 'jsonify'), 'application/json')
        for name, expected in (types | {'text': 'text/plain'}).items():
            with self.subTest(name=name):
                response = self.client.get(f'/try/{name}')
                self.assertEqual(response.content_type, expected)
        self.assertEqual(self.client.get('/try/template').text, '<b>&lt;</b>')

    def test_errors_of_such_views_are_json(self):
        @self.app.get('/fail/<int:code>')
        def fail(code):
            abort(code)

        @self.app.get('/raise')
        def fail_unexpectedly():
            return render_template_string('{{ 1 / 0 }}')

        self.assert_failure(self.client.get('/fail/404'), 404, 'Not Found')
        self.assert_failure(self.client.get('/fail/418'), 418)
        self.assert_failure(self.client.post('/fail/404'), 405)
        with self.assertLogs('project'):
            self.assert_failure(self.client.get('/raise'), 500, 'Internal Server Error')


class SessionTest(BaseTestCase):
    def test_session_that_is_changed_or_lacks_a_key_says_why(self):
        uses = {
            'set': lambda: session.update(a=1),
            'item': lambda: session.__setitem__('a', 1),
            'delete': lambda: session.pop('a'),
            'get': lambda: session['a'],
            'permanent': lambda: setattr(session, 'permanent', True),
            'flash': lambda: flash('hello'),
        }
        for name, use in uses.items():
            self.app.add_url_rule(f'/session/{name}', name, use)
        for name in uses:
            with self.subTest(name=name), self.assertLogs('project') as logs:
                self.assert_failure(self.client.get(f'/session/{name}'), 500, 'Internal Server Error')
                self.assertIn(NO_SESSIONS, logs.output[0])

    def test_session_is_empty(self):
        @self.app.get('/session')
        def view():
            return [session.get('a'), 'a' in session, len(session)]

        response = self.client.get('/session')
        self.assertEqual(response.json, [None, False, 0])
        self.assertNotIn('Set-Cookie', response.headers)


class AsyncTest(BaseTestCase):
    def setUp(self):
        super().setUp()

        @self.app.before_request
        async def before():
            self.before = True

        @self.app.get('/async/<name>')
        async def view(name):
            return {'name': name, 'before': self.before}

    def test_async_view_works(self):
        """asgiref is not a requirement: the module next_steps tests with it."""
        run = mock.patch.object(
            Flask, 'async_to_sync', lambda _, func: lambda *args, **kw: asyncio.run(func(*args, **kw))
        )
        with run:
            response = self.client.get('/async/ann')
        self.assertEqual((response.status_code, response.json), (200, {'name': 'ann', 'before': True}))

    def test_message_without_asgiref_says_what_to_install(self):
        with mock.patch.dict(sys.modules, {'asgiref.sync': None}), self.assertLogs('project') as logs:
            self.assert_failure(self.client.get('/async/ann'), 500, 'Internal Server Error')
        self.assertIn("Install Flask with the 'async' extra", logs.output[0])
