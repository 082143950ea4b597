# project/tests/test_users.py


import datetime
import json
import unittest

from project import db
from project.api.models import User
from project.tests.base import BaseTestCase


def add_user(username, email, created_at=datetime.datetime.utcnow()):
    user = User(username=username, email=email, created_at=created_at)
    db.session.add(user)
    db.session.commit()
    return user


class TestUserService(BaseTestCase):
    """Tests for the users service."""

    def post(self, **payload):
        return self.client.post('/users', data=json.dumps(payload), content_type='application/json')

    def check(self, response, code, message, status):
        data = json.loads(response.data.decode())
        self.assertEqual(response.status_code, code)
        self.assertIn(message, data['message'])
        self.assertIn(status, data['status'])

    def test_users(self):
        """The /ping route."""
        self.check(self.client.get('/ping'), 200, 'pong!', 'success')

    def test_add_user(self):
        """A new user can be added."""
        with self.client:
            response = self.post(username='michael', email='michael@realpython.com')
            self.check(response, 201, 'michael@realpython.com was added!', 'success')

    def test_add_user_invalid_json(self):
        """An empty JSON object is an error."""
        with self.client:
            self.check(self.post(), 400, 'Invalid payload.', 'fail')

    def test_add_user_invalid_json_keys(self):
        """A JSON object without username is an error."""
        with self.client:
            self.check(self.post(email='michael@realpython.com'), 400, 'Invalid payload.', 'fail')

    def test_add_user_duplicate_user(self):
        """An email that already exists is an error."""
        with self.client:
            self.post(username='michael', email='michael@realpython.com')
            response = self.post(username='michael', email='michael@realpython.com')
            self.check(response, 400, 'Sorry. That email already exists.', 'fail')

    def test_single_user(self):
        """One user."""
        user = add_user('michael', 'michael@realpython.com')
        with self.client:
            response = self.client.get(f'/users/{user.id}')
            data = json.loads(response.data.decode())
            self.assertEqual(response.status_code, 200)
            self.assertTrue('created_at' in data['data'])
            self.assertIn('michael', data['data']['username'])
            self.assertIn('michael@realpython.com', data['data']['email'])
            self.assertIn('success', data['status'])

    def test_single_user_no_id(self):
        """An id that is no number is an error."""
        with self.client:
            self.check(self.client.get('/users/blah'), 404, 'User does not exist', 'fail')

    def test_single_user_incorrect_id(self):
        """An id that does not exist is an error."""
        with self.client:
            self.check(self.client.get('/users/999'), 404, 'User does not exist', 'fail')

    def test_all_users(self):
        """Ensure get all users behaves correctly."""
        created = datetime.datetime.utcnow() + datetime.timedelta(-30)
        add_user('michael', 'michael@realpython.com', created)
        add_user('fletcher', 'fletcher@realpython.com')
        with self.client:
            response = self.client.get('/users')
            data = json.loads(response.data.decode())
            self.assertEqual(response.status_code, 200)
            self.assertEqual(len(data['data']['users']), 2)
            self.assertTrue('created_at' in data['data']['users'][0])
            self.assertTrue('created_at' in data['data']['users'][1])
            self.assertIn('michael', data['data']['users'][1]['username'])
            self.assertIn('michael@realpython.com', data['data']['users'][1]['email'])
            self.assertIn('fletcher', data['data']['users'][0]['username'])
            self.assertIn('fletcher@realpython.com', data['data']['users'][0]['email'])
            self.assertIn('success', data['status'])


if __name__ == '__main__':
    unittest.main()
