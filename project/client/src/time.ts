/** Timestamps in the reader's language and time zone. */

import { useSyncExternalStore } from 'react';

const RELATIVE = new Intl.RelativeTimeFormat(undefined, { numeric: 'auto', style: 'short' });
const EXACT = new Intl.DateTimeFormat(undefined, {
  dateStyle: 'medium', timeStyle: 'long',
});
const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium' });
const UNITS: [Intl.RelativeTimeFormatUnit, number][] = [['day', 86_400], ['hour', 3600], ['minute', 60]];
/** After this number of days, a date is shown instead of a number of days. */
const DAYS = 30;

/** Returns how long ago `date` was, such as '3 min. ago', or the date if that is more than a month. */
export function relative(date: Date, now: number): string {
  const seconds = Math.round((now - date.getTime()) / 1000);
  if (seconds > DAYS * 86_400 || seconds < -86_400) return DAY.format(date);
  const [unit, length] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? ['second', 1];
  return length === 1 ? 'just now' : RELATIVE.format(-Math.trunc(seconds / length), unit);
}

/** Returns the date and time to the second, with the time zone. */
export function exact(date: Date): string {
  return EXACT.format(date);
}

let now = Date.now();
const listeners = new Set<() => void>();
let timer: ReturnType<typeof setInterval> | undefined;

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  timer ??= setInterval(() => { now = Date.now(); listeners.forEach((one) => { one(); }); }, 60_000);
  return () => {
    listeners.delete(listener);
    if (listeners.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
}

/** The current time, which changes every minute. */
export function useNow(): number {
  return useSyncExternalStore(subscribe, () => now);
}
