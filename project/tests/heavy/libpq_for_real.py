"""Parameters of libpq, with real servers: TLS and its files, passwords, Unix sockets, a primary and a standby.

``python manage.py test libpq_for_real`` needs the server programs of PostgreSQL, and openssl.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

from sqlalchemy import text

from project import db
from project.database import hosts
from project.tests.base import ROOT, dispose, make_app
from project.tests.support.fault_case import FaultCase

HBA = """
local   all   all                 trust
hostssl users tls 127.0.0.1/32    cert
host    users tls 127.0.0.1/32    reject
host    users pw  127.0.0.1/32    scram-sha-256
host    all   all 127.0.0.1/32    trust
"""
SELF_SIGNED = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
STATE = text(
    'SELECT current_user, current_database(), pg_is_in_recovery(), (SELECT ssl FROM pg_stat_ssl WHERE pid ='
    ' pg_backend_pid()), inet_server_addr() IS NULL'
)


class LibpqForRealTest(FaultCase):
    def setUp(self):
        super().setUp()
        hosts._timed_out.clear()

    def certificate(self, name, common_name, *options):
        """Make a self-signed certificate and its key, and return their paths."""
        certificate, key = self.directory / f'{name}.crt', self.directory / f'{name}.key'
        subject = ['-subj', f'/CN={common_name}', '-keyout', key, '-out', certificate]
        subprocess.run(['openssl', *SELF_SIGNED, *subject, *options], check=True, capture_output=True, timeout=60)
        return certificate, key

    def state(self, url, variables):
        """Connect the service to ``url``, and return the row of :data:`STATE`: its user and database, for example."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith('PG')}
        with mock.patch.dict(os.environ, kept | {'HOME': str(self.directory)} | variables, clear=True):
            app = make_app(SQLALCHEMY_DATABASE_URI=url)
            self.addCleanup(dispose, app)
            with app.app_context():
                row = db.session.execute(STATE).one()
                self.assertEqual(app.extensions['database'].read(STATE), [tuple(row)])
                return tuple(row)

    def test_each_url_of_one_server(self):
        sockets = self.directory / 'sockets'
        sockets.mkdir(mode=0o777)
        sockets.chmod(0o777)
        certificate, key = self.certificate('server', 'localhost', '-addext', 'subjectAltName=DNS:localhost')
        client, client_key = self.certificate('client', 'tls')
        if os.geteuid() == 0:
            shutil.chown(key, 'postgres', 'postgres')
        files = f'ssl_cert_file={certificate}', f'ssl_key_file={key}', f'ssl_ca_file={client}'
        cluster = self.start_cluster('tls', 'ssl=on', *files, f'unix_socket_directories={sockets}')
        cluster.sql("CREATE ROLE tls LOGIN; CREATE ROLE pw LOGIN PASSWORD 'p%@:/#?w'")
        (cluster.data / 'pg_hba.conf').write_text(HBA)
        cluster.sql('SELECT pg_reload_conf()')
        port = str(cluster.port)
        (self.directory / 'passwords').write_text(f'*:{port}:users:pw:p%@\\:/#?w\n')
        (self.directory / 'passwords').chmod(0o600)
        (self.directory / '.pg_service.conf').write_text(
            f'[secure]\nhost=localhost\nport={port}\nuser=users\ndbname=users\n'
            f'sslmode=verify-full\nsslrootcert={certificate}\n[local]\nhost={sockets}\nport={port}\nuser=users\n'
        )
        encoded = str(sockets).replace('/', '%2F')
        passwords = {'PGPASSFILE': str(self.directory / 'passwords')}
        authorities = {'PGSSLMODE': 'verify-full', 'PGSSLROOTCERT': str(certificate)}
        host, tls, pw = f'127.0.0.1:{port}', ('tls', 'users'), ('pw', 'users')
        anyone = ('users', 'users')
        for url, variables, expected in (
            # user and database, whether by TLS, whether by a Unix socket
            (f'postgresql://users@{host}/users', {}, (anyone, True, False)),
            (f'postgresql://users@{host}/users?sslmode=disable', {}, (anyone, False, False)),
            (f'postgresql://users@{host}/users', {'PGSSLMODE': 'disable'}, (anyone, False, False)),
            (f'postgresql://users@{host}/users?sslmode=require', {'PGSSLMODE': 'disable'}, (anyone, True, False)),
            (f'postgresql://users@{host}/users?sslmode=verify-ca&sslrootcert={certificate}', {}, (anyone, True, False)),
            (f'postgresql://users@localhost:{port}/users', authorities, (anyone, True, False)),
            (f'postgresql://users@localhost:{port}/users?hostaddr=127.0.0.1', authorities, (anyone, True, False)),
            ('postgresql://?service=secure', {}, (anyone, True, False)),
            ('postgresql://', {'PGSERVICE': 'secure'}, (anyone, True, False)),
            (f'postgresql://tls@{host}/users?sslcert={client}&sslkey={client_key}', {}, (tls, True, False)),
            (
                f'postgresql://tls@{host}/users',
                {'PGSSLCERT': str(client), 'PGSSLKEY': str(client_key)},
                (tls, True, False),
            ),
            (f'postgresql://pw:p%25%40%3A%2F%23%3Fw@{host}/users', {}, (pw, True, False)),
            (f'postgresql://pw@{host}/users', {'PGPASSWORD': 'p%@:/#?w'}, (pw, True, False)),
            (f'postgresql://pw@{host}/users', passwords, (pw, True, False)),
            (f'postgresql://pw@{host}/users?passfile={passwords["PGPASSFILE"]}', {}, (pw, True, False)),
            (f'postgresql://users@/users?host={sockets}&port={port}', {}, (anyone, False, True)),
            (f'postgresql://users@{encoded}:{port}/users', {}, (anyone, False, True)),
            ('postgresql://users@/users', {'PGHOST': str(sockets), 'PGPORT': port}, (anyone, False, True)),
            ('postgresql:///users?service=local', {}, (anyone, False, True)),
            (f'postgresql://users@{encoded}:1,{host}/users?sslmode=require', {}, (anyone, True, False)),
        ):
            with self.subTest(url=url, **variables):
                user, database, _, encrypted, local = self.state(url, variables)
                self.assertEqual(((user, database), encrypted, local), expected)

        for url in (
            f'postgresql://users@127.0.0.1:{port}/users?sslmode=verify-full&sslrootcert={certificate}',  # another name
            f'postgresql://users@localhost:{port}/users?sslmode=verify-full&sslrootcert={client}',
            f'postgresql://tls@{host}/users?sslmode=disable',
        ):
            with self.subTest(url=url), self.assertRaisesRegex(Exception, 'certificate|reject'):
                self.state(url, {})

    def test_each_url_of_a_primary_and_a_standby(self):
        primary = self.start_cluster('primary')
        standby = self.start_cluster('standby', standby_of=primary)
        for order in ((primary, standby), (standby, primary)):
            hosts, ports = '127.0.0.1,127.0.0.1', ','.join(str(cluster.port) for cluster in order)
            authority = ','.join(f'127.0.0.1:{cluster.port}' for cluster in order)
            for wanted, is_standby in (
                ('read-write', False),
                ('primary', False),
                ('read-only', True),
                ('standby', True),
                ('prefer-standby', True),
                ('any', order[0] is standby),
            ):
                for url, variables in (
                    (f'postgresql://users@{authority}/users?target_session_attrs={wanted}', {}),
                    (f'postgresql://users@{authority}/users', {'PGTARGETSESSIONATTRS': wanted}),
                    ('postgresql://users@/users', {'PGHOST': hosts, 'PGPORT': ports, 'PGTARGETSESSIONATTRS': wanted}),
                ):
                    with self.subTest(url=url, **variables):
                        self.assertEqual(self.state(url, variables)[2], is_standby)
        standby.stop()
        url = f'postgresql://users@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/users'
        self.assertFalse(self.state(f'{url}?target_session_attrs=prefer-standby', {})[2])

    def test_commands_use_the_server_of_the_variables(self):
        cluster = self.start_cluster('commands')
        environ = {'PATH': os.environ['PATH'], 'PGHOST': '127.0.0.1', 'PGPORT': str(cluster.port), 'PGUSER': 'users'}
        environ['DATABASE_URL'] = 'postgresql:///users'
        said = self.run_command(environ, 'recreate_db')
        self.assertIn(f'Dropped the 0 users in users at 127.0.0.1:{cluster.port}.', said)
        self.assertEqual(cluster.sql('SELECT count(*) FROM users'), [(0,)])
        environ['DATABASE_TEST_URL'] = cluster.dsn()
        self.assertIn('DATABASE_TEST_URL names the database of DATABASE_URL', self.run_command(environ, 'test'))

    def run_command(self, environ, *arguments):
        """Return what a command of manage.py prints."""
        command = [sys.executable, Path('manage.py'), *arguments]
        ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
        return ended.stdout + ended.stderr
