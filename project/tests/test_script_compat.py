import argparse
import inspect
import io
import runpy
import sys
import unittest
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

import flask
from flask import Flask, current_app

import project.commands.script_compat
from project.commands.script_compat import Command, Manager, Option, Server, Shell, flask_script

PLAIN_SHELL = ['shell', '--no-ipython', '--no-bpython', '--no-ptipython', '--no-ptpython']


def a_manager(app):
    """Return a manager of `app`, or of a function that makes one, with commands of each kind."""
    manager = Manager(app)
    schema = Manager(help='Change the schema.')
    manager.add_command('db', schema)
    manager.add_command('runserver', Server())

    @schema.command
    def upgrade(revision='head'):
        """Apply 100 % of the migrations."""
        return f'{current_app.name}: {revision}'

    @manager.command
    def greet(name, loud=False, times='1'):
        """Greet someone.
        As often as you like.

        Only the paragraph above is for the reader of the help.
        """
        return name, loud, times

    @manager.option('names', nargs='*')
    @manager.option('-c', '--count', type=int, default=2)
    def count(names, count):
        return names, count

    class Rest(Command):
        capture_all_args = True
        option_list = (Option('--first'),)

        def run(self, rest, first):
            return rest, first

    manager.add_command('rest', Rest)
    return manager


