"""The page in a browser with missing tokens, simultaneous changes, and a service that is busy or unavailable.

Run by ``python manage.py test page_under_stress``; :mod:`project.tests.support.browsing` says what it needs.
"""

import contextlib

from playwright.sync_api import TimeoutError as PlaywrightTimeout
from playwright.sync_api import expect

from project.tests.support.page_case import NO_RESPONSE, PageTestCase, ann, emails_newest_first, some_users

UNREACHABLE = 'The users service cannot be reached.'
NO_TOKENS = 'This service has no API tokens'
UNAUTHORIZED = 'status of 401'


def setUpModule() -> None:
    PageTestCase.start_site()


class TokenTests(PageTestCase):
    def setUp(self):
        super().setUp()
        self.site.store([ann(), ann(username='Ben', email='ben@example.com')])
        self.question = 'dialog:has-text("Enter a token")'

    def test_token_is_requested_when_it_is_needed_kept_for_the_tab_and_forgotten(self):
        self.open()
        self.open_panel('Ann Example')
        expect(self.page.locator(self.question)).to_have_count(0)
        self.button('Activate').click()
        expect(self.page.get_by_label('API token')).to_be_focused()
        self.assert_accessible()
        self.give_token('not the token of this service at all')
        expect(self.page.get_by_label('API token')).to_have_accessible_description(
            'The service did not accept this token. Check it for typos.'
        )
        self.assert_accessible()
        self.give_token()
        expect(self.toasts).to_contain_text('Ann Example was activated.')
        self.expect_error(UNAUTHORIZED)
        self.button('Deactivate').click()
        expect(self.toasts).to_contain_text('Ann Example was deactivated.')
        self.page.reload()
        self.button('Activate').click()
        expect(self.toasts).to_contain_text('Ann Example was activated.')
        self.assertEqual(self.page.evaluate('localStorage.length'), 0)
        self.assertEqual(self.page.context.cookies(), [])
        self.page.get_by_role('button', name='Forget token').click()
        expect(self.page.get_by_role('button', name='Forget token')).to_have_count(0)
        self.assertEqual(self.page.evaluate('sessionStorage.length'), 0)
        self.button('Deactivate').click()
        expect(self.page.locator(self.question)).to_be_visible()
        self.page.keyboard.press('Escape')
        expect(self.page.locator(self.question)).to_have_count(0)
        expect(self.button('Deactivate')).to_be_visible()
        self.expect_error(UNAUTHORIZED)

    def test_missing_token_for_a_removal_is_requested_and_nothing_is_lost(self):
        self.open()
        self.open_panel('Ann Example')
        self.button('Remove user…').click()
        self.button('Remove').click()
        expect(self.page.locator(self.question)).to_be_visible()
        self.page.keyboard.press('Escape')
        expect(self.toasts).to_contain_text('Ann Example was not removed.')
        expect(self.names).to_have_text(['Ben', 'Ann Example'])
        self.expect_error(UNAUTHORIZED)

    def test_service_that_protects_writes(self):
        with self.site.settings(PROTECT='writes'):
            self.open()
            expect(self.names).to_have_count(2)
            self.add.click()
            self.fill('Zoe', 'zoe@example.com')
            self.button('Add user').click()
            self.give_token()
            expect(self.names).to_have_text(['Zoe', 'Ben', 'Ann Example'])
            self.expect_error(UNAUTHORIZED)

    def test_service_that_protects_all(self):
        with self.site.settings(PROTECT='all'):
            self.open()
            expect(self.page.locator(self.question)).to_be_visible()
            self.page.keyboard.press('Escape')
            alert = self.page.get_by_role('alert')
            expect(alert).to_contain_text('requires a token')
            self.assert_accessible()
            alert.get_by_role('button', name='Enter a token').click()
            self.give_token()
            expect(self.names).to_have_count(2)
            expect(self.summary).to_have_text('2 users')
            self.page.get_by_role('button', name='Forget token').click()
            expect(alert).to_contain_text('requires a token')
            expect(self.names).to_have_count(0)
            self.expect_error(UNAUTHORIZED)

    def test_service_without_tokens_says_so_and_shows_no_buttons_that_cannot_work(self):
        for protect, can_add in (('changes', True), ('writes', False)):
            with self.subTest(protect), self.site.settings(API_TOKENS='', PROTECT=protect):
                self.open()
                expect(self.page.get_by_role('main')).to_contain_text(NO_TOKENS)
                expect(self.add).to_have_count(1 if can_add else 0)
                self.page.keyboard.press('n')
                expect(self.dialog).to_have_count(1 if can_add else 0)
                self.page.keyboard.press('Escape')
                self.open_panel('Ann Example')
                expect(self.panel).to_contain_text('this service has no API tokens')
                expect(self.panel.get_by_role('textbox')).to_have_count(0)
                self.assert_accessible()
                self.errors.clear()  # the page has sent an empty POST to find out whether it may add users

    def test_service_without_tokens_that_protects_all(self):
        with self.site.settings(API_TOKENS='', PROTECT='all'):
            self.open()
            expect(self.page.get_by_role('alert')).to_contain_text(NO_TOKENS)
            expect(self.page.get_by_role('button', name='Try again')).to_have_count(0)
            expect(self.add).to_have_count(0)
            self.assert_accessible()
            self.errors.clear()


