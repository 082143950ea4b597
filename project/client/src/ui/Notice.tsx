import { useEffect, useState, type ReactNode } from 'react';
import type { ServiceError } from '../service/errors';
import { retryDelay } from '../service/queries';

/** Says what went wrong, also to screen readers; `children` is what can be done. */
export function Problem({ error, children }: { error: ServiceError; children?: ReactNode }) {
  return (
    <div className="problem" role="alert">
      <p className="problem-message">{error.message}</p>
      {error.hint && <p>{error.hint}</p>}
      {children}
    </div>
  );
}

interface WaitingProps {
  error: ServiceError;
  /** How many attempts have failed, at least 1. */
  failures: number;
  /** Tries now instead of later; without it there is no button. */
  onRetry?: () => void;
}

/** Says what went wrong, and when the page tries again by itself. */
export function Waiting({ error, failures, onRetry }: WaitingProps) {
  return (
    <Problem error={error}>
      <p aria-live="off">
        {/* A new attempt counts anew. */}
        <Countdown key={failures} seconds={retryDelay(failures - 1, error) / 1000} />
      </p>
      {onRetry && <button type="button" className="button" onClick={onRetry}>Try now</button>}
    </Problem>
  );
}

function Countdown({ seconds }: { seconds: number }) {
  const [left, setLeft] = useState(Math.ceil(seconds));
  useEffect(() => {
    const timer = setInterval(() => { setLeft((now) => Math.max(0, now - 1)); }, 1000);
    return () => { clearInterval(timer); };
  }, []);
  return left > 0 ? `The page tries again in ${left} s.` : 'The page is trying again…';
}

/** Shown instead of users, when there are none. */
export function Empty({ title, children }: { title: string; children: ReactNode }) {
  return (
    <div className="empty">
      <p className="empty-title">{title}</p>
      {children}
    </div>
  );
}

/** The outline of a list, until the first response arrives. */
export function Skeleton() {
  return (
    <div className="skeleton" aria-hidden="true">
      {Array.from({ length: 8 }, (_, row) => <div className="skeleton-row" key={row}><span /><span /><span /></div>)}
    </div>
  );
}
