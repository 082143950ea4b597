"""The page in Chromium, on another origin than the service, under a strict Content-Security-Policy.

Run by ``python manage.py test page_in_browser``; :mod:`project.tests.support.browsing` says what it needs.
"""

import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.sync_api import expect

from project.tests.support.page_case import CREATED_AT, PageTestCase, ann, emails_newest_first, some_users

BAD_REQUEST = 'status of 400'


def setUpModule() -> None:
    PageTestCase.start_site()


class ListTests(PageTestCase):
    def test_users_are_listed_newest_first_with_all_that_is_known(self):
        self.site.store(
            [
                ann(),
                ann(username='Ben', email='ben@example.com'),
                ann(username='Cy', email='cy@example.com', active=True),
            ]
        )
        self.open()
        expect(self.page).to_have_title('All Users')
        expect(self.page.get_by_role('heading', level=1)).to_have_text('All Users')
        expect(self.summary).to_have_text('3 users')
        expect(self.names).to_have_text(['Cy', 'Ben', 'Ann Example'])
        self.assertEqual(self.emails(), ['cy@example.com', 'ben@example.com', 'ann@example.com'])
        expect(self.table.locator('.badge')).to_have_text(['Active', 'Inactive', 'Inactive'])
        expect(self.table.locator('.avatar')).to_have_text(['C', 'B', 'AE'])
        ids = [str(user['id']) for user in self.site.request('GET', '/users')['data']['users']]
        for row, user_id in zip(self.table.get_by_role('row').all()[1:], ids, strict=True):
            expect(row.get_by_role('cell').nth(3)).to_contain_text(user_id)
        expect(self.more).to_have_count(0)
        self.assert_accessible()

    def test_rows_are_dense(self):
        self.site.store([*some_users(3), ann(username='W' * 128, email=f'{"w" * 64}@{"w" * 51}.example.com')])
        self.open()
        expect(self.names).to_have_count(4)
        for row in self.table.get_by_role('row').all():
            self.assertLessEqual(row.bounding_box()['height'], 48)

    def test_no_users_yet(self):
        self.open()
        expect(self.page.get_by_text('No users yet')).to_be_visible()
        expect(self.summary).to_have_text('0 users')
        self.assert_accessible()

    def test_markup_in_a_name_is_text(self):
        name = '<img src=x onerror=alert(1)><b>bold</b>'
        self.site.store([ann(username=name)])
        self.open()
        expect(self.names).to_have_text(name)
        expect(self.table.locator('img, b')).to_have_count(0)
        self.names.click()
        expect(self.panel.get_by_role('heading')).to_have_text(name)
        expect(self.panel.locator('img, b')).to_have_count(0)

    def test_scrolling_loads_every_user_once(self):
        users = some_users(230)
        self.site.store(users)
        self.open()
        expect(self.summary).to_contain_text('230 users')
        # Another client adds a user meanwhile, which moves all others one place down.
        self.site.request('POST', '/users', {'username': 'Between', 'email': 'between@example.com'})
        for _ in range(10):
            if self.names.count() == 230:
                break
            self.page.evaluate('scrollTo(0, document.body.scrollHeight)')
            self.page.wait_for_timeout(300)
        expect(self.names).to_have_count(230)
        self.assertEqual(self.emails(), emails_newest_first(users))
        expect(self.summary).to_have_text('230 users')
        expect(self.more).to_have_count(0)

    def test_button_loads_more_where_scrolling_does_not(self):
        self.site.store(some_users(120))
        self.open()
        self.page.add_init_script('window.IntersectionObserver = class { observe() {} disconnect() {} }')
        self.page.reload()
        expect(self.names).to_have_count(50)
        expect(self.summary).to_have_text('120 users, 50 loaded')
        self.more.focus()
        self.more.press('Enter')
        expect(self.names).to_have_count(100)
        expect(self.names.nth(50)).to_be_focused()
        self.more.click()
        expect(self.names).to_have_count(120)

    def test_times_are_relative_and_exact_on_hover_and_focus(self):
        self.site.store([ann(created_at=datetime.now(UTC) - timedelta(hours=3)), ann(email='b@example.com')])
        self.open(timezone_id='Asia/Tokyo')
        new = self.table.locator('time', has_text='hr')
        expect(new).to_have_text('3 hr ago')
        old = self.table.locator('time').nth(1)
        expect(old).to_have_attribute('datetime', '2026-11-22T16:13:51.482Z')
        expect(old).to_have_attribute('data-exact', '23 Nov 2026, 01:13:51 GMT+9')

        def wait_for(visibility):
            """Wait until the exact time is visible, or hidden."""
            shown = "([element, wanted]) => getComputedStyle(element, '::after').visibility === wanted"
            self.page.wait_for_function(shown, arg=[old.element_handle(), visibility])

        wait_for('hidden')
        old.hover()
        wait_for('visible')
        self.searchbox.hover()
        wait_for('hidden')
        self.names.first.focus()
        self.page.keyboard.press('ArrowDown')
        expect(self.names.nth(1)).to_be_focused()
        wait_for('visible')


