import { render, screen, waitFor, within } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { afterEach, describe, expect, test } from 'vitest';
import { App } from './App';
import { expectAccessible, json, refuseConnection, serviceWith } from './testing';

const SERVICE = 'http://users.test:5001';
const UNAVAILABLE = json(503, { status: 'error', message: 'The database is unavailable.' });

const rows = () => screen.queryAllByRole('listitem').map((row) => within(row).getByText(/@/).textContent);
const button = (name: string) => screen.getByRole('button', { name });
const field = (name: string) => screen.getByRole('textbox', { name });
const lookUpField = () => screen.getByRole('searchbox', { name: 'Look up by email' });
const everybodyFrom = (newest: number, oldest: number) =>
  Array.from({ length: newest - oldest + 1 }, (_, index) => `user${newest - index}@example.com`);

/** Open the page and wait for its first answer. */
async function open() {
  const reader = userEvent.setup();
  const { container } = render(<App />);
  await waitFor(() => { expect(container.querySelector('[aria-busy="true"]')).toBeNull(); });
  return reader;
}

async function add(reader: ReturnType<typeof userEvent.setup>, username: string, email: string) {
  if (username) await reader.type(field('Username'), username);
  if (email) await reader.type(field('Email'), email);
  await reader.click(button('Add user'));
}

// Every test leaves the page in a state that people meet, and none of them may lock anybody out.
afterEach(expectAccessible);

describe('the list', () => {
  test('shows what the service answers, in its order', async () => {
    const service = serviceWith(3);
    await open();
    expect(rows()).toEqual(everybodyFrom(3, 1));
    expect(screen.getByText('All 3 users, newest first')).toBeVisible();
    expect(service.requests).toEqual([`GET ${SERVICE}/users?limit=50`]);
  });

  test('says that it is loading until the answer is there', async () => {
    const release = serviceWith(1).hold();
    render(<App />);
    expect(screen.getByText('Loading users…')).toBeVisible();
    await expectAccessible();
    release();
    expect(await screen.findByText('1 user')).toBeVisible();
  });

  test('says that nobody is there yet', async () => {
    serviceWith(0);
    await open();
    expect(screen.getByText('No users yet')).toBeVisible();
    expect(screen.queryByRole('list')).toBeNull();
  });

  test('shows times in the zone of the reader, and the exact UTC on hover', async () => {
    serviceWith(1);
    await open();
    const time = screen.getByRole('time');
    // 16:13 UTC is 01:13 of the next day in Tokyo, where these tests run.
    expect(time).toHaveTextContent(/23.*1:13/);
    expect(time).toHaveAttribute('title', '2026-11-22 16:13:01.482913 UTC');
    expect(time).toHaveAttribute('datetime', '2026-11-22T16:13:01.482Z');
  });
});

describe('show more', () => {
  test('follows next to the end, and moves the focus to the first user who came', async () => {
    const service = serviceWith(5, 2);
    const reader = await open();
    await reader.click(button('Show more'));
    await waitFor(() => { expect(rows()).toEqual(everybodyFrom(5, 2)); });
    expect(service.requests.at(-1)).toBe(`GET ${SERVICE}/users?limit=2&after=4`);
    expect(screen.getAllByRole('listitem')[2]).toHaveFocus();
    expect(screen.getByText('The newest 4 users')).toBeVisible();

    await reader.click(button('Show more'));
    await waitFor(() => { expect(rows()).toEqual(everybodyFrom(5, 1)); });
    expect(screen.getAllByRole('listitem')[4]).toHaveFocus();
    expect(screen.queryByRole('button', { name: 'Show more' })).toBeNull();
  });

  test('asks once, however often it is pressed', async () => {
    const service = serviceWith(5, 2);
    const reader = await open();
    const release = service.hold();
    await reader.click(button('Show more'));
    await reader.click(button('Loading…'));
    release();
    await waitFor(() => { expect(rows()).toHaveLength(4); });
    expect(service.requests).toHaveLength(2);
  });

  test('keeps the list when it fails, and tries again', async () => {
    const service = serviceWith(3, 2);
    const reader = await open();
    service.instead = UNAVAILABLE;
    await reader.click(button('Show more'));
    expect(await screen.findByRole('alert')).toHaveTextContent('The users service cannot be reached.');
    expect(rows()).toEqual(everybodyFrom(3, 2));
    await expectAccessible();

    service.instead = null;
    await reader.click(button('Retry'));
    await waitFor(() => { expect(rows()).toEqual(everybodyFrom(3, 1)); });
    expect(screen.queryByRole('alert')).toBeNull();
  });

  test('loses nobody and repeats nobody when a user is added meanwhile', async () => {
    const service = serviceWith(4, 2);
    const reader = await open();
    const release = service.hold();
    await reader.click(button('Show more'));
    await add(reader, 'ann', 'ann@example.com');
    release();
    await waitFor(() => { expect(rows()).toEqual(['ann@example.com', ...everybodyFrom(4, 1)]); });
  });

  test('shows a user once whom the service tells twice', async () => {
    const service = serviceWith(4, 2);
    const reader = await open();
    service.instead = json(200, { status: 'success', data: { users: service.users.slice(1) } });
    await reader.click(button('Show more'));
    await waitFor(() => { expect(rows()).toEqual(everybodyFrom(4, 1)); });
  });
});

