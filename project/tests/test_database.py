"""What makes the two databases alike, and what keeps one in trouble from taking the service with it."""

import importlib.util
import os
import socket
import sqlite3
import tempfile
import threading
import time
import unittest
from types import SimpleNamespace
from unittest import mock

import psycopg2
import psycopg2.extensions
from sqlalchemy import insert, text
from sqlalchemy.dialects.postgresql import psycopg2 as psycopg2_dialect
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from project import database, db
from project.api.models import User
from project.tests.base import BaseTestCase, dispose, make_app
from project.tests.test_users import ANN


def refused(sqlstate, kind=psycopg2.Error):
    """An error of PostgreSQL as SQLAlchemy raises it."""
    original = kind('secret inside')
    original.__setstate__({'pgcode': sqlstate})
    return DBAPIError('SELECT 1', {}, original)


class SQLiteTest(unittest.TestCase):
    def test_every_connection_waits_logs_ahead_and_checks_keys(self):
        with tempfile.TemporaryDirectory() as folder:
            app = make_app(SQLALCHEMY_DATABASE_URI=f'sqlite:///{folder}/users.db')
            self.addCleanup(dispose, app)
            with app.app_context():
                for engine in db.engines.values():
                    for pragma, value in (('busy_timeout', 3000), ('journal_mode', 'wal'), ('foreign_keys', 1)):
                        with engine.connect() as connection:
                            self.assertEqual(connection.exec_driver_sql(f'PRAGMA {pragma}').scalar(), value)
                # Whatever was answered must survive a power cut: 2 is FULL.
                with db.engine.connect() as connection:
                    self.assertEqual(connection.exec_driver_sql('PRAGMA synchronous').scalar(), 2)
            dispose(app)

    def test_long_list_is_read_beside_a_writer(self):
        with tempfile.TemporaryDirectory() as folder:
            app = make_app(SQLALCHEMY_DATABASE_URI=f'sqlite:///{folder}/users.db')
            self.addCleanup(dispose, app)
            with app.app_context():
                db.create_all()
                db.session.execute(insert(User), [{'username': 'a', 'email': f'{n}@x.org'} for n in range(2001)])
                db.session.commit()
                with db.engine.begin():
                    self.assertEqual(len(app.test_client().get('/users').json['data']['users']), 2001)
            dispose(app)


