"""The page /docs in Chromium: it sends requests, and shows the responses.

Not among the tests that run by default: ``python manage.py test docs_in_browser``, after
``pip install -r .ci/requirements.txt`` and ``apt-get install chromium``.
"""

import re
import shutil
import tempfile
import unittest
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import expect, sync_playwright

from project.tests.base import scratch_database
from project.tests.support.browsing import CHROMIUM_OPTIONS
from project.tests.support.servers import HOST, TOKEN, Server, manage

# The browser calls this for each violation of the page's Content-Security-Policy.
REPORT_VIOLATIONS = """
addEventListener('securitypolicyviolation', event => violated(`${event.violatedDirective} ${event.blockedURI}`));
"""


class DocsInBrowserTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.start_server(PROTECT='all')
        cls.site = f'http://{HOST}:{cls.server.port}'
        chromium = cls.enterClassContext(sync_playwright()).chromium
        cls.browser = chromium.launch(executable_path=shutil.which('chromium'), args=CHROMIUM_OPTIONS)
        cls.addClassCleanup(cls.browser.close)

    @classmethod
    def start_server(cls, **settings: str) -> Server:
        """Start the service on an empty database. It runs until the tests of this class have ended."""
        directory = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        url = cls.enterClassContext(scratch_database())
        manage(url, 'db', 'upgrade')
        server = Server(directory, url, **settings)
        cls.addClassCleanup(server.kill)
        server.start()
        return server

    def setUp(self):
        self.page = self.browser.new_page()
        self.addCleanup(self.page.close)
        self.page.set_default_timeout(20_000)
        self.hosts, self.problems = set(), []
        self.page.on('request', lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.on('pageerror', lambda error: self.problems.append(str(error)))
        self.page.on('console', lambda message: self.problems.append(f'{message.type}: {message.text}'))
        self.page.expose_function('violated', lambda what: self.problems.append(f'blocked: {what}'))
        self.page.add_init_script(REPORT_VIOLATIONS)

    def open(self, operation):
        """Open one operation of the page, ready to be tried out, and return its part of the page."""
        part = self.page.locator(f'[id$="-{operation}"]')
        part.get_by_role('button').first.click()
        return part

    def execute(self, part):
        """Send the request that an operation shows, and return the part of the page that shows the response."""
        part.get_by_role('button', name='Execute').click()
        return part.locator('.live-responses-table .response')

    def authorize(self):
        """Enter the token in the page, as a user does."""
        self.page.get_by_role('button', name='Authorize').click()
        dialog = self.page.locator('.modal-ux')
        dialog.get_by_role('textbox').fill(TOKEN)
        dialog.get_by_role('button', name='Apply credentials').click()
        dialog.get_by_role('button', name='Close').first.click()

    def assert_quiet(self):
        """Check that the page sent requests to the service only, and that the browser logged no problem."""
        self.assertEqual(self.hosts, {urlsplit(self.site).netloc})
        self.assertEqual(self.problems, [])

    def test_user_is_added_and_removed_by_trying_it_out(self):
        self.page.goto(f'{self.site}/docs')
        self.authorize()
        response = self.execute(self.open('addUser'))
        expect(response).to_contain_text('201')
        expect(response).to_contain_text('ann@example.com was added!')
        user = self.server.get('/users').body['data']['users'][0]
        self.assertEqual(user['email'], 'ann@example.com')

        part = self.open('removeUser')
        for row, value in (('user_id', str(user['id'])), ('If-Match', '*')):
            part.locator('tr').filter(has_text=re.compile(f'^{row}')).get_by_role('textbox').fill(value)
        expect(self.execute(part)).to_contain_text('204')
        self.assertEqual(self.server.get('/users').body['data']['users'], [])
        self.assert_quiet()

    def test_operations_that_need_a_token_have_a_lock(self) -> None:
        default = self.start_server()
        changes = {'changeUser', 'removeUser'}
        for port, locked in (
            (default.port, changes),
            (self.server.port, changes | {'listUsers', 'addUser', 'getUser', 'metrics'}),
        ):
            with self.subTest(locked=locked):
                self.page.goto(f'http://{HOST}:{port}/docs')
                expect(self.page.locator('.opblock')).to_have_count(11)
                blocks = self.page.locator('.opblock', has=self.page.locator('.authorization__btn')).all()
                self.assertEqual({block.get_attribute('id').rpartition('-')[2] for block in blocks}, locked)
        self.assertEqual(self.problems, [])

    def test_headers_of_a_response_are_shown(self):
        self.page.goto(f'{self.site}/docs')
        response = self.execute(self.open('ping'))
        expect(response).to_contain_text('"pong!"')
        expect(response).to_contain_text('x-request-id')
        self.assert_quiet()

    def test_every_part_of_the_page_opens_without_errors(self):
        self.page.goto(f'{self.site}/docs')
        expect(self.page.locator('.opblock')).to_have_count(11)
        for summary in self.page.locator('.opblock-summary-control').all():
            summary.click()
        for model in self.page.locator('section.models .json-schema-2020-12-accordion').all():
            model.click()
        expect(self.page.locator('.opblock.is-open')).to_have_count(11)
        self.assert_quiet()

    def test_operations_come_first_and_remarks_about_headers_last(self):
        self.page.goto(f'{self.site}/docs')
        remarks = self.page.locator('.remarks')
        expect(remarks).to_contain_text('X-Content-Type-Options')
        expect(self.page.locator('.opblock').first).to_be_in_viewport()
        last = self.page.locator('section.models').bounding_box()
        self.assertGreater(remarks.bounding_box()['y'], last['y'])
        expect(self.page.locator('.information-container')).not_to_contain_text('X-Content-Type-Options')
        self.assert_quiet()

    def test_page_follows_the_dark_mode_of_the_reader(self):
        self.page.emulate_media(color_scheme='dark')
        self.page.goto(f'{self.site}/docs')
        self.page.locator('.opblock').first.wait_for()
        color = "getComputedStyle(document.querySelector('.swagger-ui')).color.match(/[0-9]+/g).map(Number)"
        self.page.wait_for_function(f'() => Math.min(...{color}) > 200')
        self.page.emulate_media(color_scheme='light')
        self.page.wait_for_function(f'() => Math.max(...{color}) < 100')
        self.assert_quiet()

    def test_page_works_behind_the_path_of_a_proxy(self):
        def forward(route):
            requested.append(urlsplit(route.request.url).path)
            route.fulfill(response=route.fetch(url=route.request.url.replace('/some/path/', '/')))

        requested = []
        self.page.route(f'{self.site}/some/path/**', forward)
        self.page.goto(f'{self.site}/some/path/docs')
        expect(self.execute(self.open('ping'))).to_contain_text('"pong!"')
        self.assertIn('/some/path/ping', requested)
        self.assert_quiet()
