import { useCallback, useEffect, useState } from 'react';
import { asServiceError, getMoreUsers, getUsers, type ServiceError, type User } from './api';

/** What is asked for. A new object asks again, also for the same. */
interface Question {
  /** The address to look up; '' for everybody. */
  email: string;
}

interface State {
  question: Question;
  /** The question that the rest of the state answers; another one than `question` while that is under way. */
  answered: Question | null;
  users: User[];
  next: string | null;
  problem: ServiceError | null;
  more: 'idle' | 'loading' | ServiceError;
}

const START: State = { question: { email: '' }, answered: null, users: [], next: null, problem: null, more: 'idle' };

/** The users on the page, and what can be done with them. */
export function useUsers() {
  const [state, setState] = useState(START);
  const { question, next, more } = state;
  const loading = state.answered !== question;

  /** Change the state, unless something else has been asked meanwhile: then the answer came too late. */
  const settle = useCallback((asked: Question, change: (current: State) => Partial<State>) => {
    setState((current) => current.question === asked ? { ...current, ...change(current) } : current);
  }, []);

  useEffect(() => {
    const controller = new AbortController();
    getUsers(question.email, controller.signal).then(
      (page) => { settle(question, () => ({ ...START, question, answered: question, ...page })); },
      (error: unknown) => {
        if (controller.signal.aborted) return;
        settle(question, () => ({ ...START, question, answered: question, problem: asServiceError(error) }));
      },
    );
    return () => { controller.abort(); };
  }, [question, settle]);

  /** Look an address up, or show everybody when it is ''; also the way to try again. */
  const ask = useCallback((email: string) => {
    setState((current) => ({ ...current, question: { email } }));
  }, []);

  /** Append the next page. */
  const showMore = useCallback(() => {
    if (loading || next === null || more === 'loading') return;
    settle(question, () => ({ more: 'loading' }));
    getMoreUsers(next).then(
      (page) => {
        settle(question, ({ users }) => (
          { users: withoutRepeats([...users, ...page.users]), next: page.next, more: 'idle' }
        ));
      },
      (error: unknown) => { settle(question, () => ({ more: asServiceError(error) })); },
    );
  }, [loading, next, more, question, settle]);

  /** Put a user who was just added on top of everybody; asks anew when everybody is not what is shown. */
  const prepend = useCallback((user: User) => {
    setState((current) => (
      current.answered !== current.question || current.problem || current.question.email
        ? { ...current, question: { email: '' } }
        : { ...current, users: withoutRepeats([user, ...current.users]) }
    ));
  }, []);

  return { ...state, loading, ask, showMore, prepend };
}

function withoutRepeats(users: User[]): User[] {
  return [...new Map(users.map((user) => [user.id, user])).values()];
}
