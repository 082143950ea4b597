"""The base of the tests of the page in a browser: it opens the page, reads the browser's log, and runs axe."""

import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from playwright.sync_api import Locator, Route, expect

from project.tests.support import browsing
from project.tests.support.servers import TOKEN

AXE = browsing.CLIENT / 'node_modules' / 'axe-core' / 'axe.min.js'
CREATED_AT = datetime(2026, 11, 22, 16, 13, 51, 482913, UTC)
PHONE = {'viewport': {'width': 390, 'height': 844}, 'is_mobile': True, 'has_touch': True}
NARROW = {'viewport': {'width': 320, 'height': 640}, 'is_mobile': True, 'has_touch': True}
# Messages that Chromium itself logs about responses and failures that a test causes.
NO_RESPONSE = 'net::ERR_'  # connections are refused, or a kept one is reset
TOO_WIDE = """
() => [...document.querySelectorAll('body *')]
    .filter((element) => !element.closest('.visually-hidden, .table-head, [inert]'))
    .filter((element) => element.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
    .map((element) => element.outerHTML.slice(0, 200))
"""
USE_TOKEN = f"sessionStorage.setItem('users-token', '{TOKEN}')"


def some_users(count: int) -> list[dict[str, Any]]:
    """Return ``count`` users, the last of them the newest; some share a timestamp."""
    return [
        {
            'username': f'User {number}',
            'email': f'user{number}@example.com',
            'created_at': CREATED_AT + timedelta(minutes=number // 3),
            'active': False,
        }
        for number in range(1, count + 1)
    ]


def ann(**changes: Any) -> dict[str, Any]:
    """Return one user."""
    user = {'username': 'Ann Example', 'email': 'ann@example.com', 'created_at': CREATED_AT, 'active': False}
    return user | changes


def emails_newest_first(users: list[dict[str, Any]]) -> list[str]:
    """Return the emails in the order of the list."""
    return [user['email'] for user in reversed(users)]


# Resolves when a change has been drawn and the animations that end have ended.
SETTLED = """
async () => {
    for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
    const ending = document.getAnimations().filter((one) => one.effect.getComputedTiming().endTime !== Infinity);
    await Promise.all(ending.map((one) => one.finished.catch(() => null)));
}
"""


class PageTestCase(unittest.TestCase):
    """A test with a page in a browser of its own, without users to begin with."""

    site: browsing.Site

    @classmethod
    def start_site(cls) -> None:
        """Start everything once for a module: call it in ``setUpModule``."""
        PageTestCase.site = unittest.enterModuleContext(browsing.site())
        expect.set_options(timeout=10_000)

    def setUp(self) -> None:
        self.site.store([])

    def open(self, query: str = '', token: bool = False, **options: Any) -> None:
        """Open the page.

        :param query: of its URL.
        :param token: whether the tab has the token already.
        :param options: of the browser, in the names of Playwright's ``new_context``.
        """
        defaults = {
            'viewport': {'width': 1280, 'height': 800},
            'locale': 'en-GB',
            'timezone_id': 'Europe/Berlin',
            'reduced_motion': 'reduce',
        }
        context = self.site.browser.new_context(**defaults | options)
        self.addCleanup(context.close)
        if token:
            context.add_init_script(USE_TOKEN)
        self.page = context.new_page()
        self.errors: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.addCleanup(self.assert_clean, self.errors, self.requests)
        # Chromium logs violations of the policy as errors, too. The page sends requests to /users/0 to find out whether
        # changes are allowed.
        self.page.on('console', lambda message: self._log(message.type, message.text, message.location['url']))
        self.page.on('pageerror', lambda error: self.errors.append(str(error)))
        context.on('request', lambda request: self.requests.append((request.method, request.url)))
        self.page.goto(self.site.url + query)
        self.table = self.page.get_by_role('table', name='Users')
        self.names = self.table.locator('.username')
        self.summary = self.page.get_by_role('region', name='Users').get_by_role('status').first
        self.searchbox = self.page.get_by_role('searchbox')
        self.more = self.page.get_by_role('button', name='Show more')
        self.add = self.page.get_by_role('button', name='Add user').first
        self.panel = self.page.locator('.panel')
        self.dialog = self.page.locator('dialog')
        self.toasts = self.page.get_by_role('status', name='Messages')

    def _log(self, kind: str, text: str, url: str) -> None:
        if kind == 'error' and not url.endswith('/users/0'):
            self.errors.append(text)

    def assert_clean(self, errors: list[str], requests: list[tuple[str, str]]) -> None:
        """Check that the browser logged no error, and sent no request to another server."""
        self.assertEqual(errors, [])
        known = (f'{self.site.url}/', f'{self.site.service_url}/users', f'blob:{self.site.url}')
        self.assertEqual([url for _, url in requests if not url.startswith(known)], [])

    def expect_error(self, *texts: str) -> None:
        """Check that the browser has logged these errors one or more times, and no others so far."""
        self.assertTrue(self.errors, f'nothing was logged about {texts}')
        for error in self.errors:
            self.assertTrue(any(text in error for text in texts), error)
        self.errors.clear()

    def assert_accessible(self) -> None:
        """Check that axe finds nothing wrong with the page as it is now, light and dark."""
        for scheme in ('light', 'dark'):
            self.page.emulate_media(color_scheme=scheme)
            self.page.evaluate(SETTLED)
            self.page.evaluate(f'window.axe || {AXE.read_text()}')
            found = self.page.evaluate(
                "axe.run({resultTypes: ['violations'], rules: {'target-size': {enabled: true}}})"
            )
            self.assertGreater(len(found['passes']), 10)
            wrong = [(rule['id'], node['html'][:200]) for rule in found['violations'] for node in rule['nodes']]
            self.assertEqual(wrong, [], scheme)
        self.page.emulate_media(color_scheme='light')

    def assert_fits(self) -> None:
        """Check that no element extends beyond the right edge of the screen."""
        self.page.evaluate(SETTLED)
        self.assertEqual(self.page.evaluate(TOO_WIDE), [])
        width = self.page.viewport_size['width']
        self.assertEqual(self.page.evaluate('document.documentElement.scrollWidth'), width)

    def emails(self) -> list[str]:
        """Return the emails in the list from top to bottom, including those of rows far from the screen."""
        return self.table.locator('.email').all_text_contents()

    def open_panel(self, username: str) -> None:
        """Open the panel of a user by pressing the name."""
        self.table.get_by_role('link', name=username, exact=True).click()
        expect(self.panel.get_by_role('heading', name=username)).to_be_focused()

    def button(self, name: str) -> Locator:
        """Return the button with exactly this name, in the panel or in a dialog."""
        return self.page.locator('.panel, dialog').get_by_role('button', name=name, exact=True)

    def fill(self, username: str, email: str) -> None:
        """Type into the form of the dialog or the panel."""
        form = self.page.locator('dialog form, .panel form').last
        form.get_by_label('Username').fill(username)
        form.get_by_role('textbox', name='Email').fill(email)

    def give_token(self, token: str = TOKEN) -> None:
        """Enter a token in the dialog that asks for one."""
        self.page.get_by_label('API token').fill(token)
        self.page.get_by_role('button', name='Use token').click()

    @contextmanager
    def responding(self, method: str, status: int, body: str = '{}', **headers: str) -> Iterator[list[str]]:
        """During the block a proxy responds to requests of this method instead of the service; give their URLs."""
        urls: list[str] = []

        def respond(route: Route) -> None:
            if route.request.method != method:
                route.continue_()
                return
            urls.append(route.request.url)
            cors = {'Access-Control-Allow-Origin': '*', 'Access-Control-Expose-Headers': 'Retry-After'}
            named = {name.replace('_', '-'): value for name, value in headers.items()}
            route.fulfill(status=status, body=body, headers=cors | {'Content-Type': 'application/json'} | named)

        pattern = f'{self.site.service_url}/users**'
        self.page.route(pattern, respond)
        try:
            yield urls
        finally:
            self.page.unroute(pattern, respond)
