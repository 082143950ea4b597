"""Differences of Windows that can be tested on any system; heavy/windows.py runs commands as on Windows."""

import importlib
import time
import unittest
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from unittest import mock

from project import database_urls


class PathsTest(unittest.TestCase):
    def test_paths_of_windows_are_files(self) -> None:
        for path in (r'C:\data\users.db', 'C:/data/users.db', r'data\users.db'):
            with self.subTest(path=path):
                self.assertEqual(database_urls.parse(f'sqlite:///{path}', 'DATABASE_URL').database, path)


class DateTimeOfWindows(datetime):
    """A time whose conversion fails, as on Windows, if it is a local time before 1970."""

    def astimezone(self, tz: tzinfo | None = None) -> datetime:
        """Return this time in another zone."""
        if self.tzinfo is None and self.year < 1970:
            raise OSError(22, 'Invalid argument')
        return super().astimezone(tz)


class LocalTimesTest(unittest.TestCase):
    def test_local_times_that_windows_lacks_are_in_standard_time(self) -> None:
        utc = importlib.import_module('project.migrations.versions.0001_users').utc
        with mock.patch.object(time, 'timezone', -3600):
            self.assertEqual(utc(DateTimeOfWindows(1960, 7, 1, 12)), datetime(1960, 7, 1, 11, tzinfo=UTC))
        zoned = DateTimeOfWindows(1960, 7, 1, 12, tzinfo=timezone(timedelta(hours=-2)))
        self.assertEqual(utc(zoned), datetime(1960, 7, 1, 14, tzinfo=UTC))