class TroubleTest(BaseTestCase):
    def answer(self, error, method='GET'):
        """The status that a failure of the database is answered with."""
        name = 'read' if method == 'GET' else 'write'
        with mock.patch.object(database, name, side_effect=error), self.assertLogs('project'):
            response = self.client.open('/users', method=method, json=ANN)
        self.assert_failure(response, response.status_code)
        self.assertNotIn('secret', response.text)
        self.assertEqual(response.headers.get('Retry-After'), '1' if response.status_code == 503 else None)
        return response.status_code

    def test_trouble_is_told_from_a_wrong_statement(self):
        trouble = '08000 08001 08006 08P01 25006 40001 40P01 53000 53100 53200 53300 55P03 57000 57014 57P01 57P03'
        for sqlstate in trouble.split():
            with self.subTest(sqlstate=sqlstate):
                self.assertEqual((self.answer(refused(sqlstate)), self.answer(refused(sqlstate), 'POST')), (503, 503))
        for sqlstate in (
            '22P02',
            '22001',
            '23502',
            '23503',
            '42601',
            '42501',
            '55000',
            '40002',
            'XX000',
            None,
        ):
            with self.subTest(sqlstate=sqlstate):
                self.assertEqual((self.answer(refused(sqlstate)), self.answer(refused(sqlstate), 'POST')), (500, 500))

    def test_trouble_without_a_code_is_known_by_its_kind(self):
        for error, code in (
            (OperationalError('', {}, psycopg2.OperationalError('secret')), 503),
            (InterfaceError('', {}, psycopg2.InterfaceError('secret')), 503),
            (OperationalError('', {}, database.DeadlineError('secret')), 503),
            (OperationalError('', {}, sqlite3.OperationalError('secret: database or disk is full')), 503),
            (DBAPIError('', {}, Exception('secret'), connection_invalidated=True), 503),
            (PoolTimeout('secret'), 503),
            (database.FrozenError(), 503),
            (ProgrammingError('', {}, psycopg2.ProgrammingError('secret')), 500),
            (IntegrityError('', {}, sqlite3.IntegrityError('secret')), 500),
            (DBAPIError('', {}, Exception('secret')), 500),
        ):
            with self.subTest(error=error):
                self.assertEqual(self.answer(error), code)
        self.assertFalse(database.in_trouble(RuntimeError()))

    def attempts(self, function, *outcomes):
        """How often a statement is sent whose attempts have these outcomes."""
        name = '_run' if function is database.read else '_execute'
        with mock.patch.object(database, name, side_effect=outcomes) as run:
            try:
                self.assertEqual(function(text('SELECT 1')), ['row'])
            except DBAPIError:
                return -run.call_count
            return run.call_count

    def test_only_what_was_rolled_back_is_written_again(self):
        rows, conflict, deadlock = ['row'], refused('40001'), refused('40P01')
        self.assertEqual(self.attempts(database.write, rows), 1)
        self.assertEqual(self.attempts(database.write, conflict, rows), 2)
        self.assertEqual(self.attempts(database.write, conflict, deadlock, rows), 3)
        self.assertEqual(self.attempts(database.write, conflict, deadlock, conflict, rows), -3)
        gone = DBAPIError('', {}, psycopg2.OperationalError('gone'), connection_invalidated=True)
        for error in (refused('57P01'), refused('08006'), gone, refused('23505')):
            with self.subTest(error=error.orig):
                self.assertEqual(self.attempts(database.write, error, rows), -1)

    def test_read_is_tried_once_more(self):
        rows = ['row']
        gone = DBAPIError('', {}, psycopg2.OperationalError('gone'), connection_invalidated=True)
        for error in (gone, refused('40001')):
            with self.subTest(error=error.orig):
                self.assertEqual(self.attempts(database.read, error, rows), 2)
                self.assertEqual(self.attempts(database.read, error, error, rows), -2)
        self.assertEqual(self.attempts(database.read, refused('42P01'), rows), -1)
        late = DBAPIError('', {}, database.DeadlineError('late'), connection_invalidated=True)
        self.assertEqual(self.attempts(database.read, late, rows), -1)

    def pool_of(self, *connections):
        """Let the statements run on these connections, one after the other, which are mocks."""
        engine = mock.Mock(**{'raw_connection.side_effect': connections})
        engine.dialect = psycopg2_dialect.dialect(dbapi=psycopg2)
        self.enterContext(mock.patch.dict(self.app.extensions['engines'], autocommit=engine))
        return engine

    def connection(self):
        """A pooled connection whose server is there; and that server, a socket."""
        here, there = socket.socketpair()
        self.addCleanup(here.close)
        self.addCleanup(there.close)
        driver = {'dbapi_connection.fileno.return_value': here.fileno(), 'dbapi_connection.closed': 0}
        connection = mock.Mock(**driver)
        connection.cursor.return_value.fetchall.return_value = ['row']
        return connection, there

    def test_connection_that_died_is_replaced_before_it_is_used(self):
        (dead, server), (closed, _), (alive, _) = (self.connection() for _ in range(3))
        server.close()  # as the server does when it stops
        closed.dbapi_connection.closed = 2  # as psycopg2 does when its wait was broken off
        self.pool_of(dead, closed, alive)
        self.assertEqual(database.read(text('SELECT 1')), ['row'])
        for connection in (dead, closed):
            connection.invalidate.assert_called_once_with()
            connection.cursor.assert_not_called()
        alive.invalidate.assert_not_called()
        alive.close.assert_called_once_with()

    def test_disconnected_connection_is_replaced_before_a_write(self):
        (dead, server), (alive, _) = self.connection(), self.connection()
        server.close()
        engine = self.pool_of()
        connection = engine.connect.return_value = mock.MagicMock()
        connection.__enter__.return_value = connection
        type(connection).connection = mock.PropertyMock(side_effect=[dead, alive])
        connection.execute.return_value.all.return_value = ['row']
        self.assertEqual(database.write(text('SELECT 1')), ['row'])
        connection.invalidate.assert_called_once_with()

    def test_slow_read_disconnects_all_idle_connections(self):
        connection, _ = self.connection()

        def fail(*args):
            connection.dbapi_connection.closed = 1
            raise database.DeadlineError('late')

        connection.cursor.return_value.execute.side_effect = fail
        engine = self.pool_of(connection)
        with self.assertRaises(OperationalError):
            database.read(User.by_id(), {})
        engine.pool._invalidate.assert_called_once()

    def test_slow_commit_says_nothing_against_other_connections_but_a_lost_server_does(self):
        error = psycopg2.Error()
        error.__setstate__({'pgcode': '25006'})
        for original, lost, all_replaced in ((database.DeadlineError('late'), False, False), (error, True, True)):
            with self.subTest(error=type(original).__name__):
                context = SimpleNamespace(original_exception=original, is_disconnect=False)
                database._judge_connection(context)
                self.assertEqual((context.is_disconnect, context.invalidate_pool_on_disconnect), (lost, all_replaced))

    def test_stream_of_postgresql_is_one_cursor_that_starts_at_once(self):
        for taken in (2, 1):
            with self.subTest(taken=taken), mock.patch.object(database, '_engine') as engine:
                engine.return_value.dialect.name = 'postgresql'
                connection = engine.return_value.connect.return_value
                (dead, server), (alive, _) = self.connection(), self.connection()
                server.close()
                # One dead connection, and then its replacement.
                type(connection).connection = mock.PropertyMock(side_effect=[dead, alive])
                cursor = connection.execution_options.return_value.execute.return_value
                cursor.partitions.return_value = iter([['a'], ['b']])
                stream = database.stream(text('SELECT 1'), {}, 1)
                self.assertEqual([next(stream) for _ in range(taken)], [['a'], ['b']][:taken])
                self.assertIn('cursor_tuple_fraction', str(connection.execute.call_args.args[0]))
                self.assertTrue(connection.execution_options.call_args.kwargs['stream_results'])
                connection.close.assert_not_called()
                connection.invalidate.assert_called_once_with()
                self.assertIsNone(next(stream, None)) if taken == 2 else stream.close()
                connection.close.assert_called_once_with()

    def test_server_that_becomes_a_standby_or_goes_loses_its_connections(self):
        for sqlstate, lost in (('25006', True), ('57P01', True), ('57P02', True), ('57P03', True), ('23505', False)):
            with self.subTest(sqlstate=sqlstate):
                connection = SimpleNamespace(dbapi_connection=SimpleNamespace(closed=0))
                self.assertIs(
                    database._leads_nowhere(
                        refused(sqlstate).orig, connection, psycopg2_dialect.dialect(dbapi=psycopg2)
                    ),
                    lost,
                )


