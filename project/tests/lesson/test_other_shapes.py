"""Other ways in which tests of such services create their app: each is given the test database."""

import os
import unittest

from project import create_app, db
from project.config import ProductionConfig


class TestAppsAreOnTheTestDatabase(unittest.TestCase):
    def check(self, app):
        with app.app_context():
            name = os.environ['DATABASE_TEST_URL'].rpartition('/')[2]
            self.assertEqual({engine.url.database.rpartition('/')[2] for engine in db.engines.values()}, {name})
            db.create_all()
            db.drop_all()
            for engine in db.engines.values():
                engine.dispose()

    def test_no_argument(self):
        self.check(create_app())

    def test_class_by_name(self):
        for name in ('DevelopmentConfig', 'TestingConfig'):
            self.check(create_app(f'project.config.{name}'))

    def test_class_of_one_s_own(self):
        self.check(create_app(type('Own', (ProductionConfig,), {'SECRET_KEY': 'k' * 40})))

    def test_development_configuration_afterwards(self):
        app = create_app()
        app.config.from_object('project.config.DevelopmentConfig')
        self.check(app)

    def test_app_of_manage(self):
        import manage

        self.check(manage.app)