class SearchTests(PageTestCase):
    def setUp(self):
        super().setUp()
        self.site.store(
            [
                *some_users(60),
                ann(active=True),
                ann(username='50%_off', email='sale@example.com'),
                ann(username='Zoë', email='ANNA@example.com'),
            ]
        )

    def test_search_as_one_types_is_in_the_url_and_back_works(self):
        self.open()
        expect(self.summary).to_contain_text('63 users')
        self.searchbox.press_sequentially('ANN', delay=20)
        expect(self.names).to_have_text(['Zoë', 'Ann Example'])
        expect(self.summary).to_have_text('2 users matching “ANN”')
        expect(self.page).to_have_url(f'{self.site.url}/?q=ANN')
        self.assert_accessible()
        self.page.get_by_role('button', name='Active', exact=True).click()
        expect(self.names).to_have_text(['Ann Example'])
        expect(self.page).to_have_url(f'{self.site.url}/?q=ANN&active=true')
        self.page.go_back()
        expect(self.names).to_have_count(2)
        self.page.go_back()
        expect(self.searchbox).to_have_value('')
        expect(self.names).to_have_count(50)
        self.page.go_forward()
        expect(self.searchbox).to_have_value('ANN')
        expect(self.names).to_have_count(2)

    def test_search_can_be_shared(self):
        self.open('/?q=ann&active=true')
        expect(self.names).to_have_text(['Ann Example'])
        expect(self.searchbox).to_have_value('ann')
        expect(self.page.get_by_role('button', name='Active', exact=True)).to_have_attribute('aria-pressed', 'true')

    def test_characters_have_no_special_meaning(self):
        self.open()
        for text, names in (('50%_', ['50%_off']), ('%%', []), ('__', []), ('Ze\\', [])):
            self.searchbox.fill(text)
            expect(self.summary).to_contain_text(f'“{text}”')
            expect(self.names).to_have_text(names)

    def test_search_for_one_character_shows_the_minimum(self):
        self.open()
        self.searchbox.fill('a')
        expect(self.searchbox).to_have_accessible_description('Type at least 2 characters.')
        expect(self.names).to_have_count(50)
        self.assert_accessible()

    def test_empty_result_offers_to_clear_the_search(self):
        self.open('/?active=true')
        self.searchbox.fill('zz')
        expect(self.page.get_by_text('No active user matches “zz”')).to_be_visible()
        expect(self.summary).to_have_text('0 users matching “zz”')
        self.assert_accessible()
        self.page.get_by_role('button', name='Show all users').click()
        expect(self.names).to_have_count(50)
        expect(self.searchbox).to_have_value('')

    def test_late_response_does_not_replace_a_later_search(self):
        self.open()
        expect(self.names).to_have_count(50)
        with self.site.frozen_service():
            self.searchbox.fill('user')
            self.page.wait_for_timeout(400)
            self.searchbox.fill('ann')
            self.page.wait_for_timeout(400)
        expect(self.names).to_have_text(['Zoë', 'Ann Example'])


