"""Changes that a student makes next, each in a scratch copy of the project and in processes of its own.

Run by name: ``python manage.py test next_steps``.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from project.tests.base import BEARER, ROOT, TOKEN, scratch_database
from project.tests.support.servers import HOST, free_port, wait_until
from project.tests.test_migrations import HEAD

ANN = {'username': 'ann', 'email': 'ann@example.com'}
BEE = {'username': 'bee', 'email': 'bee@example.com'}
USERNAME = '    username: Mapped[str] = mapped_column(String(128))\n'
UNIQUE_USERNAME = USERNAME.replace('128)', '128), unique=True')
ACTIVE = '    active: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())\n'
CLIENT = """
import json, sys
from manage import app
client = app.test_client()
for method, path, body, headers in json.load(sys.stdin):
    response = client.open(path, method=method, json=body, headers=headers)
    print(response.status_code, response.content_type, response.text.replace('\\n', ' '), sep='\\t')
"""
QUERY = """
import sys
from manage import app
from project import db
with app.app_context():
    print(*map(tuple, db.session.execute(db.text(sys.argv[1]))))
"""
TAKEN = {'status': 'fail', 'message': 'Invalid payload.', 'errors': {'username': 'is already taken'}}
EMAIL_TAKEN = {'status': 'fail', 'message': 'Sorry. That email already exists.'}


class NextStepTest(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory())) / 'copy'
        left_out = shutil.ignore_patterns('client', 'bench', 'tests', '__pycache__')
        shutil.copytree(ROOT / 'project', self.root / 'project', ignore=left_out)
        shutil.copy(ROOT / 'manage.py', self.root)
        keep = {name: value for name, value in os.environ.items() if name in ('PATH', 'HOME', 'LANG')}
        self.environment = keep | {'DATABASE_URL': self.enterContext(scratch_database()), 'API_TOKENS': TOKEN}
        self.on_sqlite = self.environment['DATABASE_URL'].startswith('sqlite')

    def edit(self, path, *changes):
        """Replace texts of a file; each of them must exist."""
        file = self.root / path
        text = file.read_text()
        for old, new in changes:
            self.assertIn(old, text)
            text = text.replace(old, new, 1)
        file.write_text(text)

    def run_python(self, *arguments, text=None, code=0):
        """Run Python in the copy, and return what it wrote to both streams."""
        result = subprocess.run(
            [sys.executable, *arguments],
            check=False,
            cwd=self.root,
            env=self.environment,
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        self.assertEqual(result.returncode, code, result.stdout)
        return result.stdout

    def manage(self, *arguments, code=0):
        """Run a command of manage.py, which must not end in a traceback."""
        output = self.run_python('manage.py', *arguments, code=code)
        self.assertNotIn('Traceback', output)
        return output

    def migrate(self):
        """Write a migration for what was edited, apply it, and return its text."""
        before = self.migrations()
        self.manage('db', 'migrate', '-m', 'next step')
        (new,) = self.migrations() - before
        self.manage('db', 'upgrade')
        self.manage('db', 'check')
        return new.read_text()

    def migrations(self):
        return set((self.root / 'project/migrations/versions').glob('*.py'))

    def request(self, *requests):
        """Send requests, each a method, a path and perhaps a body; return status, media type and text of each."""
        sent = [(method, path, body[0] if body else None, BEARER) for method, path, *body in requests]
        lines = self.run_python('-c', CLIENT, text=json.dumps(sent)).splitlines()
        responses = [(int(line.split('\t')[0]), *line.split('\t')[1:]) for line in lines if line.count('\t') == 2]
        self.assertEqual(len(responses), len(requests), lines)
        return responses

    def request_json(self, *requests):
        """As :meth:`ask`, but return status and JSON of each."""
        return [(status, json.loads(text)) for status, _, text in self.request(*requests)]

    def query(self, sql):
        """Return the rows of a select."""
        return self.run_python('-c', QUERY, sql).strip()


class ColumnTest(NextStepTest):
    def test_column_with_a_python_default(self):
        self.manage('db', 'upgrade')
        self.request(('POST', '/users', ANN))
        admin = '    admin = db.Column(db.Boolean, default=False, nullable=False)\n'
        points = '    points = db.Column(db.Integer, default=lambda: 7)\n'
        seen = '    seen_at = db.Column(UTCDateTime, default=utcnow, onupdate=utcnow)\n'
        self.edit('project/api/models.py', (ACTIVE, ACTIVE + admin + points + seen))
        migration = self.migrate()
        # The existing row needs a value, on either database.
        self.assertIn("sa.Column('admin', sa.Boolean(), server_default='0', nullable=False)", migration)
        self.assertIn('from project.timestamps import UTCDateTime\n', migration)
        responses = self.request_json(
            ('POST', '/users', BEE),
            ('PATCH', '/users/1', {'username': 'cat'}),
            ('POST', '/users', {**BEE, 'email': 'ANN@example.com'}),
        )
        self.assertEqual([status for status, _ in responses], [201, 200, 400])
        self.assertEqual(responses[2][1], EMAIL_TAKEN)
        rows = self.query('SELECT id, CAST(admin AS INTEGER), points, seen_at IS NOT NULL FROM users ORDER BY id')
        self.assertEqual(rows.replace('True', '1'), '(1, 0, None, 1) (2, 0, 7, 1)')
        self.assertIn('Wrote 2 users', self.manage('dump_users', 'users.jsonl'))
        self.assertIn('2 already existed', self.manage('load_users', 'users.jsonl'))
        self.manage('db', 'downgrade', '--force')
        self.edit('project/api/models.py', (admin + points + seen, ''))
        self.assertEqual(self.query('SELECT username FROM users ORDER BY id'), "('cat',) ('bee',)")
        self.assertEqual(
            self.request_json(('POST', '/users', {**BEE, 'email': 'ANN@example.com'})), [(400, EMAIL_TAKEN)]
        )

    def test_column_without_a_default_gets_no_migration_but_a_message(self):
        self.manage('db', 'upgrade')
        before = self.migrations()
        for default in ('', ', default=dict', ', default={}'):
            with self.subTest(default=default):
                column = f'    extra = db.Column(db.JSON, nullable=False{default})\n'
                self.edit('project/api/models.py', (ACTIVE, ACTIVE + column))
                output = self.manage('db', 'migrate', code=1)
                self.assertIn('the column users.extra must not be NULL, so existing rows need a value', output)
                self.assertEqual(self.migrations(), before)
                self.edit('project/api/models.py', (column, ''))


class UniqueTest(NextStepTest):
    def test_unique_username(self):
        self.manage('db', 'upgrade')
        cat = {'username': 'cat', 'email': 'cat@example.com'}
        self.request(('POST', '/users', ANN), ('POST', '/users', BEE), ('POST', '/users', cat), ('DELETE', '/users/3'))
        self.edit('project/api/models.py', (USERNAME, UNIQUE_USERNAME))
        self.assertIn('uq_users_username', self.migrate())
        other = 'other@example.com'
        self.assertEqual(
            self.request_json(
                ('POST', '/users', {**ANN, 'email': other}),
                ('PATCH', '/users/2', {'username': 'ann'}),
                ('POST', '/users', {**cat, 'email': 'ANN@example.com'}),
                ('PATCH', '/users/2', {'email': 'Ann@example.com'}),
            ),
            [(400, TAKEN), (400, TAKEN), (400, EMAIL_TAKEN), (400, EMAIL_TAKEN)],
        )
        # On SQLite the table was copied. The copy must not use an id a second time either.
        [(status, body)] = self.request_json(('POST', '/users', {**cat, 'email': other}))
        self.assertEqual(status, 201)
        self.assertGreater(body['data']['id'], 3)
        new = f'"id":{body["data"]["id"]}'
        self.manage('dump_users', 'users.jsonl')
        self.edit('users.jsonl', (new, '"id":99'), (other, 'more@example.com'))
        self.assertIn('another user has its email or username', self.manage('load_users', 'users.jsonl', code=1))

    def test_other_unique_columns(self):
        """An index, a constraint of two columns, and one on the email, which has an index of its own already."""
        phone = '    phone = db.Column(String(20), unique=True, index=True)\n'
        area = "    area = db.Column(String(20), default='north')\n"
        email = '    email: Mapped[str] = mapped_column(String(128))\n'
        arguments = '    __table_args__: ClassVar[Any] = (\n'
        pair = f"{arguments}        db.UniqueConstraint('area', 'username'),\n"
        more = '    username: Username\n    email: Email\n'
        self.edit(
            'project/api/models.py',
            (arguments, pair),
            (ACTIVE, ACTIVE + phone + area),
            (email, email.replace('128)', '128), unique=True')),
        )
        self.edit('project/api/schemas.py', (more, f'{more}    phone: str | None = None\n'))
        self.manage('db', 'upgrade')
        self.migrate()
        taken = {'status': 'fail', 'message': 'Invalid payload.'}
        self.assertEqual(
            self.request_json(
                ('POST', '/users', {**ANN, 'phone': '1'}),
                ('POST', '/users', {**BEE, 'phone': '1'}),
                ('POST', '/users', {**BEE, 'username': 'ann'}),
                ('POST', '/users', {**BEE, 'email': 'ann@example.com'}),
            )[1:],
            [
                (400, taken | {'errors': {'phone': 'is already taken'}}),
                (400, taken | {'errors': {'area': 'is already taken', 'username': 'is already taken'}}),
                (400, EMAIL_TAKEN),
            ],
        )

    def test_values_that_are_not_unique_stop_the_migration_and_change_nothing(self):
        self.manage('db', 'upgrade')
        self.request(('POST', '/users', ANN), ('POST', '/users', {**BEE, 'username': 'ann'}))
        self.edit('project/api/models.py', (USERNAME, UNIQUE_USERNAME))
        self.manage('db', 'migrate')
        self.assertIn('the database returned an error', self.manage('db', 'upgrade', code=1))
        self.assertEqual(self.query('SELECT version_num FROM alembic_version'), f"('{HEAD}',)")
        self.assertEqual(
            self.query('SELECT username, email FROM users ORDER BY id'),
            "('ann', 'ann@example.com') ('ann', 'bee@example.com')",
        )
        self.assertEqual(
            self.request_json(('POST', '/users', {**BEE, 'email': 'ANN@example.com'})), [(400, EMAIL_TAKEN)]
        )


NOTES = """
from datetime import datetime

