"""Functions that export and import share: errors as one line, and a progress bar."""

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from sqlalchemy.exc import SQLAlchemyError

from project import readiness

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar  # click has no public name for it


class TransferError(Exception):
    """The users could not be written or read. The message is one line for the operator."""


def require_schema() -> None:
    """Raise TransferError unless the database has the tables and columns of the code."""
    with reported():
        if problem := readiness.inspect_schema(readiness.read_patiently).problem():
            raise TransferError(problem)


@contextlib.contextmanager
def reported(name: str = '') -> Iterator[None]:
    """Raise TransferError for errors of the operating system about the file ``name``, and of the database."""
    try:
        yield
    except OSError as error:
        raise TransferError(f'{name}: {sentence(error.strerror or error)}') from None
    except SQLAlchemyError as error:
        raise TransferError(f'Database error: {sentence(getattr(error, "orig", error))}') from None


def sentence(error: object) -> str:
    """Return the first line of an error, with a full stop."""
    return f'{str(error).strip().splitlines()[0].rstrip(".")}.'


def progress_bar(label: str, length: int) -> 'ProgressBar[str]':
    """Return a progress bar on stderr. It is hidden unless stderr is a terminal and ``length`` is known.

    :param length: the number of steps; 0 if it is not known.
    """
    hidden = not (length and sys.stderr.isatty())
    return click.progressbar(length=length, label=label, hidden=hidden, file=sys.stderr, item_show_func=_show)


def _show(item: str | None) -> str | None:
    return item


def print_above(bar: 'ProgressBar[str]', line: str) -> None:
    """Print a line on stderr in place of the bar, which is drawn again below it."""
    click.echo(line if bar.hidden else f'\r\x1b[K{line}', err=True)
