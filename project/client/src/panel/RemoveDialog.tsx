import type { User } from '../service/users';
import { Dialog } from '../ui/Dialog';
import { Email } from '../ui/texts';
import { UNDO_SECONDS } from './removal';

/** The dialog that confirms a removal. It names the user. */
export function RemoveDialog({ user, onRemove, onClose }: { user: User; onRemove: () => void; onClose: () => void }) {
  return (
    <Dialog role="alertdialog" title={<>Remove <bdi>{user.username}</bdi>?</>} onClose={onClose}>
      <p>The user with the email <Email>{user.email}</Email> will be removed. You can undo this for {UNDO_SECONDS} seconds.</p>
      <footer className="dialog-footer">
        <button type="button" className="button" onClick={onClose}>Cancel</button>
        <button type="button" className="button button-danger" onClick={onRemove}>Remove</button>
      </footer>
    </Dialog>
  );
}
