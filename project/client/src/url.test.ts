import { describe, expect, test } from 'vitest';
import { filterOf, parseView, viewUrl } from './url';

describe('the view in the URL', () => {
  test.each([
    ['', { q: '', active: undefined, user: null }],
    ['?q=ann%20b&active=true&user=42', { q: 'ann b', active: true, user: 42 }],
    ['?active=false', { q: '', active: false, user: null }],
    ['?active=yes&user=0&user=1', { q: '', active: undefined, user: null }],
    ['?user=1e3', { q: '', active: undefined, user: null }],
  ])('%s', (search, view) => { expect(parseView(search)).toEqual(view); });

  test('is parsed as it was written', () => {
    const view = { q: 'ann & bob', active: false, user: 7 };
    expect(parseView(viewUrl(view))).toEqual(view);
    expect(viewUrl({ q: '', active: undefined, user: null })).toBe('/');
  });

  test('searches with two characters or more', () => {
    expect(filterOf({ q: ' a ', active: undefined, user: null }).q).toBe('');
    expect(filterOf({ q: ' an ', active: undefined, user: null }).q).toBe('an');
    expect(filterOf({ q: '😀', active: undefined, user: null }).q).toBe('');
  });
});
