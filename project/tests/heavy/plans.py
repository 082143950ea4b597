"""Each query of the service uses an index, in its order, as EXPLAIN shows.

Run by ``python manage.py test plans``, on the database of ``DATABASE_TEST_URL``; it stores 100,000 users.
"""

from sqlalchemy import text

from project import db
from project.api.models import User, _select_by_ids
from project.database.reading import compiled
from project.database.streams import SETTINGS
from project.tests.base import BaseTestCase

COUNT = 100_000
CREATED_AT = '2024-03-01T00:00:00.000000Z'
# The rows are not stored in the order of the list, so that the list needs an index or a sort.
FILL = {
    'postgresql': """
        INSERT INTO users (username, email, active, created_at)
        SELECT 'user' || n % 20, 'user' || n || '@example.com', n % 1000 = 0,
               timestamptz '2024-01-01Z' + (n::bigint * 7919 % :count) * interval '100 seconds'
        FROM generate_series(1, :count) n
    """,
    'sqlite': """
        WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
        INSERT INTO users (username, email, active, created_at)
        SELECT 'user' || n % 20, 'user' || n || '@example.com', n % 1000 = 0,
               strftime('%Y-%m-%dT%H:%M:%S.000000Z', '2024-01-01', (n * 7919 % :count * 100) || ' seconds')
        FROM numbers
    """,
}
POSITION = {'created_at': CREATED_AT, 'id': 5}
RARE = {'q': 'user7777'}
QUERIES = {
    'one user': (_select_by_ids(2), {'id0': 5, 'id1': 6}),
    'the first page': (User.newest_first('limit'), {'limit': 51}),
    'a deep page': (User.newest_first('limit', 'after'), {'limit': 51, 'created_at': CREATED_AT, 'id': 5}),
    'an email': (
        User.newest_first('limit', 'email'),
        {'limit': 2001, 'email': 'USER5@example.com', 'email_as_is': 'USER5@example.com'},
    ),
    'a username': (User.newest_first('limit', 'username'), {'limit': 51, 'username': 'user5'}),
    'active users': (User.newest_first('limit', 'active'), {'limit': 51, 'active': True}),
    'a rare prefix': (User.newest_first('limit', 'q'), RARE | {'limit': 51}),
    'a rare prefix of active users': (User.newest_first('limit', 'q', 'active'), RARE | {'limit': 51, 'active': True}),
    'a deep page of a rare prefix': (User.newest_first('limit', 'q', 'after'), RARE | POSITION | {'limit': 51}),
    'the number of a rare prefix': (User.counting('q'), RARE),
    'the rest of the list': (User.newest_first('after'), {'created_at': '2099-01-01T00:00:00.000000Z', 'id': 5}),
}


class PlanTest(BaseTestCase):
    def setUp(self):
        super().setUp()
        self.dialect = db.engine.dialect.name
        with db.engine.begin() as connection:
            connection.execute(text(FILL[self.dialect]), {'count': COUNT})
            connection.execute(text('ANALYZE'))

    def plan(self, statement, values, streamed):
        """Return the plan of a statement, as EXPLAIN shows it."""
        sql, constants = compiled(statement, db.engine.dialect)
        with db.engine.begin() as connection:
            if self.dialect == 'sqlite':
                rows = connection.exec_driver_sql(f'EXPLAIN QUERY PLAN {sql}', constants | values).all()
                return '\n'.join(row[3] for row in rows)
            if streamed:
                connection.execute(SETTINGS)
                sql = f'DECLARE plan CURSOR FOR {sql}'
            return '\n'.join(connection.exec_driver_sql(f'EXPLAIN {sql}', constants | values).scalars())

    def test_every_query_uses_an_index(self):
        for name, (statement, values) in QUERIES.items():
            with self.subTest(query=name):
                plan = self.plan(statement, values, streamed='limit' not in values and 'created_at' in values)
                if self.dialect == 'sqlite':
                    self.assertRegex(plan, 'USING (INTEGER PRIMARY KEY|(COVERING )?INDEX)')
                    if 'prefix' in name:  # whose few users are sorted
                        self.assertIn('USING INDEX users_username_prefix_idx', plan)
                        self.assertIn('USING INDEX users_email_key', plan)
                    elif name != 'an email':  # two users at most
                        self.assertNotIn('TEMP B-TREE', plan)
                else:
                    self.assertIn('Index Scan', plan)
                    self.assertNotIn('Seq Scan', plan)
                    if 'prefix' in name:
                        self.assertIn('Bitmap Index Scan on users_username_prefix_idx', plan)
                        self.assertIn('Bitmap Index Scan on users_email_key', plan)
                    else:
                        # For the one user of an email, sorting costs nothing.
                        self.assertTrue('Sort' not in plan or name == 'an email', plan)

    def test_frequent_prefix_is_read_in_the_order_of_the_list(self):
        # SQLite's planner does not know how many users a prefix has: it collects and sorts them.
        if self.dialect == 'postgresql':
            plan = self.plan(User.newest_first('limit', 'q'), {'limit': 51, 'q': 'user'}, streamed=False)
            self.assertIn('Index Scan using users_created_at_id_idx', plan)

    def test_planner_would_sort_without_the_index(self):
        with db.engine.begin() as connection:
            connection.execute(text('DROP INDEX users_created_at_id_idx'))
        try:
            plan = self.plan(*QUERIES['the first page'], streamed=False)
            self.assertRegex(plan, 'Sort|TEMP B-TREE')
        finally:
            index = next(index for index in User.__table__.indexes if index.name == 'users_created_at_id_idx')
            index.create(db.engine)
