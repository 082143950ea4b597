import { beforeEach, describe, expect, test } from 'vitest';
import { json, refuseConnection, respondWith, user } from '../testing';
import type { ServiceError } from './errors';
import * as token from './token';
import { addUser, changeUser, Conflict, countUsers, getUsers, probe, removeUser } from './users';

const ALL = { q: '', active: undefined };
const LIST = json(200, { status: 'success', data: { users: [user(1)] } });
const NO_TOKEN = json(401, { status: 'fail', message: 'A bearer token is required.' });
const CHANGED = json(412, { status: 'fail', message: 'The user has changed since it was read.' });
const one = (change = {}, etag = '"new"') => json(200, { status: 'success', data: user(1, change) }, { ETag: etag });
const signal = new AbortController().signal;

const failure = (promise: Promise<unknown>) => promise.then(
  () => { throw new Error('it succeeded'); },
  (error: unknown) => error as ServiceError,
);

beforeEach(() => {
  token.submitToken(null);
  token.forget();
});

describe('requests', () => {
  test('have the parameters of the contract', async () => {
    const requests = respondWith(
      json(200, { status: 'success', data: { users: [user(1)], next: '/some/path/users?limit=50&after=a.b' } }),
      json(200, { status: 'success', data: { users: [], total: 7 } }),
    );
    expect(await getUsers({ q: 'ann & b', active: true }, 'x.y', signal)).toEqual({ users: [user(1)], after: 'a.b' });
    expect(await countUsers(ALL, signal)).toBe(7);
    expect(requests.map(({ url }) => url)).toEqual([
      'http://users.test:5001/users?q=ann%20%26%20b&active=true&limit=50&after=x.y',
      'http://users.test:5001/users?limit=1&count=true',
    ]);
  });

  test.each([
    ['no connection', refuseConnection, 'unreachable', undefined],
    ['a gateway without a service', () => new Response('<html>', { status: 502 }), 'unreachable', undefined],
    ['429', json(429, {}, { 'Retry-After': '7' }), 'busy', 7],
    ['503', json(503, {}, { 'Retry-After': '0' }), 'busy', 1],
    ['503 with a date', json(503, {}, { 'Retry-After': 'Sun, 22 Nov 2026 16:14:30 GMT' }), 'busy', 2],
    ['another page', () => new Response('<html>'), 'foreign', undefined],
    ['other JSON', json(200, { users: [] }), 'foreign', undefined],
    ['a bare null', json(200, null), 'foreign', undefined],
    ['no tokens', json(403, { status: 'fail', message: 'This needs a token.' }), 'closed', undefined],
  ])('fail with the right kind of error: %s', async (_, response, kind, retryAfter) => {
    respondWith(response);
    expect(await failure(getUsers(ALL, null, signal))).toMatchObject({ kind, retryAfter });
  });

  test('fail with a sentence for each wrong field', async () => {
    respondWith(
      json(400, { status: 'fail', message: 'Invalid payload.', errors: { username: 'must not be blank' } }),
      json(400, { status: 'fail', message: 'Sorry. That email already exists.' }),
    );
    expect(await failure(addUser({ username: '', email: '' }))).toMatchObject({ errors: { username: 'Username must not be blank.' } });
    expect(await failure(addUser({ username: '', email: '' }))).toMatchObject({ errors: { email: 'Sorry. That email already exists.' } });
  });
});

describe('the token', () => {
  test('is requested once for requests at the same time, and kept for the tab', async () => {
    const requests = respondWith(NO_TOKEN, NO_TOKEN, LIST, LIST);
    const both = Promise.all([addUser({ username: 'a', email: 'b' }), removeUser(1, '"x"')]);
    await expect.poll(() => requests.length).toBe(2);
    await expect.poll(() => token.snapshot().prompt).toEqual({ wrong: false });
    token.submitToken('secret');
    await both;
    expect(requests.slice(2).map(({ headers }) => headers.get('Authorization'))).toEqual(['Bearer secret', 'Bearer secret']);
    expect(sessionStorage.getItem('users-token')).toBe('secret');
    token.forget();
    expect(sessionStorage.getItem('users-token')).toBeNull();
  });

  test('is requested again when it is wrong', async () => {
    const requests = respondWith(NO_TOKEN, NO_TOKEN, LIST);
    const adding = addUser({ username: 'a', email: 'b' });
    await expect.poll(() => token.snapshot().prompt).toEqual({ wrong: false });
    token.submitToken('wrong');
    await expect.poll(() => token.snapshot().prompt).toEqual({ wrong: true });
    token.submitToken('right');
    await adding;
    expect(await requests[2]?.json()).toEqual({ username: 'a', email: 'b' });
  });

  test('is not requested by the page itself after the reader declined', async () => {
    respondWith(NO_TOKEN, NO_TOKEN);
    expect(await failure(getUsers(ALL, null, signal))).toMatchObject({ kind: 'token' });
    const adding = failure(addUser({ username: 'a', email: 'b' }));
    await expect.poll(() => token.snapshot().prompt).toEqual({ wrong: false });
    token.submitToken(null);
    expect(await adding).toMatchObject({ kind: 'token' });
  });

  test.each([[[401], true, true], [[403, 403], false, false], [[403, 400], false, true]])(
    'may not be configured: %j', async (statuses, change, add) => {
      respondWith(...statuses.map((status) => json(status, {})));
      expect(await probe()).toEqual({ change, add });
    },
  );
});

describe('changes', () => {
  test('send If-Match with the version that they start from', async () => {
    const requests = respondWith(one({ username: 'x' }));
    expect(await changeUser(1, '"old"', { username: 'x' })).toEqual({ user: user(1, { username: 'x' }), etag: '"new"' });
    expect(requests[0]?.headers.get('If-Match')).toBe('"old"');
  });

  test('conflict with changes of another client', async () => {
    respondWith(CHANGED, one({ username: 'theirs' }));
    expect(await failure(changeUser(1, '"old"', { username: 'mine' }))).toEqual(
      new Conflict({ user: user(1, { username: 'theirs' }), etag: '"new"' }),
    );
  });

  test('do not conflict with their own earlier attempt that was stored', async () => {
    respondWith(CHANGED, one({ username: 'mine' }), json(404, { status: 'fail', message: 'User does not exist' }));
    expect((await changeUser(1, '"old"', { username: 'mine' })).etag).toBe('"new"');
    await removeUser(1, '"old"');
  });
});
