"""Take the pictures of the page: ``python -m project.tests.support.screenshots [FOLDER]``.

:mod:`project.tests.support.browsing` lists its requirements. Users, zone and language are always the same, so that
only a change of the page changes a picture.
"""

import argparse
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from project.tests.support import browsing
from project.tests.support.servers import TOKEN

FOLDER = browsing.CLIENT / 'screenshots'
DESKTOP = {'viewport': {'width': 1280, 'height': 800}}
PHONE = {'viewport': {'width': 390, 'height': 844}, 'is_mobile': True, 'has_touch': True}
NARROW = {'viewport': {'width': 320, 'height': 640}, 'is_mobile': True, 'has_touch': True}
NOW = datetime(2026, 11, 22, 16, 14, 30, tzinfo=UTC)
READER = {'locale': 'en-GB', 'timezone_id': 'Europe/Berlin', 'reduced_motion': 'reduce'}
NAMES = (
    *('Amara Okafor', 'Mateo Álvarez', 'Ingrid Solberg', 'Kenji Watanabe', 'Chloé Marchand', 'Tomasz Zieliński'),
    *('Leila Haddad', 'Oisín Byrne', 'Priya Raman', 'Jonas Lindqvist', 'Sofia Rossi', 'Daniel Kim'),
    *('Nadia Petrova', 'Samuel Adeyemi', 'Hanna Virtanen', 'Rafael Costa', 'Mei Lin Tan', 'Elif Demir'),
    *('Noah Fischer', 'Aroha Williams', 'Lucía Herrera', 'Viktor Novák', 'Grace Mwangi', 'Emil Sørensen'),
)
ASCII = str.maketrans('áéíńø', 'aeino')  # of the addresses

RIGHT_TO_LEFT = [
    {'username': name, 'email': email, 'created_at': NOW - timedelta(days=days), 'active': days % 2 == 0}
    for days, (name, email) in enumerate(
        (
            ('ליאור כהן', 'lior.cohen@example.co.il'),
            ('محمد عبد الله', 'muhammad.abdullah@averylongname.departments.example.com'),
            ('Łucja (שרה) Nowak', 'lucja.nowak@example.com'),
            ('فاطمه ۱۲۳', 'fatemeh@xn--mgba3a4f16a.example'),
            ('田中 さくら', 'sakura.tanaka@example.jp'),
            ('W' * 128, f'{"w" * 64}@{"w" * 51}.example.com'),
        )
    )
]


def users():
    """The users of the pictures, the last of them the newest."""
    latest = NOW - timedelta(seconds=38, microseconds=517087)
    return [
        {
            'username': name,
            'email': f'{name.lower().replace(" ", ".").translate(ASCII)}@example.com',
            # Further and further apart: minutes, hours, days.
            'created_at': latest - timedelta(minutes=7 * number**2.6),
            'active': number % 4 != 2,
        }
        for number, name in reversed(list(enumerate(NAMES)))
    ]


def take(site: browsing.Site, folder: Path) -> list[Path]:
    """Take every picture.

    :param site: a running :class:`project.tests.support.browsing.Site`.
    :param folder: the ``Path`` of their folder; existing pictures are replaced.
    :returns: their paths.
    """
    taken = []

    def shoot(name: str, act: Callable[[Page], None] = lambda page: None, query: str = '', **options: Any) -> None:
        context = site.browser.new_context(**READER | options)
        page = context.new_page()
        page.clock.set_fixed_time(NOW)
        page.goto(site.url + query)
        expect(
            page.get_by_role('table').or_(page.get_by_role('alert')).or_(page.locator('.empty')).first
        ).to_be_visible()
        act(page)
        taken.append(folder / f'{name}.png')
        page.screenshot(path=taken[-1], animations='disabled', caret='hide')
        context.close()

    site.store(users())
    user = site.request('GET', '/users?q=mateo')['data']['users'][0]['id']
    panel = f'/?user={user}'
    shoot('desktop', **DESKTOP)
    shoot('desktop-dark', **DESKTOP, color_scheme='dark')
    shoot('phone', **PHONE)
    shoot('phone-dark', **PHONE, color_scheme='dark')
    shoot('narrow', **NARROW)
    shoot('search', search_active, **DESKTOP)
    shoot('panel', show_panel, query=panel, **DESKTOP)
    shoot('panel-dark', show_panel, query=panel, **DESKTOP, color_scheme='dark')
    shoot('panel-phone', show_panel, query=panel, **PHONE)
    shoot('panel-narrow', show_panel, query=panel, **NARROW)
    shoot('add', add_taken, **DESKTOP)
    shoot('add-phone', add_taken, **PHONE)
    shoot('token', ask_for_token, query=panel, **DESKTOP)
    shoot('remove', ask_to_remove, query=panel, **DESKTOP)
    shoot('undo', remove, query=panel, **DESKTOP)
    shoot('undo-phone', remove, query=panel, **PHONE, color_scheme='dark')
    shoot('conflict', lambda page: conflict(site, page, user), query=panel, **DESKTOP)
    shoot('conflict-phone', lambda page: conflict(site, page, user), query=panel, **PHONE)
    shoot('nobody', query='/?q=zz&active=true', **DESKTOP)
    shoot('error', lambda page: bring_error(site, page), **DESKTOP)
    shoot('contrast', **DESKTOP, contrast='more')
    shoot('forced-colors', show_panel, query=panel, **DESKTOP, forced_colors='active')
    with site.settings(API_TOKENS=''):
        shoot('no-tokens', query=panel, **DESKTOP)
    site.store(RIGHT_TO_LEFT)
    shoot('right-to-left', **DESKTOP)
    shoot('right-to-left-narrow', **NARROW)
    site.store([])
    shoot('empty', **DESKTOP)
    shoot('empty-phone', **PHONE, color_scheme='dark')
    return taken


