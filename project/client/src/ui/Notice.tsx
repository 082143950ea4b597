import { useEffect, useState, type ReactNode } from 'react';
import type { ServiceError } from '../service/errors';
import { retryDelay } from '../service/queries';

/** An error, which screen readers announce. `children` are the buttons that help. */
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
  /** The number of failed attempts, at least 1. */
  failures: number;
  /** Retries now. Without it there is no button. */
  onRetry?: () => void;
}

/** An error, and the time until the automatic retry. */
export function Waiting({ error, failures, onRetry }: WaitingProps) {
  return (
    <Problem error={error}>
      <p aria-live="off">
        {/* A new attempt starts a new countdown. */}
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

/** The message in place of an empty list. */
export function Empty({ title, children }: { title: string; children: ReactNode }) {
  return (
    <div className="empty">
      <p className="empty-title">{title}</p>
      {children}
    </div>
  );
}

/** The placeholder of a list, until the first response arrives. */
export function Skeleton() {
  return (
    <div className="skeleton" aria-hidden="true">
      {Array.from({ length: 8 }, (_, row) => <div className="skeleton-row" key={row}><span /><span /><span /></div>)}
    </div>
  );
}
