"""The JSON of views that a student adds, where Flask's own provider and orjson differ."""

from enum import Enum

from flask import jsonify

from project.tests.base import BaseTestCase


class Color(Enum):
    RED = 'red'


class JSONTextTest(BaseTestCase):
    def test_text_has_no_spaces_whatever_it_contains(self) -> None:
        for value, text in (
            ({'a': 1, 'b': [1, 2]}, '{"a":1,"b":[1,2]}'),
            ({1: 1, 2: [1, 2]}, '{"1":1,"2":[1,2]}'),
            ({'a': 2**70, 'b': 1}, f'{{"a":{2**70},"b":1}}'),
        ):
            with self.subTest(value=value):
                self.assertEqual(jsonify(value).get_data(as_text=True), text)

    def test_member_of_an_enum_is_its_value_whatever_is_beside_it(self) -> None:
        for value in ({'a': Color.RED, 'b': 1}, {'a': Color.RED, 'b': 2**70}):
            with self.subTest(value=value):
                self.assertEqual(jsonify(value).json, value | {'a': 'red'})