class ConnectTest(BaseTestCase):
    """How PostgreSQL is connected to; the driver is a mock."""

    def tried(self, hosts, names):
        """The addresses that a request tries, each as host, port and IP address, when none of them answers.

        :param names: the IP addresses of each host; one that has none is unknown.
        """

        def look_up(host, *args, **options):
            if host not in names:
                raise socket.gaierror('secret')
            return [(2, 1, 6, '', (address, 0)) for address in names[host]]

        client = self.client_of(SQLALCHEMY_DATABASE_URI=f'postgres://u:p@{hosts}')
        unreachable = mock.patch('psycopg2.connect', side_effect=psycopg2.OperationalError('secret'))
        with unreachable as connect, mock.patch('socket.getaddrinfo', look_up), self.assertLogs('project'):
            self.assert_failure(client.get('/users'), 503)
        calls = [call.kwargs for call in connect.call_args_list]
        return [(call['host'], str(call.get('port') or ''), call.get('hostaddr') or '') for call in calls]

    def test_every_address_of_every_host_is_tried(self):
        for hosts, names, tried in (
            ('127.0.0.1/d', {'127.0.0.1': ['127.0.0.1']}, [('127.0.0.1', '', '127.0.0.1')]),
            ('db:5433/d', {'db': ['10.0.0.1', '10.0.0.2']}, [('db', '5433', '10.0.0.1'), ('db', '5433', '10.0.0.2')]),
            (
                '/d?host=a:1&host=gone:3&host=b:2',
                {'a': ['10.0.0.1'], 'b': ['10.0.0.2']},
                [('a', '1', '10.0.0.1'), ('b', '2', '10.0.0.2')],
            ),
            ('/d?host=/run/postgresql', {}, [('/run/postgresql', '', '')]),
            ('gone/d', {}, []),
        ):
            with self.subTest(hosts=hosts):
                self.assertEqual(self.tried(hosts, names), tried)

    def test_first_address_that_answers_is_taken(self):
        app = make_app(SQLALCHEMY_DATABASE_URI='postgres://u:p@/d?host=10.0.0.1:1&host=10.0.0.2:2&host=10.0.0.3:3')
        self.addCleanup(dispose, app)
        with app.app_context():
            (connect,) = db.engine.dialect.dispatch.do_connect
            dialect, arguments = db.engine.dialect, db.engine.dialect.create_connect_args(db.engine.url)[1]
        silent, refusing = database.DeadlineError('silent'), psycopg2.OperationalError('refusing')
        for outcomes in (
            (1, None, None),
            (refusing, 1, None),
            (silent, 1, None),
            (silent, refusing, 1),
            (refusing, silent, 1),
        ):
            with self.subTest(outcomes=outcomes), mock.patch('psycopg2.connect', side_effect=outcomes) as connected:
                self.assertEqual(connect(dialect, None, (), arguments), 1)
                self.assertEqual(connected.call_count, outcomes.index(1) + 1)
        for outcomes in ((refusing,) * 3, (silent,) * 3, (silent, refusing, refusing), (refusing, refusing, silent)):
            unreachable = mock.patch('psycopg2.connect', side_effect=outcomes)
            with self.subTest(outcomes=outcomes), unreachable, self.assertRaises(psycopg2.OperationalError):
                connect(dialect, None, (), arguments)

    def test_name_service_that_is_slow_is_not_waited_for(self):
        client = self.client_of(SQLALCHEMY_DATABASE_URI='postgres://u:p@slow/d')
        answer = threading.Event()
        self.addCleanup(answer.set)
        slow = mock.patch('socket.getaddrinfo', side_effect=lambda *_, **__: answer.wait(60) or [])
        with mock.patch('psycopg2.connect') as connect, slow, mock.patch.object(database, 'CONNECT_SECONDS', 0.02):
            with self.assertLogs('project'):
                self.assert_failure(client.get('/users'), 503)
            connect.assert_not_called()
            answer.set()

    def test_frozen_database_is_asked_again_in_a_while_and_by_one_at_a_time(self):
        client = self.client_of(SQLALCHEMY_DATABASE_URI='postgres://u:p@127.0.0.1:1/d')
        connect = self.enterContext(mock.patch('psycopg2.connect', side_effect=database.DeadlineError))
        self.enterContext(self.assertLogs('project'))
        with mock.patch.object(database, 'BREAK_SECONDS', 60):
            for _ in range(5):
                self.assertEqual(client.get('/users').status_code, 503)
                self.assertEqual(client.post('/users', json=ANN).status_code, 503)
            self.assertEqual(connect.call_count, 1)
        clock = mock.patch('time.monotonic', side_effect=lambda now=time.monotonic: now() + 61)
        with clock:
            # While the one asks, the others do not.
            connect.side_effect = lambda **_: self.assertEqual(client.get('/users').status_code, 503) or fail()
            self.assertEqual(client.get('/users').status_code, 503)
            self.assertEqual(connect.call_count, 2)

    def test_database_that_refuses_is_asked_each_time(self):
        client = self.client_of(SQLALCHEMY_DATABASE_URI='postgres://u:p@127.0.0.1:1/d')
        connect = self.enterContext(mock.patch('psycopg2.connect', side_effect=psycopg2.OperationalError))
        self.enterContext(self.assertLogs('project'))
        for _ in range(3):
            self.assertEqual(client.get('/users').status_code, 503)
        self.assertEqual(connect.call_count, 3)

    def test_connections_are_utf8_whatever_the_server_prefers(self):
        client = self.client_of(SQLALCHEMY_DATABASE_URI='postgres://u:p@127.0.0.1:1/d')
        with (
            mock.patch('psycopg2.connect', side_effect=psycopg2.OperationalError) as connect,
            self.assertLogs('project'),
        ):
            client.get('/users')
        self.assertEqual(connect.call_args.kwargs['client_encoding'], 'utf8')