describe('a service that does not work', () => {
  test.each([
    ['is down', refuseConnection],
    ['has no database', UNAVAILABLE],
    ['is down behind a web server', () => new Response('<h1>502 Bad Gateway</h1>', { status: 502 })],
  ])('that %s is said plainly, and Retry brings the list', async (_, failure) => {
    const service = serviceWith(2);
    service.instead = failure;
    const reader = await open();
    expect(screen.getByRole('alert')).toHaveTextContent('The users service cannot be reached.');
    await expectAccessible();

    service.instead = null;
    await reader.click(button('Retry'));
    await waitFor(() => { expect(rows()).toEqual(everybodyFrom(2, 1)); });
    expect(screen.queryByRole('alert')).toBeNull();
    expect(screen.getByText('All 2 users, newest first')).toHaveFocus();
  });

  test('that fails again says so again', async () => {
    const service = serviceWith(2);
    service.instead = refuseConnection;
    const reader = await open();
    const before = screen.getByRole('alert');
    await reader.click(button('Retry'));
    // A new element, which is what makes screen readers speak.
    await waitFor(() => { expect(screen.getByRole('alert')).not.toBe(before); });
  });

  test('that is another program altogether is told apart', async () => {
    serviceWith(0).instead = () => new Response('<!doctype html>');
    await open();
    expect(screen.getByRole('alert')).toHaveTextContent('That was no answer of the users service.');
  });

  test('that refuses is quoted', async () => {
    serviceWith(0).instead = json(401, { status: 'fail', message: 'A token is needed.' });
    await open();
    expect(screen.getByRole('alert')).toHaveTextContent('A token is needed.');
  });
});

describe('adding a user', () => {
  test('puts the user on top without asking for the list again, and empties the form', async () => {
    const service = serviceWith(2);
    const reader = await open();
    await add(reader, 'ann', 'ann@example.com');
    expect(await screen.findByText('ann@example.com was added!')).toHaveRole('status');
    expect(rows()).toEqual(['ann@example.com', ...everybodyFrom(2, 1)]);
    expect(field('Username')).toHaveValue('');
    expect(field('Email')).toHaveValue('');
    expect(service.requests.slice(1)).toEqual([`POST ${SERVICE}/users`]);
    expect(service.init.headers).toEqual({ 'Content-Type': 'application/json' });
    expect(service.init.body).toBe('{"username":"ann","email":"ann@example.com"}');
  });

  test('works with the keyboard alone', async () => {
    serviceWith(0);
    const reader = await open();
    await reader.tab();
    expect(field('Username')).toHaveFocus();
    await reader.keyboard('ann{Tab}ann@example.com{Enter}');
    await waitFor(() => { expect(rows()).toEqual(['ann@example.com']); });
  });

  test('sends one request, however often it is pressed', async () => {
    const service = serviceWith(0);
    const reader = await open();
    const release = service.hold();
    await add(reader, 'ann', 'ann@example.com');
    await reader.click(button('Adding…'));
    await reader.type(field('Email'), '{Enter}');
    release();
    await screen.findByText('ann@example.com was added!');
    expect(service.requests.filter((request) => request.startsWith('POST'))).toHaveLength(1);
  });

  test('shows what the service says next to each wrong field, and goes to the first', async () => {
    serviceWith(0);
    const reader = await open();
    await add(reader, '', 'nobody');
    await waitFor(() => { expect(field('Username')).toHaveFocus(); });
    expect(field('Username')).toBeInvalid();
    expect(field('Username')).toHaveAccessibleDescription('Username is required.');
    expect(field('Email')).toBeInvalid();
    expect(field('Email')).toHaveAccessibleDescription('Email is not a valid email address.');
    expect(field('Email')).toHaveValue('nobody');
    await expectAccessible();

    await reader.type(field('Username'), 'a');
    expect(field('Username')).toBeValid();
    expect(field('Email')).toBeInvalid();
  });

  test('shows next to the email that it is taken, and keeps what was typed', async () => {
    serviceWith(1);
    const reader = await open();
    await add(reader, 'ann', 'user1@example.com');
    await waitFor(() => { expect(field('Email')).toHaveFocus(); });
    expect(field('Email')).toHaveAccessibleDescription('Sorry. That email already exists.');
    expect(field('Username')).toBeValid();
    expect(field('Username')).toHaveValue('ann');
    expect(field('Email')).toHaveValue('user1@example.com');
    expect(screen.queryByRole('alert')).toBeNull();
  });

  test('keeps what was typed when the service is down, and Retry sends it', async () => {
    const service = serviceWith(1);
    const reader = await open();
    service.instead = refuseConnection;
    await add(reader, 'ann', 'ann@example.com');
    expect(await screen.findByRole('alert')).toHaveTextContent('The users service cannot be reached.');
    expect(rows()).toEqual(everybodyFrom(1, 1));
    expect(field('Email')).toHaveValue('ann@example.com');
    await expectAccessible();

    service.instead = null;
    await reader.click(button('Retry'));
    await waitFor(() => { expect(rows()).toEqual(['ann@example.com', 'user1@example.com']); });
    expect(button('Add user')).toHaveFocus();
    expect(screen.queryByRole('alert')).toBeNull();
  });

  test('says in the form what the service says of no field', async () => {
    const service = serviceWith(1);
    const reader = await open();
    service.instead = json(413, { status: 'fail', message: 'Payload too large.' });
    await add(reader, 'ann', 'ann@example.com');
    const form = screen.getByRole('form', { name: 'Add a user' });
    expect(await within(form).findByRole('alert')).toHaveTextContent('Payload too large.');
  });

  test('brings the list when it could not be had before', async () => {
    const service = serviceWith(1);
    service.instead = refuseConnection;
    const reader = await open();
    service.instead = null;
    await add(reader, 'ann', 'ann@example.com');
    await waitFor(() => { expect(rows()).toEqual(['ann@example.com', 'user1@example.com']); });
  });
});