class AddTests(PageTestCase):
    def setUp(self):
        super().setUp()
        self.site.store([ann()])
        self.open()
        expect(self.names).to_have_count(1)
        self.add.click()
        self.username = self.dialog.get_by_label('Username')
        self.email = self.dialog.get_by_label('Email')
        self.submit = self.dialog.locator('button[type=submit]')

    def test_new_user_is_on_top_without_a_reload_and_still_after_one(self):
        self.assert_accessible()
        self.page.evaluate('window.same = true')
        expect(self.username).to_be_focused()
        self.fill(' Zoe Ångström ', 'zoe@example.com')
        self.email.press('Enter')
        expect(self.toasts).to_contain_text('zoe@example.com was added!')
        expect(self.dialog).to_have_count(0)
        expect(self.names).to_have_text(['Zoe Ångström', 'Ann Example'])
        expect(self.summary).to_have_text('2 users')
        expect(self.add).to_be_focused()
        self.assertTrue(self.page.evaluate('window.same'))
        self.assert_accessible()
        self.page.reload()
        expect(self.names).to_have_text(['Zoe Ångström', 'Ann Example'])

    def test_email_that_is_taken_is_reported_at_the_field_and_can_be_corrected(self):
        self.fill('Another Ann', 'ANN@example.com')
        self.submit.click()
        expect(self.email).to_have_accessible_description('Sorry. That email already exists.')
        expect(self.email).to_be_focused()
        expect(self.username).to_have_value('Another Ann')
        self.expect_error(BAD_REQUEST)
        self.assert_accessible()
        self.email.fill('another@example.com')
        expect(self.dialog.get_by_text('Sorry.')).to_have_count(0)
        self.email.press('Enter')
        expect(self.names).to_have_text(['Another Ann', 'Ann Example'])

    def test_every_wrong_field_is_reported(self):
        self.fill('  ', 'nobody')
        self.submit.click()
        expect(self.username).to_have_accessible_description('Username must not be blank.')
        expect(self.email).to_have_accessible_description('Email must be an email address.')
        expect(self.username).to_be_focused()
        self.expect_error(BAD_REQUEST)
        self.assert_accessible()

    def test_pressing_twice_adds_one_user(self):
        self.fill('Zoe', 'zoe@example.com')
        with self.site.frozen_service():
            self.submit.click()
            expect(self.submit).to_have_text('Adding…')
            self.submit.click(force=True)
            self.email.press('Enter')
            self.assert_accessible()
        expect(self.names).to_have_text(['Zoe', 'Ann Example'])
        self.assertEqual([method for method, _ in self.requests].count('POST'), 1)

    def test_cancel_and_escape_close_it(self):
        self.dialog.get_by_role('button', name='Cancel').click()
        expect(self.dialog).to_have_count(0)
        self.add.click()
        self.page.keyboard.press('Escape')
        expect(self.dialog).to_have_count(0)
        expect(self.add).to_be_focused()


class PanelTests(PageTestCase):
    def setUp(self):
        super().setUp()
        self.site.store([ann(), ann(username='Ben', email='ben@example.com')])

    def test_panel_has_a_url_of_its_own(self):
        self.open()
        self.open_panel('Ann Example')
        user_id = self.site.request('GET', '/users?q=ann')['data']['users'][0]['id']
        expect(self.page).to_have_url(f'{self.site.url}/?user={user_id}')
        expect(self.panel.get_by_role('definition').first).to_contain_text('ann@example.com')
        expect(self.panel).to_contain_text('2026-11-22T16:13:51.482913Z')
        expect(self.panel).to_contain_text('22 Nov 2026, 17:13:51 CET')
        self.assert_accessible()
        self.page.go_back()
        expect(self.panel).to_have_count(0)
        self.page.go_forward()
        expect(self.panel).to_contain_text('ann@example.com')
        self.page.reload()
        expect(self.panel).to_contain_text('ann@example.com')
        self.page.get_by_role('button', name='Close panel').click()
        expect(self.page).to_have_url(f'{self.site.url}/')

    def test_user_who_does_not_exist_is_reported(self):
        self.open('/?user=9007199254740991')
        expect(self.panel).to_contain_text('No user has the id 9007199254740991')
        self.expect_error('status of 404')
        self.assert_accessible()

    def test_user_is_renamed_and_gets_another_email(self):
        self.open(token=True)
        self.open_panel('Ann Example')
        expect(self.button('Save changes')).to_have_attribute('aria-disabled', 'true')
        self.fill('Ann Lee', 'ann.lee@example.com')
        self.button('Save changes').click()
        expect(self.toasts).to_contain_text('Ann Lee was saved.')
        expect(self.panel.get_by_role('heading')).to_have_text('Ann Lee')
        expect(self.names).to_have_text(['Ben', 'Ann Lee'])
        self.assertEqual(self.emails(), ['ben@example.com', 'ann.lee@example.com'])
        stored = self.site.request('GET', '/users?q=ann')['data']['users'][0]
        self.assertEqual((stored['username'], stored['email']), ('Ann Lee', 'ann.lee@example.com'))
        expect(self.button('Save changes')).to_have_attribute('aria-disabled', 'true')
        # The next change starts from the new version.
        self.fill('Ann L.', 'ann.lee@example.com')
        self.button('Save changes').click()
        expect(self.names).to_have_text(['Ben', 'Ann L.'])
        self.assert_accessible()

    def test_wrong_change_is_reported_and_discarded(self):
        self.open(token=True)
        self.open_panel('Ann Example')
        self.fill(' ', 'BEN@example.com')
        self.button('Save changes').click()
        expect(self.panel.get_by_label('Username')).to_have_accessible_description('Username must not be blank.')
        self.fill('Ann', 'BEN@example.com')
        self.button('Save changes').click()
        email = self.panel.get_by_role('textbox', name='Email')
        expect(email).to_have_accessible_description('Sorry. That email already exists.')
        expect(email).to_be_focused()
        self.expect_error(BAD_REQUEST)
        self.assert_accessible()
        self.button('Discard').click()
        expect(email).to_have_value('ann@example.com')
        expect(self.panel.get_by_text('Sorry.')).to_have_count(0)

    def test_user_is_activated_and_deactivated(self):
        self.open(token=True)
        self.open_panel('Ann Example')
        self.panel.get_by_label('Username').fill('typed and not saved')
        self.button('Activate').click()
        expect(self.toasts).to_contain_text('Ann Example was activated.')
        expect(self.table.locator('.badge')).to_have_text(['Inactive', 'Active'])
        expect(self.panel.get_by_label('Username')).to_have_value('typed and not saved')
        self.button('Deactivate').click()
        expect(self.toasts).to_contain_text('Ann Example was deactivated.')
        expect(self.table.locator('.badge')).to_have_text(['Inactive', 'Inactive'])

    def test_removal_is_confirmed_by_name_and_can_be_undone(self):
        self.open(token=True)
        self.open_panel('Ann Example')
        self.button('Remove user…').click()
        question = self.page.get_by_role('alertdialog', name='Remove Ann Example?')
        expect(question).to_contain_text('ann@example.com')
        self.assert_accessible()
        question.get_by_role('button', name='Cancel').click()
        expect(question).to_have_count(0)
        self.button('Remove user…').click()
        question.get_by_role('button', name='Remove', exact=True).click()
        expect(self.names).to_have_text(['Ben'])
        expect(self.summary).to_have_text('1 user')
        expect(self.panel).to_have_count(0)
        self.toasts.get_by_role('button', name='Undo').click()
        expect(self.names).to_have_text(['Ben', 'Ann Example'])
        expect(self.summary).to_have_text('2 users')
        self.page.wait_for_timeout(5500)
        self.assertNotIn('DELETE', [method for method, _ in self.requests])

    def test_removal_is_sent_when_it_is_not_undone(self):
        self.open(token=True)
        self.open_panel('Ann Example')
        self.button('Remove user…').click()
        self.button('Remove').click()
        expect(self.toasts).to_contain_text('Ann Example is being removed.')
        self.assertEqual(len(self.site.request('GET', '/users')['data']['users']), 2)
        self.assert_accessible()
        expect(self.toasts).to_contain_text('Ann Example was removed.')
        self.assertEqual(len(self.site.request('GET', '/users')['data']['users']), 1)


