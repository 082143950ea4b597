import { describe, expect, test } from 'vitest';
import { exact, relative } from './time';

const NOW = Date.parse('2026-11-22T16:14:30Z');
const ago = (seconds: number) => relative(new Date(NOW - seconds * 1000), NOW);

describe('times', () => {
  test.each([
    [0, 'just now'], [59, 'just now'], [-30, 'just now'], [60, '1 min. ago'], [3599, '59 min. ago'], [3600, '1 hr. ago'],
    [86_399, '23 hr. ago'], [86_400, 'yesterday'], [30 * 86_400, '30 days ago'], [31 * 86_400, 'Oct 23, 2026'],
  ])('%i seconds ago are shown as %s', (seconds, words) => { expect(ago(seconds)).toBe(words); });

  test('are exact to the second, in the zone of the reader', () => {
    // 16:13 UTC is 01:13 of the next day in Tokyo, where these tests run.
    expect(exact(new Date('2026-11-22T16:13:01.482Z'))).toMatch(/Nov 23, 2026.*1:13:01.*GMT\+9/);
  });
});
