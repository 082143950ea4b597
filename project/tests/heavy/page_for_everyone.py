"""The page in a browser with the keyboard alone, on a phone, dark, in high contrast, and with 10,000 rows.

Run by ``python manage.py test page_for_everyone``; :mod:`project.tests.support.browsing` says what it needs.
"""

from datetime import timedelta
from itertools import pairwise

from playwright.sync_api import Locator, expect

from project.tests.support.page_case import CREATED_AT, NARROW, PHONE, SETTLED, PageTestCase, ann, some_users
from project.tests.support.servers import TOKEN

LONG = {'username': 'W' * 128, 'email': f'{"w" * 64}@{"w" * 51}.example.com'}
LUMINANCES = """
() => {
    const style = getComputedStyle(document.body);
    return [style.backgroundColor, style.color].map((color) => {
        const [red, green, blue] = color.match(/[0-9.]+/g).map(Number);
        return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255;
    });
}
"""
LINES = """
(element) => {
    const range = document.createRange();
    const lines = new Map();
    const texts = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    for (let node = texts.nextNode(); node; node = texts.nextNode()) {
        for (let index = 0; index < node.length; index += 1) {
            range.setStart(node, index);
            range.setEnd(node, index + 1);
            const top = Math.round(range.getBoundingClientRect().top);
            lines.set(top, (lines.get(top) ?? '') + node.data[index]);
        }
    }
    return [...lines.values()];
}
"""
# The pages of rows that the browser lays out and paints; it skips the others.
RENDERED = """
() => [...document.querySelectorAll('.rows')].filter(
    (rows) => rows.firstElementChild.checkVisibility({contentVisibilityAuto: true})
).length
"""
# Scrolls for two seconds, and returns how many milliseconds each frame took.
FRAMES = """
() => new Promise((resolve) => {
    const frames = [];
    let last = performance.now();
    const start = last;
    const step = (now) => {
        frames.push(now - last);
        last = now;
        scrollBy(0, 400);
        if (now - start < 2000) requestAnimationFrame(step); else resolve(frames.slice(1));
    };
    scrollTo(0, 0);
    requestAnimationFrame(step);
})
"""


def setUpModule() -> None:
    PageTestCase.start_site()


