import { describe, expect, test } from 'vitest';
import { user } from '../testing';
import { toCsv } from './csv';

describe('CSV', () => {
  test('has a byte order mark, a header, and a line for each user', () => {
    expect(toCsv([user(2, { active: true }), user(1)])).toBe(
      '\uFEFFid,username,email,active,created_at\r\n'
      + '2,"user 2","user2@example.com",true,"2026-11-22T16:13:02.482913Z"\r\n'
      + '1,"user 1","user1@example.com",false,"2026-11-22T16:13:01.482913Z"\r\n',
    );
  });

  test('doubles quotes, and keeps commas', () => {
    expect(toCsv([user(1, { username: 'Ann "A", Jr.' })])).toContain(',"Ann ""A"", Jr.",');
  });

  test.each([
    '=1+1', '+1', '-1', '@SUM(A1)', '\t=1', '\r=1', '\n=1', ' =1', '|cmd', '%0A', '＝1', '＋1', '－1', '＠A', '\u200B=1', '\u00A0=1',
  ])('lets no cell start a formula: %j', (username) => {
    expect(toCsv([user(1, { username })])).toContain(`,"'${username}",`);
  });

  test('keeps a text that has such a character after its start', () => {
    expect(toCsv([user(1, { username: 'a=b', email: 'ann+x@example.com' })])).toContain(',"a=b","ann+x@example.com",');
  });
});