describe('looking up', () => {
  test('finds by email, and has a way back to everybody', async () => {
    const service = serviceWith(3);
    const reader = await open();
    expect(screen.queryByRole('button', { name: 'Show everybody' })).toBeNull();
    await reader.type(lookUpField(), ' user2@example.com {Enter}');
    await waitFor(() => { expect(rows()).toEqual(['user2@example.com']); });
    expect(screen.getByText('1 user with the email user2@example.com')).toHaveRole('status');
    expect(service.requests.at(-1)).toBe(`GET ${SERVICE}/users?limit=50&email=user2%40example.com`);
    await expectAccessible();

    await reader.click(button('Show everybody'));
    await waitFor(() => { expect(rows()).toEqual(everybodyFrom(3, 1)); });
    expect(lookUpField()).toHaveValue('');
    expect(screen.queryByRole('button', { name: 'Show everybody' })).toBeNull();
  });

  test('sends a plus sign as a plus sign', async () => {
    const service = serviceWith(0);
    const reader = await open();
    await reader.type(lookUpField(), 'ann+list@example.com{Enter}');
    await screen.findByText('Nobody found');
    expect(service.requests.at(-1)).toContain('email=ann%2Blist%40example.com');
  });

  test('says so when nobody has the email', async () => {
    serviceWith(1);
    const reader = await open();
    await reader.type(lookUpField(), 'nobody@example.com');
    await reader.click(button('Look up'));
    expect(await screen.findByText('Nobody has this email')).toBeVisible();
    expect(screen.getByText('Nobody found')).toHaveRole('status');
  });

  test('of nothing shows everybody again', async () => {
    serviceWith(2);
    const reader = await open();
    await reader.type(lookUpField(), 'user1@example.com{Enter}');
    await waitFor(() => { expect(rows()).toHaveLength(1); });
    await reader.clear(lookUpField());
    await reader.type(lookUpField(), '{Enter}');
    await waitFor(() => { expect(rows()).toHaveLength(2); });
  });

  test('does not show an answer that comes after the reader went back', async () => {
    const service = serviceWith(3);
    const reader = await open();
    const release = service.hold();
    await reader.type(lookUpField(), 'user2@example.com{Enter}');
    expect(screen.getByText('Looking up user2@example.com…')).toBeVisible();
    await reader.click(button('Show everybody'));
    release();
    expect(await screen.findByText('All 3 users, newest first')).toBeVisible();
    expect(rows()).toEqual(everybodyFrom(3, 1));
  });

  test('does not get more of everybody when that answer comes late', async () => {
    const service = serviceWith(4, 2);
    const reader = await open();
    const release = service.hold();
    await reader.click(button('Show more'));
    await reader.type(lookUpField(), 'user2@example.com{Enter}');
    release();
    await waitFor(() => { expect(rows()).toEqual(['user2@example.com']); });
  });

  test('ends when a user is added, who then stands on top of everybody', async () => {
    serviceWith(2);
    const reader = await open();
    await reader.type(lookUpField(), 'user1@example.com{Enter}');
    await waitFor(() => { expect(rows()).toHaveLength(1); });
    await add(reader, 'ann', 'ann@example.com');
    await waitFor(() => { expect(rows()).toEqual(['ann@example.com', ...everybodyFrom(2, 1)]); });
    expect(lookUpField()).toHaveValue('');
  });
});
