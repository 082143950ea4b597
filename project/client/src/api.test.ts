import { afterEach, expect, test, vi } from 'vitest';
import { getUsers, ServiceError } from './api';
import { json, serviceWith } from './testing';

const never = new AbortController().signal;

afterEach(() => { vi.unstubAllEnvs(); });

test('an empty address of the service means the origin of the page', async () => {
  vi.stubEnv('REACT_APP_USERS_SERVICE_URL', '');
  vi.resetModules();
  const { getUsers: getUsersHere } = await import('./api');
  const service = serviceWith(1);
  await getUsersHere('', never);
  expect(service.requests).toEqual(['GET /users?limit=50']);
});

test('next keeps the path at which the service is mounted', async () => {
  vi.stubEnv('REACT_APP_USERS_SERVICE_URL', 'https://example.com/people/');
  vi.resetModules();
  const { getMoreUsers } = await import('./api');
  const service = serviceWith(3);
  await getMoreUsers('/users?limit=2&after=2');
  expect(service.requests).toEqual(['GET https://example.com/people/users?limit=2&after=2']);
});

test('a service that does not answer in time is given up', async () => {
  const release = serviceWith(1).hold();
  const timeout = new AbortController();
  const milliseconds = vi.spyOn(AbortSignal, 'timeout').mockReturnValue(timeout.signal);
  const page = getUsers('', never);
  timeout.abort(new DOMException('The operation timed out.', 'TimeoutError'));
  await expect(page).rejects.toMatchObject({
    message: 'The users service cannot be reached.',
    hint: 'It did not answer within 10 seconds.',
  });
  expect(milliseconds).toHaveBeenCalledWith(10_000);
  release();
});

test('a request that the page gave up is no failure of the service', async () => {
  const release = serviceWith(1).hold();
  const controller = new AbortController();
  const page = getUsers('', controller.signal);
  controller.abort();
  await expect(page).rejects.not.toBeInstanceOf(ServiceError);
  release();
});

test('a wrong query is told in a sentence', async () => {
  serviceWith(0).instead = json(400, {
    status: 'fail', message: 'Invalid query.', errors: { email: 'is too long' },
  });
  await expect(getUsers('x', never)).rejects.toMatchObject({ message: 'Invalid query.', hint: 'Email is too long.' });
});

test.each(['null', '[]', '"users"', '{}', '{"data": {}}'])('%s is no answer of the users service', async (body) => {
  serviceWith(0).instead = () => new Response(body);
  await expect(getUsers('', never)).rejects.toThrow('That was no answer of the users service.');
});