class ComfortTests(PageTestCase):
    def test_email_and_id_are_copied_with_one_press(self):
        self.site.store([ann()])
        self.open(permissions=['clipboard-read', 'clipboard-write'])
        user_id = str(self.site.request('GET', '/users')['data']['users'][0]['id'])
        self.names.hover()
        for what, text in (('email', 'ann@example.com'), ('id', user_id)):
            self.table.get_by_role('button', name=f'Copy {what} {text}').click()
            expect(self.toasts).to_contain_text(f'Copied {text}')
            self.assertEqual(self.page.evaluate('navigator.clipboard.readText()'), text)
        expect(self.panel).to_have_count(0)
        self.open_panel('Ann Example')
        self.panel.get_by_role('button', name='Copy email').click()
        self.assertEqual(self.page.evaluate('navigator.clipboard.readText()'), 'ann@example.com')

    def test_users_shown_are_exported_as_csv_that_is_safe_in_a_spreadsheet(self):
        self.site.store([ann(username='=1+1', email='=cmd@example.com')])
        self.site.request('POST', '/users', {'username': 'Ann "A", Jr.', 'email': '+a@example.com'})
        self.site.request('POST', '/users', {'username': 'Ünal', 'email': 'unal@example.com'})
        self.open()
        expect(self.names).to_have_count(3)
        with self.page.expect_download() as download:
            self.page.get_by_role('button', name='Export 3 users as CSV').click()
        self.assertEqual(download.value.suggested_filename, 'users.csv')
        content = Path(download.value.path()).read_bytes()
        self.assertTrue(content.startswith(b'\xef\xbb\xbf'))
        rows = list(csv.DictReader(io.StringIO(content.decode('utf-8-sig'), newline='')))
        self.assertEqual([row['username'] for row in rows], ['Ünal', 'Ann "A", Jr.', "'=1+1"])
        self.assertEqual([row['email'] for row in rows], ['unal@example.com', "'+a@example.com", "'=cmd@example.com"])
        self.assertEqual(rows[2]['created_at'], f'{CREATED_AT:%Y-%m-%dT%H:%M:%S.%fZ}')
        expect(self.toasts).to_contain_text('Exported 3 users.')

    def test_refresh_shows_what_others_did(self):
        self.site.store([ann()])
        self.open()
        expect(self.names).to_have_count(1)
        self.site.request('POST', '/users', {'username': 'Ben', 'email': 'ben@example.com'})
        self.page.get_by_role('button', name='Refresh').click()
        expect(self.names).to_have_text(['Ben', 'Ann Example'])
        expect(self.summary).to_have_text('2 users')
