"""ZIPs of folders, each made once: streamed while it is made, then kept in a spool file and read from there.

Whoever reads makes: a reader that has all there is goes on with the work, one slice at a time. So a ZIP is made at the pace of
its fastest reader, no greenlet is needed for it, and it ends with its last reader. All files are read and written in threads.
"""

import re
import secrets
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import gevent

from agentainerd import defaults, offload
from agentainerd.archives.files import FileDownload, digests, open_entry
from agentainerd.archives.listings import Bounds, Entry, Kind, Listing, nothing_listed, read_listing, why
from agentainerd.archives.opening import close_now, open_root
from agentainerd.archives.slices import Work
from agentainerd.archives.spool import SpooledZip, clean, remove_kept, sizes
from agentainerd.archives.zips import PIECE_BYTES
from agentainerd.errors import Conflict, Failed, NotFound

_KEY = re.compile(r"[0-9A-Za-z_-]{1,128}")
_SETTLE_S = 0.03  # then what was changed a moment ago has a time that tells it from what is changed now


class ZipDownload:
    """One reader of a ZIP. Close it in the end."""

    def __init__(self, spooled: SpooledZip, leave: Callable[[], None]) -> None:
        self._zip = spooled
        self._leave = leave
        self._is_open = True

    @property
    def etag(self) -> str:
        """Names these bytes, and no others; without quotes."""
        return self._zip.etag

    @property
    def size(self) -> int | None:
        """In bytes; None until all of it is made."""
        return self._zip.made if self._zip.is_whole else None

    def finish(self, is_wanted: Callable[[], bool] = lambda: True) -> int:
        """Make what is left and return the size. Blocks its greenlet only.

        `is_wanted` is asked again and again, and ends it.

        Raises:
            Unavailable: no space. Failed: nobody wants it any more, or the folder or the spool can't be read or written.
        """
        while not self._zip.is_whole:
            if not is_wanted():
                raise Failed("the download was given up", code="DOWNLOAD_GIVEN_UP")
            self._zip.go_on()
        return self._zip.made

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Return the bytes from `start` to before `stop`, or to the end, as they are made; blocks its greenlet only.

        Raises:
            Unavailable, Failed: as `finish`, in the middle.
        """
        while stop is None or start < stop:
            ready = self._zip.made - start
            if ready > 0:
                piece = self._zip.read(start, min(ready, PIECE_BYTES, (stop or self._zip.made) - start))
                start += len(piece)
                yield piece
            elif self._zip.is_whole:
                return
            else:
                self._zip.go_on()

    def close(self) -> None:
        """Leave it. What is not whole when its last reader leaves is removed. Safe to repeat."""
        if self._is_open:
            self._is_open = False
            self._leave()


class Archives:
    """The ZIPs of one spool folder, which is nobody else's; any greenlet may call.

    A key is what a caller calls one folder: 1 to 128 letters, digits, "_" and "-". Of each at most one whole ZIP is kept: of how
    the folder was when it was last asked for.
    """

    def __init__(
        self, spool: Path, bounds: Bounds | None = None, *, min_free_bytes: int = defaults.MIN_FREE_DISK_BYTES
    ) -> None:
        self._spool = spool
        self._bounds = bounds or Bounds()
        self._min_free_bytes = min_free_bytes
        self._zips: dict[tuple[str, str], SpooledZip] = {}
        self._readers: Counter[tuple[str, str]] = Counter()
        self._users: Counter[str] = Counter()
        self._closed: set[str] = set()

    def start(self) -> None:
        """Make the spool folder, and remove what a daemon before this one left unfinished. Raises OSError."""
        offload.run(clean, self._spool)

    def zip(self, key: str, root: Path) -> ZipDownload:
        """Return a ZIP of the folder `root`, made already or, at the latest, while it is read.

        The folder that `root` is in is the caller's. `root` itself may be anything: an empty folder is an empty ZIP, and one
        that is gone, or is a link or a file, is a ZIP with nothing but the report of that.

        Raises:
            NotFound: the folder that `root` is in is not there, or is being removed (FILES_NOT_FOUND). Unavailable: no space.
            Failed: it can't be written.
        """
        self._use(key)
        try:
            return self._open(key, root)
        except BaseException:
            self._leave(key)
            raise

    def listing(self, root: Path) -> Listing:
        """Return what is in the folder `root` now, as `zip` has it. Raises NotFound: as `zip`."""
        return Work(_list(root, self._bounds)).finish()

    def digests(self, root: Path, entries: Iterable[Entry]) -> dict[str, str]:
        """Return the SHA-256 of files of a listing, in hex, by name; not of those that changed or can't be read.

        Raises:
            NotFound: as `zip`.
        """
        return Work(digests(root, entries)).finish()

    def file(self, key: str, root: Path, name: str) -> FileDownload:
        """Return one file of the folder `root`; `name`: what a listing calls it.

        Raises:
            NotFound: no file is called so (FILE_NOT_FOUND, FILES_NOT_FOUND). Failed: it can't be read.
        """
        self._use(key)
        try:
            found = self.listing(root).find(name)
            if found is None or found.kind is not Kind.FILE:
                raise NotFound("file", name)
            return FileDownload(*offload.run(open_entry, root, found), lambda: self._leave(key))
        except BaseException:
            self._leave(key)
            raise

    def is_busy(self, key: str) -> bool:
        """Return whether something of this key is being downloaded."""
        return self._users[key] > 0

    def sizes(self) -> dict[str, int]:
        """Return how many bytes are kept for each key that something is kept for."""
        return offload.run(sizes, self._spool)

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Let no download of this key begin within the block, for who removes the folder: `zip` and `file` raise NotFound.

        Raises:
            Conflict: one is under way, or another such block (code FILES_IN_USE).
        """
        if self.is_busy(key) or key in self._closed:
            raise Conflict(f"the files of {key} are being downloaded", code="FILES_IN_USE", hint="try it again later")
        self._closed.add(key)
        try:
            yield
        finally:
            self._closed.remove(key)

    def discard(self, key: str) -> None:
        """Remove what is kept for this key; the folder is its owner's. Who reads it reads on. Blocks its greenlet only."""
        offload.run(remove_kept, self._spool, key)

    def _open(self, key: str, root: Path) -> ZipDownload:
        listing = self.listing(root)
        if not listing.etag:
            gevent.sleep(_SETTLE_S)
            listing = self.listing(root)
        if not listing.etag:  # somebody is at it: what is made now is never taken for what is made later
            listing = replace(listing, etag=secrets.token_hex(16))
        place = key, listing.etag
        spooled = self._zips.get(place)
        if spooled is None:
            spooled = self._zips[place] = SpooledZip(self._spool, key, root, listing, self._min_free_bytes)
        self._readers[place] += 1
        try:
            if not spooled.is_whole:
                spooled.go_on()  # so that what goes wrong at once is an answer, and what is small has a size
        except BaseException:
            self._leave_zip(place)
            raise
        return ZipDownload(spooled, lambda: self._close(place))

    def _close(self, place: tuple[str, str]) -> None:
        try:
            self._leave_zip(place)
        finally:
            self._leave(place[0])

    def _leave_zip(self, place: tuple[str, str]) -> None:
        self._readers[place] -= 1
        if not self._readers[place]:
            del self._readers[place]
            self._zips.pop(place).close()

    def _use(self, key: str) -> None:
        assert _KEY.fullmatch(key), key
        if key in self._closed:
            raise NotFound("files", key, message=f"the files of {key} are being removed")
        self._users[key] += 1

    def _leave(self, key: str) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]


def _list(root: Path, bounds: Bounds) -> Generator[None, None, Listing]:
    try:
        descriptor = open_root(root)
    except OSError as exc:
        return nothing_listed(bounds, why(exc))
    try:
        return (yield from read_listing(descriptor, bounds))
    finally:
        close_now(descriptor)
