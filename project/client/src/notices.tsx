import type { ReactNode } from 'react';
import type { ServiceError } from './api';

/** Says what went wrong, at once also to screen readers; `children` is the way out. */
export function Problem({ error, children }: { error: ServiceError; children?: ReactNode }) {
  return (
    <div className="problem" role="alert">
      <p className="problem-message">{error.message}</p>
      {error.hint && <p>{error.hint}</p>}
      {children}
    </div>
  );
}

/** Stands where users would, when there are none. */
export function Empty({ title, children }: { title: string; children: ReactNode }) {
  return (
    <div className="empty">
      <p className="empty-title">{title}</p>
      <p>{children}</p>
    </div>
  );
}

/** The outline of a list, until the first answer is here. */
export function Skeleton() {
  return (
    <div className="skeleton" aria-hidden="true">
      {[1, 2, 3, 4, 5].map((row) => <div className="skeleton-row" key={row}><span /><span /></div>)}
    </div>
  );
}