class ConflictTests(PageTestCase):
    def setUp(self):
        super().setUp()
        self.site.store([ann()])
        self.open(token=True)
        self.open_panel('Ann Example')
        expect(self.button('Save changes')).to_be_visible()
        self.path = f'/users/{self.site.request("GET", "/users")["data"]["users"][0]["id"]}'
        self.conflict = self.page.get_by_role('alertdialog', name='Ann Example was changed by someone else')

    def user(self):
        return self.site.request('GET', self.path)['data']

    def change_at_the_same_time(self):
        self.site.request('PATCH', self.path, {'username': 'Ann Theirs', 'active': True})
        self.fill('Ann Mine', 'ann@example.com')
        self.button('Save changes').click()
        expect(self.conflict).to_be_visible()
        self.expect_error('status of 412')

    def test_both_versions_are_shown_and_the_other_one_is_kept(self):
        self.change_at_the_same_time()
        for field, mine, theirs in (('Username', 'Ann Mine', 'Ann Theirs'), ('Status', 'Inactive', 'Active')):
            row = self.conflict.get_by_role('row', name=field)
            expect(row.get_by_role('cell')).to_have_text([mine, theirs])
        self.assert_accessible()
        self.button('Keep the current version').click()
        expect(self.panel.get_by_label('Username')).to_have_value('Ann Theirs')
        expect(self.names).to_have_text(['Ann Theirs'])
        self.assertEqual(self.user()['username'], 'Ann Theirs')

    def test_own_version_is_saved(self):
        self.change_at_the_same_time()
        self.button('Save my version').click()
        expect(self.names).to_have_text(['Ann Mine'])
        user = self.user()
        self.assertEqual((user['username'], user['active']), ('Ann Mine', False))

    def test_third_change_shows_the_conflict_again(self):
        self.change_at_the_same_time()
        self.site.request('PATCH', self.path, {'username': 'Ann Again'})
        self.button('Save my version').click()
        expect(self.conflict.get_by_role('row', name='Username').get_by_role('cell')).to_have_text(
            ['Ann Mine', 'Ann Again']
        )
        self.page.keyboard.press('Escape')
        expect(self.conflict).to_have_count(0)
        expect(self.panel.get_by_label('Username')).to_have_value('Ann Mine')
        self.expect_error('status of 412')

    def test_removal_of_a_changed_user_is_confirmed_again(self):
        self.button('Remove user…').click()
        self.button('Remove').click()
        self.site.request('PATCH', self.path, {'username': 'Ann Theirs'})
        expect(self.conflict.get_by_role('row', name='Username').get_by_role('cell')).to_have_text(
            ['Ann Example', 'Ann Theirs']
        )
        expect(self.names).to_have_text(['Ann Theirs'])
        self.assert_accessible()
        self.button('Remove anyway').click()
        expect(self.names).to_have_count(0)
        expect(self.toasts).to_contain_text('Ann Theirs was removed.')
        self.assertEqual(self.site.request('GET', '/users')['data']['users'], [])
        self.expect_error('status of 412')

    def test_removed_user_is_no_conflict(self):
        self.site.request('DELETE', self.path)
        self.button('Remove user…').click()
        self.button('Remove').click()
        expect(self.toasts).to_contain_text('Ann Example was removed.')
        self.expect_error('status of 404')


