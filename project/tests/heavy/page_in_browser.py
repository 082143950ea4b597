"""The page as people meet it: in Chromium, on another origin than the service, under a strict policy.

Run by ``python manage.py test page_in_browser``; :mod:`project.tests.support.browsing` tells what it takes.
"""

import json
import unittest
from datetime import UTC, datetime, timedelta
from urllib.request import Request, urlopen

from playwright.sync_api import expect

from project.tests.support import browsing

AXE = browsing.CLIENT / 'node_modules' / 'axe-core' / 'axe.min.js'
MOMENT = datetime(2026, 11, 22, 16, 13, 51, 482913, UTC)
UNREACHABLE = 'The users service cannot be reached.'
# What Chromium itself logs about answers and failures that a test brings about.
NO_ANSWER = 'net::ERR_'  # connections are refused, or a kept one is reset
BAD_REQUEST = 'status of 400'
TOO_WIDE = """
() => [...document.querySelectorAll('body *')]
    .filter((element) => element.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
    .map((element) => element.outerHTML.slice(0, 200))
"""
LUMINANCES = """
() => {
    const style = getComputedStyle(document.body);
    return [style.backgroundColor, style.color].map((color) => {
        const [red, green, blue] = color.match(/[0-9.]+/g).map(Number);
        return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255;
    });
}
"""


def setUpModule():
    """Start everything once."""
    PageTestCase.site = unittest.enterModuleContext(browsing.site())
    expect.set_options(timeout=10_000)


