import type { Changes, User } from '../service/users';
import { Dialog } from '../ui/Dialog';
import { Email } from '../ui/texts';

const FIELDS = [['Username', 'username'], ['Email', 'email'], ['Status', 'active']] as const;

interface Props {
  /** The user with the reader's changes; null if the reader removes the user. */
  mine: User | null;
  /** The user before the reader's changes. */
  seen: User;
  /** The user as stored now, with the changes of another client. */
  current: User;
  saveLabel: string;
  /** Called with all fields of the reader's version. */
  onSave: (mine: Changes) => void;
  onKeep: () => void;
  onClose: () => void;
}

/** The dialog that shows two versions of a user. The reader chooses one of them. */
export function ConflictDialog({ mine, seen, current, saveLabel, onSave, onKeep, onClose }: Props) {
  const { username, email, active } = mine ?? seen;
  return (
    <Dialog role="alertdialog" wide title={<><bdi>{seen.username}</bdi> was changed by someone else</>} onClose={onClose}>
      <p>{mine
        ? 'Nothing has been saved. Your version is on the left, and the current version is on the right.'
        : 'Nothing has been removed. The version you saw is on the left, and the current version is on the right.'}
      </p>
      <table className="versions">
        <thead>
          <tr><th scope="col">Field</th><th scope="col">{mine ? 'Your version' : 'Version you saw'}</th><th scope="col">Current version</th></tr>
        </thead>
        <tbody>
          {FIELDS.map(([label, name]) => {
            const left = shown((mine ?? seen)[name]);
            const right = shown(current[name]);
            return (
              <tr key={name} className={left === right ? undefined : 'different'}>
                <th scope="row">{label}{left !== right && <span className="visually-hidden"> (different)</span>}</th>
                {[left, right].map((text, side) => (
                  <td key={side}>{name === 'email' ? <Email>{text}</Email> : <bdi>{text}</bdi>}</td>
                ))}
              </tr>
            );
          })}
        </tbody>
      </table>
      <footer className="dialog-footer">
        <button type="button" className="button" onClick={onKeep}>Keep the current version</button>
        <button type="button" className={`button ${mine ? 'button-primary' : 'button-danger'}`} onClick={() => { onSave({ username, email, active }); }}>
          {saveLabel}
        </button>
      </footer>
    </Dialog>
  );
}

function shown(value: string | boolean): string {
  return typeof value === 'string' ? value : value ? 'Active' : 'Inactive';
}
