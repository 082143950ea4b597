/** Sends every request of the page: adds the token, limits the time, and throws a `ServiceError`. */

import createClient from 'openapi-fetch';
import type { paths } from '../contract';
import { foreign, fromResponse, noResponse, ServiceError, type Failure } from './errors';
import * as token from './token';

/** The URL of the service: the one that the page was built with, else that of the page, which may be below a path. */
export const SERVICE_URL =
  ((import.meta.env.REACT_APP_USERS_SERVICE_URL ?? '').trim() || new URL('.', location.href).href).replace(/\/+$/, '');
const TIMEOUT_SECONDS = 10;

/** The service, with the types of its OpenAPI document. Its methods throw a `ServiceError` unless they succeed. */
export const service = createClient<paths>({ baseUrl: SERVICE_URL, fetch: send });

/** Send a request, request a token from the reader if the service requires one, and return the successful response. */
async function send(request: Request): Promise<Response> {
  for (;;) {
    const sent = token.snapshot().token;
    const response = await attempt(request.clone(), sent);
    if (response.status !== 401) return response;
    // Another request may have received a new token in the meantime.
    if (token.snapshot().token !== sent) continue;
    if (await token.requestToken(sent !== null, request.method === 'GET') === null) {
      throw new ServiceError('token', 'The users service requires a token for this.');
    }
  }
}

/** Send a request once, and return a success or a 401. Throws a `ServiceError` otherwise. */
async function attempt(request: Request, sent: string | null): Promise<Response> {
  if (sent) request.headers.set('Authorization', `Bearer ${sent}`);
  const { status, headers, text } = await exchange(request);
  if (status === 204) return new Response(null, { status, headers });
  const body = parse(text);
  if (status === 401 && body) return new Response(text, { status, headers });
  if (status < 200 || status > 299) throw fromResponse(status, headers.get('Retry-After'), body);
  if (body?.status !== 'success') throw foreign();
  return new Response(text, { status, headers });
}

/** Send a request and read its response to the end, within the time limit. */
export async function exchange(request: Request): Promise<{ status: number; headers: Headers; text: string }> {
  const timeout = AbortSignal.timeout(TIMEOUT_SECONDS * 1000);
  try {
    const response = await fetch(request, { signal: AbortSignal.any([request.signal, timeout]) });
    return { status: response.status, headers: response.headers, text: await response.text() };
  } catch (error) {
    if (request.signal.aborted) throw error;
    throw noResponse(timeout.aborted ? TIMEOUT_SECONDS : undefined);
  }
}

function parse(text: string): Failure | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' ? value : null;
  } catch {
    return null;
  }
}