def search_active(page: Page) -> None:
    """Search among the active users."""
    page.get_by_role('button', name='Active', exact=True).click()
    page.get_by_role('searchbox').fill('ma')
    expect(page.get_by_role('status').first).to_contain_text('matching')


def show_panel(page: Page) -> None:
    """Wait for the panel of the user in the URL."""
    expect(page.get_by_role('button', name='Save changes')).to_be_visible()


def add_taken(page: Page) -> None:
    """Try to add a user with an email that is taken."""
    page.get_by_role('button', name='Add user').click()
    dialog = page.get_by_role('dialog', name='Add a user')
    dialog.get_by_label('Username').fill('Amara O.')
    dialog.get_by_label('Email').fill('amara.okafor@example.com')
    dialog.get_by_role('button', name='Add user').click()
    expect(dialog.get_by_text('Sorry. That email already exists.')).to_be_visible()


def ask_for_token(page: Page) -> None:
    """Change a user without a token."""
    page.get_by_role('dialog').get_by_role('button', name=re.compile('ctivate')).click()
    expect(page.get_by_role('dialog', name='Enter a token')).to_be_visible()


def give_token(page: Page) -> None:
    """Enter the token in the dialog that asks for it."""
    page.get_by_label('API token').fill(TOKEN)
    page.get_by_role('button', name='Use token').click()


def ask_to_remove(page: Page) -> None:
    """Press the button that removes a user."""
    page.get_by_role('button', name='Remove user').click()
    expect(page.get_by_role('alertdialog')).to_be_visible()


def remove(page: Page) -> None:
    """Remove a user, with the time left to undo it."""
    ask_to_remove(page)
    page.get_by_role('button', name='Remove', exact=True).click()
    expect(page.get_by_role('button', name='Undo')).to_be_visible()


def conflict(site: browsing.Site, page: Page, user: int) -> None:
    """Change a user whom another client changes at the same time."""
    show_panel(page)
    state = site.request('GET', f'/users/{user}')['data']
    site.request('PATCH', f'/users/{user}', {'username': 'Mateo Álvarez Ruiz', 'active': not state['active']})
    panel = page.get_by_role('dialog')
    panel.get_by_label('Username').fill('Mateo A.')
    panel.get_by_role('button', name='Save changes').click()
    give_token(page)
    expect(page.get_by_role('alertdialog')).to_be_visible()
    site.request('PATCH', f'/users/{user}', {'username': state['username'], 'active': state['active']})


def bring_error(site: browsing.Site, page: Page) -> None:
    """Search while the service is down."""
    site.stop_service()
    page.get_by_role('searchbox').fill('priya')
    expect(page.get_by_role('alert')).to_be_visible()
    site.start_service()


if __name__ == '__main__':
    description = 'Take the pictures of the page.'
    parser = argparse.ArgumentParser(prog='python -m project.tests.support.screenshots', description=description)
    parser.add_argument('folder', nargs='?', type=Path, default=FOLDER, help='where they go (default: %(default)s)')
    arguments = parser.parse_args()
    try:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f'no folder can be made at {arguments.folder}: {error.strerror}')
    try:
        with browsing.site() as running:
            for path in take(running, arguments.folder):
                print(f'{path} ({path.stat().st_size // 1024} KB)')
    except RuntimeError as error:
        sys.exit(str(error))