class OutageTests(PageTestCase):
    def setUp(self):
        super().setUp()
        self.site.store(some_users(9))
        # The next test needs the service, even if this one fails.
        self.addCleanup(self.site.start_service)

    def test_list_is_loaded_when_the_service_is_available_again(self):
        self.site.stop_service()
        self.open()
        alert = self.page.get_by_role('alert')
        expect(alert).to_contain_text(UNREACHABLE)
        expect(alert).to_contain_text('tries again in')
        self.assert_accessible()
        self.site.start_service()
        expect(self.names).to_have_count(9, timeout=30_000)
        expect(alert).to_have_count(0)
        self.expect_error(NO_RESPONSE)

    def test_nothing_typed_or_shown_is_lost_while_the_service_is_down(self):
        self.open()
        expect(self.names).to_have_count(9)
        self.site.stop_service()
        self.add.click()
        self.fill('Zoe', 'zoe@example.com')
        self.button('Add user').click()
        expect(self.dialog.get_by_role('alert')).to_contain_text(UNREACHABLE)
        expect(self.dialog.get_by_label('Username')).to_have_value('Zoe')
        self.assert_accessible()
        self.site.start_service()
        self.button('Try again').click()
        expect(self.names.first).to_have_text('Zoe')
        expect(self.page.get_by_role('alert')).to_have_count(0)
        self.expect_error(NO_RESPONSE)

    def test_next_page_is_loaded_when_the_service_is_available_again(self):
        self.site.store(some_users(60))
        self.open()
        expect(self.summary).to_contain_text('60 users')
        self.site.stop_service()
        self.page.evaluate('scrollTo(0, document.body.scrollHeight)')
        alert = self.page.get_by_role('alert')
        expect(alert).to_contain_text(UNREACHABLE)
        expect(self.names).to_have_count(50)
        self.site.start_service()
        with contextlib.suppress(PlaywrightTimeout):  # the page may try again by itself before the click
            alert.get_by_role('button', name='Try now').click(timeout=2000)
        expect(self.names).to_have_count(60)
        self.assertEqual(self.emails(), emails_newest_first(some_users(60)))
        self.expect_error(NO_RESPONSE)

    def test_page_waits_for_a_slow_service(self):
        with self.site.frozen_service():
            self.open()
            expect(self.summary).to_have_text('Loading users…')
            self.assert_accessible()
        expect(self.names).to_have_count(9)

    def test_request_is_retried_after_retry_after(self):
        for status, words in ((429, 'too many requests'), (503, 'not available')):
            with self.subTest(status):
                self.open()
                expect(self.names).to_have_count(9)
                with self.responding('GET', status, Retry_After='2') as urls:
                    self.searchbox.fill('user 7')
                    alert = self.page.get_by_role('alert')
                    expect(alert).to_contain_text(words)
                    expect(alert).to_contain_text('tries again in 2 s')
                    self.assertEqual(len(urls), 1)
                    self.assert_accessible()
                expect(self.names).to_have_text(['User 7'])
                expect(alert).to_have_count(0)
                self.expect_error(f'status of {status}')

    def test_retried_post_adds_one_user(self):
        self.open()
        self.add.click()
        self.fill('Zoe', 'zoe@example.com')
        with self.responding('POST', 503, Retry_After='1'):
            self.button('Add user').click()
            expect(self.dialog.get_by_role('alert')).to_contain_text('tries again')
            # The attempt that got 503 was stored after all.
            self.site.request('POST', '/users', {'username': 'Zoe', 'email': 'zoe@example.com'})
        expect(self.names.first).to_have_text('Zoe')
        expect(self.dialog).to_have_count(0)
        self.expect_error('status of 503', 'status of 400')

    def test_change_is_retried_while_the_service_is_busy(self):
        self.open(token=True)
        self.open_panel('User 9')
        with self.responding('PATCH', 429, Retry_After='1'):
            self.button('Activate').click()
            expect(self.panel.get_by_role('alert')).to_contain_text('too many requests')
        expect(self.toasts).to_contain_text('User 9 was activated.')
        self.expect_error('status of 429')

    def test_response_of_another_service_is_reported(self):
        self.open()
        expect(self.names).to_have_count(9)
        for status, body in (
            (200, '<html>It works!</html>'),
            (200, '{"users": []}'),
            (404, 'Not found'),
            (200, 'null'),
        ):
            with self.subTest(body), self.responding('GET', status, body):
                self.page.get_by_role('button', name='Refresh').click()
                alert = self.page.get_by_role('alert')
                expect(alert).to_contain_text('The response did not come from the users service.')
                expect(self.names).to_have_count(9)
            self.page.get_by_role('button', name='Try again').click()
            expect(alert).to_have_count(0)
        self.expect_error('status of 404')