from flask import Blueprint, jsonify, request

from project import db
from project.timestamps import UTCDateTime

notes_blueprint = Blueprint('notes', __name__)


class Note(db.Model):
    __tablename__ = 'notes'
    id = db.Column(db.Integer, primary_key=True)
    user_id = db.Column(db.Integer, db.ForeignKey('users.id', ondelete='CASCADE'), nullable=False)
    user = db.relationship('User', backref='notes')
    text = db.Column(db.String(20), nullable=False, unique=True)
    written_at = db.Column(db.DateTime, nullable=False, default=datetime.utcnow)
    read_at = db.Column(UTCDateTime)


@notes_blueprint.route('/notes', methods=['GET', 'POST'])
def notes():
    if request.method == 'POST':
        note = Note(read_at=datetime(2026, 7, 1), **request.get_json())
        db.session.add(note)
        db.session.commit()
    return jsonify([
        {'text': note.text, 'user': note.user.username, 'written_at': note.written_at, 'read_at': note.read_at}
        for note in Note.query.order_by(Note.id)
    ])
"""


class BlueprintTest(NextStepTest):
    def test_second_blueprint_with_its_own_model(self):
        self.manage('db', 'upgrade')
        self.request(('POST', '/users', ANN))
        (self.root / 'project/api/notes.py').write_text(NOTES)
        imported, registered = (
            'from project.api.users import users_blueprint\n',
            'app.register_blueprint(users_blueprint)\n',
        )
        self.edit(
            'project/__init__.py',
            (imported, f'from project.api.notes import notes_blueprint\n{imported}'),
            (registered, f'{registered}    app.register_blueprint(notes_blueprint)\n'),
        )
        migration = self.migrate()
        for name in ('fk_notes_user_id_users', 'uq_notes_text', 'notes_pkey'):
            self.assertIn(name, migration)
        responses = self.request_json(
            ('POST', '/notes', {'user_id': 1, 'text': 'one'}), ('GET', '/notes'), ('GET', '/nowhere')
        )
        self.assertEqual([status for status, _ in responses], [200, 200, 404])
        [note] = responses[1][1]
        self.assertEqual((note['text'], note['user']), ('one', 'ann'))
        self.assertEqual(note['read_at'], '2026-07-01T00:00:00.000000Z')
        self.assertRegex(note['written_at'], r'^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$')
        # On SQLite this copies the users and drops their old table; the notes that belong to them stay.
        self.edit('project/api/models.py', (USERNAME, UNIQUE_USERNAME))
        self.migrate()
        self.assertEqual(self.request_json(('GET', '/notes')), [(200, [note])])
        self.assertEqual(self.request(('DELETE', '/users/1'))[0][0], 204)
        self.assertEqual(self.request_json(('GET', '/notes')), [(200, [])])


class LessonTest(NextStepTest):
    def test_constructor_and_view_of_the_lesson(self):
        """Replace ``__init__`` of ``User`` by the lesson's, and add the lesson's view."""
        lines = (self.root / 'project/api/models.py').read_text()
        ours = lines[lines.index('    def __init__(') : lines.index('    @classmethod')]
        theirs = """
    def __init__(self, username, email, created_at=datetime.datetime.utcnow()):
        self.username = username
        self.email = email
        self.created_at = created_at

