"""The commands of the users service: ``python manage.py`` lists them."""

import io
import sys

# Before the imports, which need it. This file has only syntax that Python 2 can parse, so that it prints this message.
if sys.version_info < (3, 11):
    sys.exit('The users service needs Python 3.11 or later; this is %d.%d.' % sys.version_info[:2])

from sqlalchemy.exc import DBAPIError

from project import config, create_app
from project.commands import bench, recreating, schema, server, tests, users
from project.commands.script_compat import Manager

if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors='backslashreplace')  # for a console whose encoding lacks a character, as stderr does

try:
    app = create_app()
except config.SettingsError as error:
    sys.stderr.write('%s\n' % error)
    # gunicorn's master does not restart a worker that exits with 3.
    sys.exit(3)

manager = Manager(app, description='The users service.')
manager.add_command('runserver', server.RunServer(use_reloader=app.debug))
manager.add_command('shell', server.AppShell())
manager.add_command('check_settings', server.CheckSettings())
manager.add_command('test', tests.Test())
manager.add_command('cov', tests.Cov())
manager.add_command('recreate_db', recreating.RecreateDb())
manager.add_command('seed_db', users.SeedDb())
manager.add_command('dump_users', users.DumpUsers())
manager.add_command('load_users', users.LoadUsers())
manager.add_command('bench', bench.Bench())
manager.add_command('routes', server.Routes())
manager.add_command('db', schema.db_manager)


if __name__ == '__main__':
    try:
        manager.run()
    except KeyboardInterrupt:
        sys.stderr.write('Interrupted.\n')
        sys.exit(130)  # 128 and the number of the signal, as in a shell
    except DBAPIError as error:
        sys.exit('Database error: %s' % str(error.orig).strip().splitlines()[0])
