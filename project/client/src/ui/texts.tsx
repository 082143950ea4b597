import { Fragment } from 'react';

// After each dot except the last one, so that 'example.com' stays together.
const LABELS = /(?<=\.)(?=.*\.)/;

/** An email. Lines break before its @ and after its dots only. */
export function Email({ children: email }: { children: string }) {
  const at = email.lastIndexOf('@');
  return (
    <bdi className="email" dir="ltr">
      <Breakable text={email.slice(0, Math.max(at, 0))} />
      <wbr />
      <span className="domain"><Breakable text={email.slice(Math.max(at, 0))} /></span>
    </bdi>
  );
}

function Breakable({ text }: { text: string }) {
  return text.split(LABELS).map((part, index) => <Fragment key={index}>{index > 0 && <wbr />}{part}</Fragment>);
}

/** A badge that says whether a user is active. */
export function Status({ active }: { active: boolean }) {
  return <span className={active ? 'badge badge-active' : 'badge'}>{active ? 'Active' : 'Inactive'}</span>;
}

/** The initials of a username, on a disc whose color depends on the id. */
export function Avatar({ id, username }: { id: number; username: string }) {
  return <span className="avatar" data-tint={id % 6} aria-hidden="true"><bdi>{initials(username)}</bdi></span>;
}

const LETTERS = new Intl.Segmenter(undefined, { granularity: 'grapheme' });
/** Scripts whose letters join. Two initials beside each other would look like a word. */
const JOINED = /[\p{Script=Arabic}\p{Script=Syriac}\p{Script=Mongolian}]/u;

/** Returns the first visible letters of the first and the last word. */
export function initials(name: string): string {
  const words = name.trim().split(/[\s._-]+/u).filter((word) => /[\p{L}\p{N}]/u.test(word));
  const chosen = words.length > 1 && !JOINED.test(name) ? [words[0], words.at(-1)] : [words[0] ?? name];
  return chosen.map((word) => {
    const start = word?.replace(/^[^\p{L}\p{N}]+(?=.*[\p{L}\p{N}])/u, '') ?? '';
    const [first] = LETTERS.segment(start);
    return first?.segment.toLocaleUpperCase() ?? '';
  }).join('');
}
