"""The table of contents of a zip archive, read strictly: torch stores its tensors uncompressed."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pags.checkpoints.bounds import MEBI, Refusal, Window, shown

LARGEST_TABLE = 64 * MEBI
MOST_MEMBERS = 200_000
END, END_64, LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
ENTRY, LOCAL = b"PK\x01\x02", b"PK\x03\x04"
AS_TORCH = "the file as torch.save wrote it; an archive packed by another program has to be unpacked first"


@dataclass(frozen=True)
class Member:
    """One file in an archive: where its header and its bytes stand, and how long it is."""

    name: str
    header: int
    size: int


def members(archive: Window) -> dict[str, Window]:
    """Every member of a zip archive by its name, as a window on its bytes; nothing is unpacked.

    Raises:
        Refusal: the archive is damaged, or has what torch never writes: compressed or encrypted members,
            two of one name, overlapping ones, names that leave the archive.
    """
    count, table = _table(archive)
    found: dict[str, Window] = {}
    last = archive.start
    for member in sorted(_entries(table, count), key=lambda member: member.header):
        start = _content(archive, member)
        if archive.start + member.header < last or start + member.size > table.start:
            raise Refusal("members of an archive one after another", got=f"{shown(member.name)} over another")
        if member.name in found:
            raise Refusal("one member of each name", got=f"two of {shown(member.name)}", suggestion=AS_TORCH)
        last = start + member.size
        found[member.name] = Window(archive.file, start, last, archive.budget)
    return found


def _table(archive: Window) -> tuple[int, Window]:
    """The number of members, and the window of the central directory."""
    size = archive.stop - archive.start
    tail = Window(archive.file, max(archive.start, archive.stop - 66_000), archive.stop, archive.budget)
    place = tail.start + (content := tail.content()).rfind(END)
    end = content[place - tail.start :]
    if place < tail.start or len(end) < 22:
        raise Refusal("the table at the end of a zip archive", got="none; the file may be cut short")
    count, length, offset = struct.unpack_from("<HLL", end, 10)
    if count == 0xFFFF or 0xFFFFFFFF in (length, offset):
        count, length, offset = _table_64(archive, place)
    if length > LARGEST_TABLE or count > MOST_MEMBERS or count * 46 > length or offset + length > size:
        raise Refusal(f"at most {MOST_MEMBERS:,} members", got=f"a table of {count:,} in {length:,} bytes")
    start = archive.start + offset
    return count, Window(archive.file, start, start + length, archive.budget)


def _table_64(archive: Window, end: int) -> tuple[int, int, int]:
    """Number, length and offset from the larger table that archives beyond 4 GiB have."""
    locator = Window(archive.file, max(archive.start, end - 20), end, archive.budget).content()
    if len(locator) < 20 or locator[:4] != LOCATOR_64:
        raise Refusal("the place of the larger table of a zip archive", got="none")
    start = archive.start + struct.unpack_from("<Q", locator, 8)[0]
    if start + 56 > end:
        raise Refusal("the larger table of a zip archive before its end", got="one beyond it")
    record = Window(archive.file, start, start + 56, archive.budget).content()
    if record[:4] != END_64:
        raise Refusal("the larger table of a zip archive", got="something else in its place")
    count, length, offset = struct.unpack_from("<QQQ", record, 32)
    return count, length, offset


def _entries(table: Window, count: int) -> Iterator[Member]:
    content, place = table.content(), 0
    for _ in range(count):
        table.budget.step()
        entry = content[place : place + 46]
        if entry[:4] != ENTRY:
            raise Refusal("an entry of the archive's table", got="something else in its place")
        flags, method, packed, size, names, extras, comments, offset = struct.unpack(
            "<8xHH8xLLHHH8xL", entry
        )  # fmt: skip
        name = content[place + 46 : place + 46 + names].decode()
        extra = content[place + 46 + names : place + 46 + names + extras]
        packed, size, offset = _widened(extra, [size, packed, offset])
        _check(name, flags=flags, method=method, packed=packed, size=size)
        yield Member(name, offset, size)
        place += 46 + names + extras + comments


def _widened(extra: bytes, values: list[int]) -> tuple[int, int, int]:
    """(packed size, size, offset), where too large for 32 bits taken from the field of 64-bit ones."""
    place = 0
    while place + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, place)
        if tag == 1:
            wide = iter(struct.unpack_from(f"<{length // 8}Q", extra, place + 4))
            values = [next(wide, value) if value == 0xFFFFFFFF else value for value in values]
            break
        place += 4 + length
    size, packed, offset = values
    return packed, size, offset


def _check(name: str, *, flags: int, method: int, packed: int, size: int) -> None:
    if flags & 0x2041:
        raise Refusal("open members", got=f"{shown(name)}, which is encrypted", suggestion=AS_TORCH)
    if method != 0 or packed != size:
        raise Refusal("uncompressed members", got=f"{shown(name)}, compressed", suggestion=AS_TORCH)
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or "\0" in name or ":" in parts[0]:
        raise Refusal("names inside the archive", got=shown(name), suggestion=AS_TORCH)


def _content(archive: Window, member: Member) -> int:
    """Where a member's bytes begin, behind its own header, which has to agree with the table."""
    archive.budget.step()
    start = archive.start + member.header
    if start + 30 > archive.stop:
        raise Refusal("members inside the archive", got=f"{shown(member.name)} beyond its end")
    header = Window(archive.file, start, start + 30, archive.budget).content()
    names, extras = struct.unpack_from("<HH", header, 26)
    if header[:4] != LOCAL or start + 30 + names + extras > archive.stop:
        raise Refusal("a member where the table says", got=f"{shown(member.name)} somewhere else")
    name = Window(archive.file, start + 30, start + 30 + names, archive.budget).content()
    if name != member.name.encode():
        raise Refusal("one name for a member", got=f"{shown(member.name)} called otherwise in its header")
    return start + 30 + names + extras
