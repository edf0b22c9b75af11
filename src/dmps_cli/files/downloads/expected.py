"""Whether what is announced, or has come, is the file that is due: its size, its first bytes, its sha256."""

from __future__ import annotations

from dmps_cli.errors import InputError, WeightsError
from dmps_cli.files.downloads.order import Order
from dmps_cli.files.downloads.part import Answer, Part
from dmps_cli.files.formats import HEAD, is_markup
from dmps_cli.files.hashes import note_of, read_note


def check_answer(order: Order, answer: Answer) -> None:
    """Raises WeightsError before the download if what the server announces is not the file due."""
    if order.size is not None and answer.total not in (None, order.size):
        raise WeightsError(f"the file has {answer.total} bytes there, {order.size} are due")
    if (answer.total or 0) > order.most:
        raise WeightsError(
            f"the file has {answer.total} bytes there, more than the {order.most:.0f} that are plausible"
        )
    if answer.sha256:
        check_due(order, answer, answer.sha256)


def check_due(order: Order, answer: Answer, digest: str) -> None:
    """Raises WeightsError, which says by whose word, if the file must have another sha256."""
    due, whose = _due(order, answer)
    if due not in (None, digest):
        raise WeightsError(f"its sha256 is {digest}, {due} {whose}; nothing was replaced, try again later")


def is_due(order: Order, answer: Answer, digest: str) -> bool:
    """Returns whether the file may have this sha256."""
    return _due(order, answer)[0] in (None, digest)


def _due(order: Order, answer: Answer) -> tuple[str | None, str]:
    """Returns (the sha256 that the file must have, whose word that is)."""
    note = note_of(order.target)
    if order.sha256:
        return order.sha256, "is due"
    if noted := read_note(note):
        return noted.sha256, f"was first downloaded (delete {note} if the new file is right)"
    return answer.sha256, "is what the Hub publishes"


def check_form(order: Order, part: Part) -> None:
    """Raises WeightsError, and forgets the part, if what came cannot be the file by its first bytes."""
    try:
        with part.path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as exc:
        raise InputError(f"cannot read {part.path}: {exc.strerror}") from exc
    fault = "an empty file came" if not head and order.size is None else ""
    fault = fault or ("a web page came, not a file" if is_markup(head) else "")
    if order.form is not None and not order.form.fits(head):
        fault = fault or f"what came is not {order.form.name}"
    if fault:
        part.drop()
        raise WeightsError(fault)
