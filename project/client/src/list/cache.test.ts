import { describe, expect, test } from 'vitest';
import { user } from '../testing';
import { matches, withoutUser, withUser } from './cache';

const page = (after: string | null, ...ids: number[]) => ({ after, users: ids.map((id) => user(id)) });
const ids = (pages: readonly { users: { id: number }[] }[]) => pages.map(({ users }) => users.map(({ id }) => id));

describe('the lists in memory', () => {
  test('insert a user in the right place, newest first', () => {
    const pages = [page('x', 9, 7), page(null, 5, 3)];
    expect(ids(withUser(pages, user(10)))).toEqual([[10, 9, 7], [5, 3]]);
    expect(ids(withUser(pages, user(8)))).toEqual([[9, 8, 7], [5, 3]]);
    expect(ids(withUser(pages, user(6)))).toEqual([[9, 7], [6, 5, 3]]);
    expect(ids(withUser(pages, user(1)))).toEqual([[9, 7], [5, 3, 1]]);
  });

  test('leave out a user below the loaded pages', () => {
    expect(ids(withUser([page('x', 9, 7)], user(1)))).toEqual([[9, 7]]);
  });

  test('contain a user once, however often the user is inserted', () => {
    expect(ids(withUser([page(null, 9, 7)], user(7)))).toEqual([[9, 7]]);
    expect(ids(withUser([page(null)], user(7)))).toEqual([[7]]);
  });

  test('keep the objects of pages that do not change', () => {
    const pages = [page('x', 9, 7), page(null, 5, 3)];
    const without = withoutUser(pages, 5);
    expect(ids(without)).toEqual([[9, 7], [3]]);
    expect(without[0]).toBe(pages[0]);
  });

  test('match users with a filter as the service does', () => {
    const ann = user(1, { username: 'Ünal Ann', email: 'ann@example.com', active: true });
    expect(matches({ q: 'ANN', active: undefined }, ann)).toBe(true);
    expect(matches({ q: 'Ün', active: true }, ann)).toBe(true);
    expect(matches({ q: 'ün', active: undefined }, ann)).toBe(false);
    expect(matches({ q: 'example', active: undefined }, ann)).toBe(false);
    expect(matches({ q: '', active: false }, ann)).toBe(false);
  });
});