def some_users(count):
    """``count`` users, the last of them the newest; some share a moment."""
    return [
        {
            'username': f'User {number}',
            'email': f'user{number}@example.com',
            'created_at': MOMENT + timedelta(minutes=number // 3),
        }
        for number in range(1, count + 1)
    ]


def ann(**changes):
    """One user."""
    return {'username': 'Ann Example', 'email': 'ann@example.com', 'created_at': MOMENT} | changes


def emails_newest_first(users):
    """The addresses in the order of the list."""
    return [user['email'] for user in reversed(users)]


class PageTestCase(unittest.TestCase):
    """A test with a page in a browser of its own, without users to begin with."""

    def setUp(self):
        self.site.store([])

    def open(self, **options):
        """Open the page.

        :param options: of the browser, in the names of Playwright's ``new_context``.
        """
        context = self.site.browser.new_context(
            **{'viewport': {'width': 1280, 'height': 800}, 'locale': 'en-GB', 'timezone_id': 'Europe/Berlin'} | options
        )
        self.addCleanup(context.close)
        self.page = context.new_page()
        self.errors, self.requests = errors, requests = [], []
        self.addCleanup(self.assert_clean, errors, requests)
        # Chromium logs violations of the policy as errors, too.
        self.page.on('console', lambda message: message.type == 'error' and errors.append(message.text))
        self.page.on('pageerror', lambda error: errors.append(str(error)))
        context.on('request', lambda request: requests.append((request.method, request.url)))
        self.page.goto(self.site.url)
        self.form = self.page.get_by_role('form', name='Add a user')
        self.username = self.form.get_by_role('textbox', name='Username')
        self.email = self.form.get_by_role('textbox', name='Email')
        self.add = self.form.get_by_role('button', name='Add user')
        self.users = self.page.get_by_role('region', name='Users')
        self.items = self.users.get_by_role('list', name='Users').get_by_role('listitem')
        self.status = self.users.get_by_role('status')
        self.searchbox = self.users.get_by_role('searchbox', name='Look up by email')
        self.more = self.users.get_by_role('button', name='Show more')

    def assert_clean(self, errors, requests):
        """Check that nothing went wrong unseen, and that nobody else was asked for anything."""
        self.assertEqual(errors, [])
        known = (f'{self.site.url}/', f'{self.site.service_url}/users')
        self.assertEqual([url for _, url in requests if not url.startswith(known)], [])

    def expect_error(self, text):
        """Check that the browser has logged this one or more times, and about nothing else so far."""
        self.assertTrue(self.errors, f'nothing was logged about {text}')
        for error in self.errors:
            self.assertIn(text, error)
        self.errors.clear()

    def assert_accessible(self):
        """Check that axe finds nothing wrong with the page as it is now, light and dark."""
        for scheme in ('light', 'dark'):
            self.page.emulate_media(color_scheme=scheme)
            self.page.evaluate(f'window.axe || {AXE.read_text()}')
            found = self.page.evaluate("axe.run({rules: {'target-size': {enabled: true}}})")
            self.assertGreater(len(found['passes']), 10)
            wrong = [(rule['id'], node['html']) for rule in found['violations'] for node in rule['nodes']]
            self.assertEqual(wrong, [], scheme)
        self.page.emulate_media(color_scheme='light')

    def assert_fits(self):
        """Check that nothing stands out of the screen to the right."""
        self.assertEqual(self.page.evaluate(TOO_WIDE), [])
        width = self.page.viewport_size['width']
        self.assertEqual(self.page.evaluate('document.documentElement.scrollWidth'), width)

    def emails(self):
        """The addresses in the list, from top to bottom; also of rows that are far from the screen."""
        return self.items.locator('.email').all_text_contents()

    def post(self, user):
        """Add a user past the page."""
        request = Request(f'{self.site.service_url}/users', json.dumps(user).encode())
        request.add_header('Content-Type', 'application/json')
        urlopen(request, timeout=10).close()

    def fill(self, username, email):
        """Type into the form."""
        self.username.fill(username)
        self.email.fill(email)


class ListTests(PageTestCase):
    def test_users_are_listed_newest_first(self):
        self.site.store(
            [ann(), ann(username='Ben', email='ben@example.com'), ann(username='Cy', email='cy@example.com')]
        )
        self.open()
        expect(self.page).to_have_title('All Users')
        expect(self.page.get_by_role('heading', level=1)).to_have_text('All Users')
        expect(self.status).to_have_text('All 3 users, newest first')
        expect(self.items.locator('strong')).to_have_text(['Cy', 'Ben', 'Ann Example'])
        self.assertEqual(self.emails(), ['cy@example.com', 'ben@example.com', 'ann@example.com'])
        expect(self.more).to_have_count(0)
        self.assert_accessible()

    def test_where_nobody_is_yet_the_page_says_so(self):
        self.open()
        expect(self.users).to_contain_text('No users yet')
        expect(self.status).to_have_text('0 users')
        expect(self.items).to_have_count(0)
        self.assert_accessible()

    def test_markup_in_a_name_is_text(self):
        name = '<img src=x onerror=alert(1)><b>bold</b>'
        self.site.store([ann(username=name)])
        self.open()
        expect(self.items.locator('strong')).to_have_text(name)
        expect(self.items.locator('img, b')).to_have_count(0)

    def test_show_more_goes_through_everybody_without_repeats(self):
        users = some_users(230)
        self.site.store(users)
        expected = emails_newest_first(users)
        self.open()
        expect(self.more).to_be_visible()
        self.assert_accessible()
        for count in (50, 100):
            expect(self.items).to_have_count(count)
            expect(self.status).to_have_text(f'The newest {count} users')
            self.assertEqual(self.emails(), expected[:count])
            self.more.click()
        expect(self.items).to_have_count(150)
        # Somebody else adds a user meanwhile, which moves everybody one place down.
        self.post({'username': 'Between', 'email': 'between@example.com'})
        self.more.click()
        expect(self.items).to_have_count(200)
        self.more.click()
        expect(self.items).to_have_count(230)
        self.assertEqual(self.emails(), expected)
        expect(self.status).to_have_text('All 230 users, newest first')
        expect(self.more).to_have_count(0)

    def test_loading_is_said_until_the_service_answers(self):
        self.site.store([ann()])
        with self.site.frozen_service():
            self.open()
            expect(self.status).to_have_text('Loading users…')
            expect(self.items).to_have_count(0)
            self.assert_accessible()
        expect(self.items).to_have_count(1)
        expect(self.status).to_have_text('1 user')

    def test_moments_are_told_in_the_zone_and_language_of_the_reader(self):
        self.site.store([ann()])
        for zone, language, text in (
            ('Pacific/Auckland', 'de-DE', '23.11.2026, 05:13'),
            ('America/New_York', 'en-GB', '22 Nov 2026, 11:13'),
            ('Asia/Tokyo', 'fr-FR', '23 nov. 2026, 01:13'),
        ):
            with self.subTest(zone):
                self.open(timezone_id=zone, locale=language)
                moment = self.items.locator('time')
                expect(moment).to_have_text(text)
                expect(moment).to_have_attribute('title', '2026-11-22 16:13:51.482913 UTC')
                expect(moment).to_have_attribute('datetime', '2026-11-22T16:13:51.482Z')
                expect(self.page.get_by_role('contentinfo')).to_contain_text(zone)
        self.assert_accessible()

    def test_dark_readers_get_a_dark_page_and_light_ones_a_light_one(self):
        self.site.store([ann()])
        for scheme in ('dark', 'light'):
            with self.subTest(scheme):
                self.open(color_scheme=scheme)
                expect(self.items).to_have_count(1)
                background, ink = self.page.evaluate(LUMINANCES)
                darker, lighter = (background, ink) if scheme == 'dark' else (ink, background)
                self.assertLess(darker, 0.15)
                self.assertGreater(lighter, 0.85)


class LookUpTests(PageTestCase):
    def setUp(self):
        super().setUp()
        self.site.store([*some_users(60), ann(email='ann+news@example.com')])
        self.open()
        expect(self.items).to_have_count(50)
        self.look_up = self.users.get_by_role('button', name='Look up')
        self.everybody = self.users.get_by_role('button', name='Show everybody')

    def test_a_user_is_found_by_email_whatever_its_letter_case(self):
        self.searchbox.fill('  Ann+News@Example.COM ')
        self.look_up.click()
        expect(self.items.locator('.email')).to_have_text(['ann+news@example.com'])
        expect(self.status).to_have_text('1 user with the email Ann+News@Example.COM')
        self.assert_accessible()
        self.everybody.click()
        expect(self.items).to_have_count(50)
        expect(self.searchbox).to_have_value('')
        expect(self.everybody).to_have_count(0)

    def test_an_email_that_nobody_has_is_said_to_be_nobodys(self):
        self.searchbox.fill('nobody@example.com')
        self.searchbox.press('Enter')
        expect(self.users).to_contain_text('Nobody has this email')
        expect(self.status).to_have_text('Nobody found')
        expect(self.items).to_have_count(0)
        self.assert_accessible()
        self.everybody.click()
        expect(self.items).to_have_count(50)

    def test_who_is_added_during_a_look_up_is_on_top_of_everybody(self):
        self.searchbox.fill('ann+news@example.com')
        self.look_up.click()
        expect(self.items).to_have_count(1)
        self.fill('Zoe', 'zoe@example.com')
        self.add.click()
        expect(self.items).to_have_count(50)
        expect(self.items.first).to_contain_text('zoe@example.com')
        expect(self.searchbox).to_have_value('')


class AddTests(PageTestCase):
    def setUp(self):
        super().setUp()
        self.site.store([ann()])
        self.open()
        expect(self.items).to_have_count(1)

    def test_new_user_is_on_top_without_a_reload_and_still_after_one(self):
        self.page.evaluate('window.same = true')
        self.fill(' Zoe Ångström ', 'zoe@example.com')
        self.add.click()
        expect(self.form.get_by_role('status')).to_have_text('zoe@example.com was added!')
        expect(self.items.locator('.email')).to_have_text(['zoe@example.com', 'ann@example.com'])
        expect(self.items.first.locator('strong')).to_have_text('Zoe Ångström')
        expect(self.status).to_have_text('All 2 users, newest first')
        expect(self.username).to_have_value('')
        expect(self.email).to_have_value('')
        self.assertTrue(self.page.evaluate('window.same'))
        self.assert_accessible()
        self.page.reload()
        expect(self.items.locator('.email')).to_have_text(['zoe@example.com', 'ann@example.com'])

    def test_address_that_is_taken_is_told_at_the_email_and_can_be_mended(self):
        self.fill('Another Ann', 'ANN@example.com')
        self.add.click()
        expect(self.email).to_have_accessible_description('Sorry. That email already exists.')
        expect(self.form.get_by_text('Sorry. That email already exists.')).to_be_visible()
        expect(self.email).to_be_focused()
        expect(self.username).to_have_value('Another Ann')
        expect(self.email).to_have_value('ANN@example.com')
        self.expect_error(BAD_REQUEST)
        self.assert_accessible()
        self.email.fill('another@example.com')
        expect(self.form.get_by_text('Sorry.')).to_have_count(0)
        self.email.press('Enter')
        expect(self.items.locator('.email')).to_have_text(['another@example.com', 'ann@example.com'])

    def test_every_wrong_field_is_told_in_the_words_of_the_service(self):
        self.fill('  ', 'nobody')
        self.add.click()
        expect(self.username).to_have_accessible_description('Username must not be blank.')
        expect(self.email).to_have_accessible_description('Email must be an email address.')
        for field in (self.username, self.email):
            expect(field).to_have_attribute('aria-invalid', 'true')
        for words in ('Username must not be blank.', 'Email must be an email address.'):
            expect(self.form.get_by_text(words)).to_be_visible()
        expect(self.username).to_be_focused()
        expect(self.email).to_have_value('nobody')
        expect(self.items).to_have_count(1)
        self.expect_error(BAD_REQUEST)
        self.assert_accessible()

    def test_impatience_adds_nobody_twice(self):
        self.fill('Zoe', 'zoe@example.com')
        with self.site.frozen_service():
            self.add.click()
            expect(self.form.get_by_role('button')).to_have_text('Adding…')
            self.form.get_by_role('button').click(force=True)  # Playwright would wait until it is enabled
            self.email.press('Enter')
            self.assert_accessible()
        expect(self.items.locator('.email')).to_have_text(['zoe@example.com', 'ann@example.com'])
        expect(self.form.get_by_role('status')).to_have_text('zoe@example.com was added!')
        self.assertEqual([method for method, _ in self.requests].count('POST'), 1)


class OtherClientsTests(PageTestCase):
    def test_script_of_another_origin_may_send_headers_of_its_own(self) -> None:
        self.open()
        status, body = self.page.evaluate(
            """async ([url, headers]) => {
                const body = JSON.stringify({username: 'zoe', email: 'zoe@example.com'});
                const response = await fetch(url, {method: 'POST', headers, body});
                return [response.status, await response.json()];
            }""",
            [
                f'{self.site.service_url}/users',
                {
                    'Content-Type': 'application/json',
                    'X-Requested-With': 'XMLHttpRequest',
                    'Cache-Control': 'no-cache',
                    'Access-Control-Allow-Origin': '*',
                },
            ],
        )
        self.assertEqual((status, body['message']), (201, 'zoe@example.com was added!'))


class OutageTests(PageTestCase):
    def setUp(self):
        super().setUp()
        self.site.store(some_users(60))
        # Whatever becomes of the test, the next one needs the service.
        self.addCleanup(self.site.start_service)

    def test_list_comes_when_the_service_is_back(self):
        self.site.stop_service()
        self.open()
        alert = self.users.get_by_role('alert')
        expect(alert).to_contain_text(UNREACHABLE)
        self.assert_accessible()
        alert.get_by_role('button', name='Retry').click()
        expect(self.status).to_be_focused()
        expect(alert).to_contain_text(UNREACHABLE)
        self.expect_error(NO_ANSWER)
        self.site.start_service()
        alert.get_by_role('button', name='Retry').click()
        expect(self.items).to_have_count(50)
        expect(alert).to_have_count(0)

    def test_nothing_typed_or_shown_is_lost_while_the_service_is_down(self):
        self.open()
        expect(self.items).to_have_count(50)
        self.site.stop_service()
        self.more.click()
        expect(self.users.get_by_role('alert')).to_contain_text(UNREACHABLE)
        self.fill('Zoe', 'zoe@example.com')
        self.add.click()
        expect(self.form.get_by_role('alert')).to_contain_text(UNREACHABLE)
        expect(self.username).to_have_value('Zoe')
        expect(self.email).to_have_value('zoe@example.com')
        expect(self.items).to_have_count(50)
        self.assert_accessible()
        self.expect_error(NO_ANSWER)
        self.site.start_service()
        self.form.get_by_role('button', name='Retry').click()
        expect(self.items).to_have_count(51)
        self.users.get_by_role('button', name='Retry').click()
        expect(self.items).to_have_count(61)
        self.assertEqual(self.emails(), ['zoe@example.com', *emails_newest_first(some_users(60))])
        expect(self.page.get_by_role('alert')).to_have_count(0)


class AccessTests(PageTestCase):
    def test_all_can_be_done_with_the_keyboard_alone(self):
        self.site.store(some_users(60))
        self.open()
        expect(self.items).to_have_count(50)
        keyboard = self.page.keyboard

        def tab_to(element):
            keyboard.press('Tab')
            expect(element).to_be_focused()
            outline = element.evaluate('element => getComputedStyle(element).outline')
            self.assertRegex(outline, r' solid [1-9.]+px$', 'the focus can not be seen')

        tab_to(self.username)
        keyboard.type('Zoe')
        tab_to(self.email)
        keyboard.type('user1@example.com')
        tab_to(self.add)
        keyboard.press('Space')
        expect(self.email).to_have_accessible_description('Sorry. That email already exists.')
        expect(self.email).to_be_focused()
        self.expect_error(BAD_REQUEST)
        keyboard.press('Control+A')
        keyboard.type('zoe@example.com')
        keyboard.press('Enter')
        expect(self.items.first).to_contain_text('zoe@example.com')
        tab_to(self.add)
        tab_to(self.searchbox)
        keyboard.type('user7@example.com')
        keyboard.press('Enter')
        expect(self.items.locator('.email')).to_have_text(['user7@example.com'])
        tab_to(self.users.get_by_role('button', name='Look up'))
        tab_to(self.users.get_by_role('button', name='Show everybody'))
        keyboard.press('Enter')
        expect(self.items).to_have_count(50)
        # Not lost with the button that went.
        expect(self.status).to_be_focused()
        tab_to(self.more)
        keyboard.press('Enter')
        expect(self.items).to_have_count(61)
        # Reading goes on with the first user who came.
        expect(self.items.nth(50)).to_be_focused()

    def test_nothing_is_wider_than_the_narrowest_screen(self):
        self.site.store([*some_users(60), ann(username='W' * 128, email=f'{"w" * 64}@{"w" * 51}.example.com')])
        self.open(viewport={'width': 320, 'height': 640}, is_mobile=True, has_touch=True)
        expect(self.items).to_have_count(50)
        self.assert_fits()
        self.assert_accessible()
        self.searchbox.fill('n' * 120)
        self.searchbox.press('Enter')
        expect(self.status).to_have_text('Nobody found')
        self.assert_fits()
        self.users.get_by_role('button', name='Show everybody').tap()
        self.fill('', 'ann')
        self.add.tap()
        expect(self.form.get_by_text('Username must not be blank.')).to_be_visible()
        self.expect_error(BAD_REQUEST)
        self.assert_fits()
        self.fill('W' * 128, f'{"v" * 64}@{"v" * 51}.example.com')
        self.add.tap()
        expect(self.form.get_by_role('status')).to_contain_text('was added!')
        self.assert_fits()
        self.assert_accessible()
