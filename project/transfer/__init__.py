"""Export of all users to a file, and import: for backups, and for moving between databases of either kind.

The file is JSON Lines (https://jsonlines.org): one user a line, as in a response, ordered by id. Equal tables make
equal files. A file whose name ends in ``.gz`` is compressed. The name ``-`` means stdout or stdin.
"""

from project.transfer.common import TransferError
from project.transfer.dumping import dump
from project.transfer.loading import load

__all__ = ['TransferError', 'dump', 'load']