class KeyboardTests(PageTestCase):
    def press_tab_to(self, element: Locator, most: int = 8) -> None:
        """Press Tab until the focus is on ``element``, and check that it can be seen there."""
        for _ in range(most):
            self.page.keyboard.press('Tab')
            if element.evaluate('element => element === document.activeElement'):
                break
        expect(element).to_be_focused()
        outline = element.evaluate(
            "element => [null, '::after'].map((part) => getComputedStyle(element, part).outline)"
        )
        self.assertRegex(' '.join(outline), r'solid [1-9.]+px', 'the focus cannot be seen')

    def test_keyboard_alone_is_enough(self):  # noqa: PLR0915, since each step depends on the previous one
        self.site.store(some_users(60))
        self.open()
        expect(self.names).to_have_count(50)
        keyboard = self.page.keyboard
        # Add a user. The key has no effect before the button is shown.
        expect(self.add).to_be_visible()
        keyboard.press('n')
        username = self.dialog.get_by_label('Username')
        expect(username).to_be_focused()
        keyboard.type('Zoe')
        self.press_tab_to(self.dialog.get_by_label('Email'))
        keyboard.type('user1@example.com')
        keyboard.press('Enter')
        expect(self.dialog.get_by_label('Email')).to_have_accessible_description('Sorry. That email already exists.')
        expect(self.dialog.get_by_label('Email')).to_be_focused()
        keyboard.press('Control+A')
        keyboard.type('zoe@example.com')
        keyboard.press('Enter')
        expect(self.names.first).to_have_text('Zoe')
        # Search, and clear it.
        keyboard.press('/')
        expect(self.searchbox).to_be_focused()
        keyboard.type('zoe')
        expect(self.names).to_have_text(['Zoe'])
        keyboard.press('Escape')
        expect(self.names).to_have_count(50)
        expect(self.searchbox).to_be_focused()
        # Filter.
        self.press_tab_to(self.page.get_by_role('button', name='Inactive'))
        keyboard.press('Space')
        expect(self.page).to_have_url(f'{self.site.url}/?active=false')
        # Go through the users, and open one.
        self.press_tab_to(self.names.first)
        keyboard.press('ArrowDown')
        expect(self.names.nth(1)).to_be_focused()
        keyboard.press('ArrowUp')
        keyboard.press('Enter')
        expect(self.panel.get_by_role('heading', name='Zoe')).to_be_focused()
        self.press_tab_to(self.page.get_by_role('button', name='Close panel'))
        self.press_tab_to(self.panel.get_by_role('button', name='Copy email'))
        self.press_tab_to(self.panel.get_by_label('Username'))
        keyboard.press('Control+A')
        keyboard.type('Zoë')
        keyboard.press('Enter')
        # Give the token.
        expect(self.page.get_by_label('API token')).to_be_focused()
        keyboard.insert_text(TOKEN)
        keyboard.press('Enter')
        expect(self.names.first).to_have_text('Zoë')
        # Remove the user, and undo it.
        self.press_tab_to(self.button('Remove user…'), most=12)
        keyboard.press('Enter')
        expect(self.button('Cancel')).to_be_focused()
        self.press_tab_to(self.button('Remove'))
        keyboard.press('Enter')
        expect(self.toasts.get_by_role('button', name='Undo')).to_be_focused()
        keyboard.press('Enter')
        expect(self.names.first).to_have_text('Zoë')
        expect(self.names.first).to_be_focused()
        self.errors.clear()

    def test_escape_closes_the_panel_and_gives_the_focus_back(self):
        self.site.store(some_users(3))
        self.open()
        self.open_panel('User 2')
        self.page.keyboard.press('Escape')
        expect(self.panel).to_have_count(0)
        expect(self.names.nth(1)).to_be_focused()
        expect(self.page).to_have_url(f'{self.site.url}/')

    def test_shortcuts_do_not_work_while_one_types(self):
        self.site.store(some_users(3))
        self.open()
        self.searchbox.press_sequentially('n/n')
        expect(self.searchbox).to_have_value('n/n')
        expect(self.dialog).to_have_count(0)


