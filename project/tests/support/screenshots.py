"""Take the pictures of the page: ``python -m project.tests.support.screenshots [FOLDER]``.

:mod:`project.tests.support.browsing` tells what it takes. Users, zone and language are always the same, so that
only a change of the page changes a picture.
"""

import argparse
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.sync_api import expect

from project.tests.support import browsing

FOLDER = browsing.CLIENT / 'screenshots'
DESKTOP = {'viewport': {'width': 1280, 'height': 800}}
PHONE = {'viewport': {'width': 390, 'height': 844}, 'is_mobile': True, 'has_touch': True}
READER = {'locale': 'en-GB', 'timezone_id': 'Europe/Berlin', 'reduced_motion': 'reduce'}
NAMES = (
    *('Amara Okafor', 'Mateo Álvarez', 'Ingrid Solberg', 'Kenji Watanabe', 'Chloé Marchand', 'Tomasz Zieliński'),
    *('Leila Haddad', 'Oisín Byrne', 'Priya Raman', 'Jonas Lindqvist', 'Sofia Rossi', 'Daniel Kim'),
    *('Nadia Petrova', 'Samuel Adeyemi', 'Hanna Virtanen', 'Rafael Costa', 'Mei Lin Tan', 'Elif Demir'),
    *('Noah Fischer', 'Aroha Williams', 'Lucía Herrera', 'Viktor Novák', 'Grace Mwangi', 'Emil Sørensen'),
)
ASCII = str.maketrans('áéíńø', 'aeino')  # of the addresses


def users():
    """The users of the pictures, the last of them the newest."""
    moment = datetime(2026, 11, 22, 16, 13, 51, 482913, UTC)
    return [
        {
            'username': name,
            'email': f'{name.lower().replace(" ", ".").translate(ASCII)}@example.com',
            # Further and further apart: minutes, hours, days.
            'created_at': moment - timedelta(minutes=7 * number**2.6),
        }
        for number, name in reversed(list(enumerate(NAMES)))
    ]


def take(site, folder):
    """Take every picture.

    :param site: a running :class:`project.tests.support.browsing.Site`.
    :param folder: the ``Path`` to put them in; those that are there are replaced.
    :returns: their paths.
    """
    taken = []

    def shoot(name, act=lambda page: None, **options):
        context = site.browser.new_context(**READER | options)
        page = context.new_page()
        page.goto(site.url)
        expect(page.get_by_role('list', name='Users').get_by_role('listitem').first).to_be_visible()
        act(page)
        taken.append(folder / f'{name}.png')
        page.screenshot(path=taken[-1], animations='disabled', caret='hide')
        context.close()

    site.store(users())
    shoot('desktop', **DESKTOP)
    shoot('desktop-dark', **DESKTOP, color_scheme='dark')
    shoot('phone', **PHONE)
    shoot('phone-dark', **PHONE, color_scheme='dark')
    shoot('errors', lambda page: bring_errors(site, page), **DESKTOP)
    return taken


def bring_errors(site, page):
    """Bring two errors on the page: an address that is taken, and a service that is down."""
    page.get_by_role('textbox', name='Username').fill('Amara O.')
    page.get_by_role('textbox', name='Email').fill('amara.okafor@example.com')
    page.get_by_role('button', name='Add user').click()
    expect(page.get_by_text('Sorry. That email already exists.')).to_be_visible()
    site.stop_service()
    page.get_by_role('searchbox').fill('priya.raman@example.com')
    page.keyboard.press('Enter')
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