def fail():
    raise database.DeadlineError


class DeadlineTest(unittest.TestCase):
    """The wait for an answer, over a socket on which none comes unless it is sent."""

    def setUp(self):
        self.here, self.there = socket.socketpair()
        self.addCleanup(self.here.close)
        self.addCleanup(self.there.close)

    def connection(self, *states):
        """A connection of psycopg2 that is in these states one after the other, and stays in the last."""
        states = list(states)
        poll = mock.Mock(side_effect=lambda: states.pop(0) if len(states) > 1 else states[0])
        return mock.Mock(poll=poll, fileno=self.here.fileno)

    def test_call_that_is_done_is_not_waited_for(self):
        with database.deadline(0):
            database._wait(self.connection(psycopg2.extensions.POLL_OK))

    def test_answer_is_waited_for(self):
        self.there.send(b'x')
        states = psycopg2.extensions.POLL_WRITE, psycopg2.extensions.POLL_READ, psycopg2.extensions.POLL_OK
        database._wait(self.connection(*states))
        with database.deadline(60):
            database._wait(self.connection(*states))

    def test_answer_that_does_not_come_is_given_up(self):
        connection = self.connection(psycopg2.extensions.POLL_READ)
        with database.deadline(0.01), self.assertRaises(database.DeadlineError):
            database._wait(connection)
        connection.cancel.assert_not_called()  # a COMMIT that is cancelled may tell of a success that is none

    def test_one_call_has_its_own_deadline(self):
        short = mock.patch.object(database, 'CALL_SECONDS', 0.01)
        with short, database.deadline(60), self.assertRaises(database.DeadlineError):
            database._wait(self.connection(psycopg2.extensions.POLL_READ))

    def test_answers_that_trickle_in_do_not_extend_the_deadline(self):
        self.there.send(b'x')  # never read, so there always seems to be something
        with database.deadline(0.05), self.assertRaises(database.DeadlineError):
            database._wait(self.connection(psycopg2.extensions.POLL_READ))

    def test_inner_deadline_cannot_extend_the_outer(self):
        states = psycopg2.extensions.POLL_READ, psycopg2.extensions.POLL_OK
        with mock.patch.object(database, '_await_socket', return_value=True) as wait:
            with database.deadline(1), database.deadline(2):
                database._wait(self.connection(*states))
                self.assertLessEqual(wait.call_args.args[2], 1)
            with database.deadline(2):
                with database.deadline(1):
                    pass
                database._wait(self.connection(*states))
                self.assertGreater(wait.call_args.args[2], 1)

    def under_gevent(self):
        """The module as gunicorn's worker loads it."""
        import gevent.monkey  # here, since the module asks whether it is there

        spec = importlib.util.spec_from_file_location('database_under_gevent', database.__file__)
        module = importlib.util.module_from_spec(spec)
        with mock.patch('gevent.monkey.is_module_patched', return_value=True):
            spec.loader.exec_module(module)
        self.addCleanup(lambda: gevent.get_hub().destroy(destroy_loop=True))
        return module

    def test_greenlets_wait_as_threads_do(self):
        for module in (database, self.under_gevent()):
            with self.subTest(module=module.__name__):
                wait = module._await_socket
                for _ in range(2):
                    self.assertFalse(wait(self.here.fileno(), True, 0.01))
                    self.assertTrue(wait(self.here.fileno(), False, 60))
                    self.there.send(b'x')
                    self.assertTrue(wait(self.here.fileno(), True, 60))
                    self.assertTrue(wait(self.here.fileno(), True, None))
                    self.here.recv(1)
                    # Another connection gets the same file descriptor.
                    here, self.there = socket.socketpair()
                    self.addCleanup(self.there.close)
                    os.dup2(here.fileno(), self.here.fileno())
                    here.close()

    def test_greenlets_share_a_pool_as_threads_do(self):
        for module in (database, self.under_gevent()):
            with self.subTest(module=module.__name__):
                pool = module._Pool(mock.Mock, 1, 1, 0.01)
                first, second = pool.connect(), pool.connect()
                kept, driver = first.dbapi_connection, second.dbapi_connection
                self.assertRaises(PoolTimeout, pool.connect)
                first.close()
                second.close()  # for which there is no room
                driver.close.assert_called_once_with()
                self.assertEqual(pool.checkedin(), 1)
                self.assertIs(pool.connect().dbapi_connection, kept)
                self.assertIsNot(pool.recreate().connect().dbapi_connection, kept)
