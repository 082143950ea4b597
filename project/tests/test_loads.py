"""The clients of the heavy tests report what goes wrong in their threads."""

import threading
import unittest

from project.tests.support.loads import Load


class LoadTest(unittest.TestCase):
    def test_requests_without_a_response_are_recorded(self):
        sent = threading.Event()

        def send():
            sent.set()
            raise ConnectionRefusedError

        with Load(send, pause=0) as load:
            self.assertTrue(sent.wait(10))
        self.assertIsInstance(load.failures[0][1], ConnectionRefusedError)

    def test_any_other_exception_fails_the_test(self):
        def send():
            raise KeyError('data')

        with self.assertRaisesRegex(KeyError, 'data'), Load(send, clients=2):
            pass