"""
        self.edit('project/api/models.py', (ours, theirs))
        view = """
from flask import jsonify
from project import db
import datetime

def add_user(username, email, created_at=datetime.datetime.utcnow()):
    user = User(username=username, email=email, created_at=created_at)
    db.session.add(user)
    db.session.commit()
    return user

@users_blueprint.route('/lesson', methods=['GET'])
def lesson():
    created = datetime.datetime.utcnow() + datetime.timedelta(-30)
    add_user('michael', 'michael@realpython.com', created)
    add_user('fletcher', 'fletcher@realpython.com')
    db.session.add(User('default', 'default@example.com'))
    db.session.commit()
    users = User.query.order_by(User.created_at.desc()).all()
    users_list = []
    for user in users:
        user_object = {
            'id': user.id,
            'username': user.username,
            'email': user.email,
            'created_at': user.created_at
        }
        users_list.append(user_object)
    response_object = {
        'status': 'success',
        'data': {
            'users': users_list
        }
    }
    return jsonify(response_object), 200
"""
        with (self.root / 'project/api/users.py').open('a') as file:
            file.write(view)
        self.manage('db', 'upgrade')
        theirs, ours = self.request(('GET', '/lesson'), ('GET', '/users'))
        self.assertEqual(theirs, (*ours[:2], ours[2].replace('"active":false,', '')))
        self.assertEqual([user['username'] for user in json.loads(ours[2])['data']['users']][-1], 'michael')
        self.assertEqual(self.request_json(('POST', '/users', ANN))[0][0], 201)


ASYNC = """
import asyncio