class ScreenTests(PageTestCase):
    def test_first_user_is_above_the_fold_of_a_phone(self):
        self.site.store(some_users(60))
        self.open(**PHONE)
        expect(self.names).to_have_count(50)
        box = self.names.first.bounding_box()
        self.assertLess(box['y'] + box['height'], 300)
        self.assert_fits()
        self.assert_accessible()
        self.add.tap()
        self.dialog.wait_for()
        self.page.evaluate(SETTLED)
        sheet = self.dialog.bounding_box()
        self.assertEqual((sheet['x'], sheet['width']), (0, 390))
        self.assertAlmostEqual(sheet['y'] + sheet['height'], 844, delta=1)
        self.fill('Zoe', 'zoe@example.com')
        self.button('Add user').tap()
        expect(self.names.first).to_have_text('Zoe')

    def test_panel_covers_a_phone(self):
        self.site.store([ann()])
        self.open(**PHONE)
        self.names.first.tap()
        expect(self.panel.get_by_role('heading')).to_be_focused()
        self.assertEqual(self.panel.bounding_box()['width'], 390)
        self.assert_fits()
        self.assert_accessible()
        self.page.get_by_role('button', name='Close panel').tap()
        expect(self.panel).to_have_count(0)

    def test_nothing_is_wider_than_the_narrowest_screen(self):
        self.site.store([*some_users(60), ann(**LONG)])
        self.open(token=True, **NARROW)
        expect(self.names).to_have_count(50)
        self.assert_fits()
        self.assert_accessible()
        self.searchbox.fill('n' * 120)
        expect(self.names).to_have_count(0)
        expect(self.page.get_by_text('No user matches')).to_be_visible()
        self.assert_fits()
        self.page.get_by_role('button', name='Show all users').tap()
        self.names.first.tap()
        expect(self.button('Save changes')).to_be_visible()
        self.assert_fits()
        self.assert_accessible()
        self.button('Remove user…').tap()
        self.assert_fits()
        self.assert_accessible()

    def test_narrow_screen_breaks_an_email_where_its_parts_end(self):
        for email, lines in (
            ('muhammad.abdullah@averylongname.departments.example.com', 3),
            ('lucja.nowakowska@example.com', 2),
            ('ann@example.com', 1),
        ):
            with self.subTest(email):
                self.site.store([ann(email=email)])
                self.open(**NARROW)
                expect(self.table.locator('.email')).to_be_visible()
                broken = self.table.locator('.email').evaluate(LINES)
                self.assertGreaterEqual(len(broken), lines)
                for line, following in pairwise(broken):
                    self.assertTrue(line.endswith('.') or following.startswith('@'), broken)
                self.assertIn('example.com', broken[-1])

    def test_names_from_right_to_left_leave_the_row_as_it_is(self):
        self.site.store([ann(username='محمد (12) عبد الله'), ann(username='ליאור', email='lior@example.com')])
        self.open(token=True)
        for row in self.table.get_by_role('row').all()[1:]:
            lefts = [cell.bounding_box()['x'] for cell in row.get_by_role('cell').all()]
            self.assertEqual(lefts, sorted(lefts))
        self.names.first.click()
        field = self.panel.get_by_label('Username')
        self.assertEqual(field.evaluate('element => getComputedStyle(element).direction'), 'rtl')
        self.assert_accessible()

    def test_colors_follow_the_reader(self):
        self.site.store([ann()])
        for scheme in ('dark', 'light'):
            with self.subTest(scheme):
                self.open(color_scheme=scheme)
                expect(self.names).to_have_count(1)
                background, ink = self.page.evaluate(LUMINANCES)
                darker, lighter = (background, ink) if scheme == 'dark' else (ink, background)
                self.assertLess(darker, 0.15)
                self.assertGreater(lighter, 0.85)

    def test_high_contrast(self):
        self.site.store([ann(active=True)])
        self.open(token=True, contrast='more')
        self.open_panel('Ann Example')
        self.assert_accessible()
        self.open(token=True, forced_colors='active')
        self.open_panel('Ann Example')
        expect(self.button('Save changes')).to_be_visible()
        for element in (self.table.locator('.badge'), self.page.get_by_role('button', name='Refresh')):
            self.assertNotEqual(element.evaluate('element => getComputedStyle(element).borderTopStyle'), 'none')


class LongListTests(PageTestCase):
    def test_ten_thousand_rows_scroll_smoothly(self):
        users = some_users(10_000)
        for number, user in enumerate(users):
            user['created_at'] = CREATED_AT - timedelta(minutes=number)
        self.site.store(users)
        self.open()
        expect(self.summary).to_contain_text('10,000 users')
        self.page.evaluate("""async () => {
            for (let step = 0; step < 3000 && document.querySelector('.more'); step += 1) {
                scrollTo(0, document.body.scrollHeight);
                await new Promise((resolve) => { setTimeout(resolve, 10); });
            }
        }""")
        expect(self.names).to_have_count(10_000)
        expect(self.summary).to_have_text('10,000 users')
        # Scrolling is smooth because the browser does not draw rows far from the screen.
        for place in (0, 0.5, 1):
            self.page.evaluate(f'scrollTo(0, document.body.scrollHeight * {place})')
            self.page.wait_for_timeout(100)
            self.assertLess(self.page.evaluate(RENDERED), 6)
        frames = sorted(self.page.evaluate(FRAMES))
        print(f'  measured: frames while 10,000 rows scroll: median {frames[len(frames) // 2]:.0f} ms, ', end='')
        print(f'95th percentile {frames[len(frames) * 95 // 100]:.0f} ms', flush=True)
        # A change of one row is shown at once, too.
        self.page.evaluate('scrollTo(0, 0)')
        self.names.first.click()
        expect(self.panel.get_by_role('heading')).to_be_focused()