class FlaskScriptTest(unittest.TestCase):
    def setUp(self):
        # argparse wraps to the width of the terminal, and colours since Python 3.14.
        self.enterContext(mock.patch.dict('os.environ', COLUMNS='80', PYTHON_COLORS='0'))
        self.manager = a_manager(lambda: Flask('probe'))

    def run_command(self, *args, status=None):
        """Return the command's result. With `status`, check that it exits with it, and return stdout and stderr."""
        if status is None:
            return self.manager.handle('manage.py', args)
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), self.assertRaises(SystemExit) as end:
            self.manager.handle('manage.py', args)
        self.assertEqual(end.exception.code, status, err.getvalue())
        return out.getvalue(), err.getvalue()

    def test_flask_and_the_standard_library_are_left_as_they_were(self):
        self.assertNotIn('flask._compat', sys.modules)
        for module, name in (flask, '_compat'), (flask, '_request_ctx_stack'), (inspect, 'getargspec'):
            self.assertFalse(hasattr(module, name), name)
        self.assertEqual(argparse.ArgumentParser.__module__, 'argparse')
        # Newer versions of argparse have a method of this name, which no parser may hide.
        self.assertNotIn('_parse_known_args2', vars(self.manager.create_parser('manage.py')))

    def test_arguments_of_a_function_become_arguments_of_its_command(self):
        self.assertEqual(self.run_command('greet', 'ann'), ('ann', False, '1'))
        self.assertEqual(self.run_command('greet', '-l', 'ann', '--times', '3'), ('ann', True, '3'))

    def test_options_and_positional_arguments_are_parsed(self):
        self.assertEqual(self.run_command('count'), ([], 2))
        self.assertEqual(self.run_command('count', '-c', '7', 'a', 'b'), (['a', 'b'], 7))

    def test_command_can_take_the_rest_of_the_line(self):
        self.assertEqual(self.run_command('rest', '--first', '1', '--other', 'x'), (['--other', 'x'], '1'))

    def test_sub_manager_runs_its_commands_in_the_app(self):
        self.assertEqual(self.run_command('db', 'upgrade'), 'probe: head')
        self.assertEqual(self.run_command('db', 'upgrade', '-r', '1a'), 'probe: 1a')

    def test_manager_takes_an_app_as_well(self):
        self.manager = a_manager(Flask('ready'))
        self.assertEqual(self.run_command('db', 'upgrade'), 'ready: head')

    def test_namespace_makes_a_sub_manager(self):
        self.manager.add_command('one', Command(lambda: 1), namespace='more')
        self.assertEqual(self.run_command('more', 'one'), 1)
        self.assertIn('one', self.run_command('more', status=2)[0])
        self.assertRegex(self.run_command('--help', status=0)[0], r'(?m)^ +more$')

    def test_module_can_be_run_again(self):
        # As when coverage is measured: the modules of the project are imported again, but not Flask-Script.
        for module in flask_script, flask_script.commands:
            self.enterContext(mock.patch.dict(vars(module)))
        again = runpy.run_path(project.commands.script_compat.__file__)
        self.manager = again['Manager'](lambda: Flask('probe'))
        schema = again['Manager']()
        schema.add_command('check', again['Command'](lambda: 1))
        self.manager.add_command('db', schema)
        self.assertEqual(self.run_command('db', 'check'), 1)
        self.assertTrue(self.run_command('db', 'check', '-?', status=0)[0].startswith('usage: manage.py db check '))

    def test_help_lists_the_commands_with_one_line_each(self):
        for args, status in ([], 2), (['--help'], 0), (['-h'], 0), (['-?'], 0):
            with self.subTest(args=args):
                out, err = self.run_command(*args, status=status)
                self.assertEqual(err, '')
                self.assertTrue(out.startswith('usage: manage.py'), out)
                for line in (
                    r'db +Change the schema\.',
                    r'greet +Greet someone\.',
                    r'count',
                    r'runserver +Runs the Flask development server i\.e\. app\.run\(\)',
                    r'shell +Runs a Python shell inside Flask application context\.',
                ):
                    self.assertRegex(out, rf'(?m)^ +{line}$')
                self.assertNotIn('Only the paragraph', out)

    def test_help_of_a_sub_manager_lists_its_commands(self):
        for args, status in ([], 2), (['--help'], 0):
            with self.subTest(args=args):
                out, err = self.run_command('db', *args, status=status)
                self.assertEqual(err, '')
                self.assertTrue(out.startswith('usage: manage.py db '), out)
                self.assertIn('\n\nChange the schema.\n\n', out)
                self.assertRegex(out, r'(?m)^ +upgrade +Apply 100 % of the migrations\.$')

    def test_every_command_has_help(self):
        for command, text in (
            (['greet'], 'Greet someone. As often as you like.\n\n'),
            (['db', 'upgrade'], 'Apply 100 % of the migrations.\n\n'),
            (['runserver'], '--port'),
            (['shell'], '--no-ipython'),
        ):
            with self.subTest(command=command):
                out, err = self.run_command(*command, '--help', status=0)
                self.assertEqual(err, '')
                self.assertTrue(out.startswith(f'usage: manage.py {" ".join(command)} '), out)
                self.assertIn(text, out)
                self.assertNotIn('Only the paragraph', out)

    def test_wrong_command_line_is_one_line_and_status_2(self):
        for args, start, cause in (
            (['nope'], 'manage.py: error: ', "argument COMMAND: invalid choice: 'nope'"),
            (['--nope'], 'manage.py: error: ', 'unrecognized arguments: --nope'),
            (['--nope', 'count'], 'manage.py: error: ', 'unrecognized arguments: --nope'),
            (['db', 'nope'], 'manage.py db: error: ', "argument COMMAND: invalid choice: 'nope'"),
            (['db', '--nope'], 'manage.py db: error: ', 'unrecognized arguments: --nope'),
            (['db', 'upgrade', '--nope'], 'manage.py db upgrade: error: ', 'unrecognized arguments: --nope'),
            (['greet'], 'manage.py greet: error: ', 'required: name'),
            (['greet', 'ann', 'bob'], 'manage.py greet: error: ', 'unrecognized arguments: bob'),
            (['count', '-c', 'x'], 'manage.py count: error: ', "invalid int value: 'x'"),
            (['runserver', '-p', '65536'], 'runserver: error: ', 'must be 0 to 65535'),
            (['runserver', '--ssl-crt', __file__], 'runserver: error: ', 'give both'),
            (['runserver', '--ssl-crt', 'x', '--ssl-key', 'y'], 'runserver: error: ', 'the path of a file'),
        ):
            with self.subTest(args=args), mock.patch.object(Flask, 'run'):
                out, err = self.run_command(*args, status=2)
                self.assertEqual(out, '')
                self.assertTrue(err.startswith(start), err)
                self.assertIn(cause, err)
                self.assertEqual((err.count('\n'), err[-1]), (1, '\n'))

    def test_runserver_is_threaded_unless_it_has_several_processes(self):
        for args, expected in (
            ([], {'host': '127.0.0.1', 'port': 5000, 'threaded': True, 'use_reloader': False}),
            (['--threaded', '--processes', '2'], {'threaded': False, 'processes': 2}),
            (['-h', '0.0.0.0', '-p', '0', '-r'], {'host': '0.0.0.0', 'port': 0, 'use_reloader': True}),
            (['--ssl-crt', __file__, '--ssl-key', __file__], {'ssl_context': (__file__, __file__)}),
        ):
            with self.subTest(args=args), mock.patch.object(Flask, 'run') as run:
                self.run_command('runserver', *args)
                self.assertLessEqual(expected.items(), run.call_args.kwargs.items())

    def test_shell_gets_its_context(self):
        shells = [
            (Shell(), {'app'}),
            (Shell(make_context=lambda: {'app': current_app, 'x': 1}), {'app', 'x'}),
        ]
        for shell, names in shells:
            with self.subTest(names=names), mock.patch('code.interact') as interact:
                interact.side_effect = lambda banner, local: self.assertEqual(local['app'].name, 'probe')
                self.manager.add_command('shell', shell)
                self.run_command(*PLAIN_SHELL)
                self.assertEqual(interact.call_args.kwargs['local'].keys(), names)

    def test_result_of_a_command_is_the_exit_status(self):

        @self.manager.command
        def answer(status):
            return int(status)

        for status in 0, 3:
            with self.subTest(status=status), mock.patch('sys.argv', ['manage.py', 'answer', str(status)]):
                with self.assertRaises(SystemExit) as end:
                    self.manager.run()
                self.assertEqual(end.exception.code, status)