@users_blueprint.get('/async/<int:number>')
async def wait(number):
    await asyncio.sleep(0.1)
    return {'number': number, 'users': User.query.count()}
"""
SESSION = """
from flask import session

@users_blueprint.get('/visits')
def visits():
    session['visits'] = session.get('visits', 0) + 1
    return str(session['visits'])
"""


class ViewTest(NextStepTest):
    def test_async_views_under_gunicorn(self):
        """They run in one thread, which can run one event loop at a time."""
        with (self.root / 'project/api/users.py').open('a') as file:
            file.write(ASYNC)
        shutil.copy(ROOT / 'gunicorn.conf.py', self.root)
        self.manage('db', 'upgrade')
        port, log = free_port(), (self.root / 'log').open('w+')
        self.addCleanup(log.close)
        command = (sys.executable, '-m', 'gunicorn', '-b', f'{HOST}:{port}', 'manage:app')
        environment = self.environment | {'WEB_CONCURRENCY': '1'}
        server = subprocess.Popen(command, cwd=self.root, env=environment, stdout=log, stderr=log)
        self.addCleanup(server.wait, 30)
        self.addCleanup(server.terminate)

        def get(path):
            with urllib.request.urlopen(f'http://{HOST}:{port}{path}', timeout=20) as response:
                return json.load(response)

        def is_up():
            with contextlib.suppress(OSError):
                return get('/ping')

        wait_until(is_up, 30, 'gunicorn serves')
        with ThreadPoolExecutor(8) as pool:
            responses = list(pool.map(get, [f'/async/{number}' for number in range(8)]))
        self.assertEqual(responses, [{'number': number, 'users': 0} for number in range(8)])

    def test_sessions_work_once_the_line_is_removed_that_the_message_names(self):
        with (self.root / 'project/api/users.py').open('a') as file:
            file.write(SESSION)
        self.assertEqual(self.request(('GET', '/visits'))[0][0], 500)
        self.edit('project/service.py', ('    session_interface = NoSessions()\n', ''))
        responses = self.request(('GET', '/visits'), ('GET', '/visits'))
        html = 'text/html; charset=utf-8'
        self.assertEqual(responses, [(200, html, '1'), (200, html, '2')])
