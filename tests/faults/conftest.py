"""
Fixtures for faults: real disks that break, under a real server that is killed.

What breaks disks needs root, loop devices and the ext4 tools.  Where those are missing such a test
is skipped, or fails if LMTPSVC_REQUIRE_PEERS=1.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from ..forks import Forks, begun
from .disks import MIB, Disk, MemoryDisk, undisturbed
from .service import Service

HERE = Path(__file__).parent
TOOLS = ("mount", "umount", "losetup", "mkfs.ext4", "e2fsck", "chattr", "setpriv")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Everything in this folder is marked, and has time for many starts on a busy machine.
    """
    here = {path for path in {item.path for item in items} if HERE in path.parents}
    for item in items:
        if item.path in here:
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def prerequisites(tmp_path_factory: pytest.TempPathFactory) -> None:
    """
    What a machine must have, and we must be allowed to do, to break disks.
    """
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if not os.path.exists("/dev/loop-control"):
        missing.append("loop devices")
    if not missing:
        try:
            with closing(Disk(tmp_path_factory.mktemp("probe") / "disk", 4 * MIB)):
                pass
        except RuntimeError as error:
            missing.append(f"the right to mount ({error})")
    if missing:
        if os.environ.get("LMTPSVC_REQUIRE_PEERS") == "1":
            pytest.fail(f"missing: {', '.join(missing)}")
        pytest.skip(f"missing: {', '.join(missing)}")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """
    What a test has opened: closed in reverse, so that servers are gone before their disks.
    """
    stack = ExitStack()

    def close() -> None:
        with undisturbed():
            stack.close()

    # Whoever presses Control-C twice may keep pytest from coming back here.
    atexit.register(close)
    yield stack
    close()
    atexit.unregister(close)


@pytest.fixture
def directory(stack: ExitStack) -> Path:
    """
    A new directory whose name is short enough for a UNIX socket, and which anybody may enter.
    """
    with undisturbed():
        path = Path(tempfile.mkdtemp(prefix="lmtp-faults-"))
        stack.callback(shutil.rmtree, path)
    path.chmod(0o755)
    return path


@pytest.fixture
def disk(prerequisites: None, stack: ExitStack, directory: Path) -> Callable[..., Disk]:
    """
    Makes an ext4 disk.
    """

    def make(octets: int = 192 * MIB, options: Sequence[str] = ("-b", "4096")) -> Disk:
        with undisturbed():
            return stack.enter_context(closing(Disk(directory / "disk", octets, options)))

    return make


@pytest.fixture
def memory_disk(
    prerequisites: None, stack: ExitStack, directory: Path
) -> Callable[..., MemoryDisk]:
    """
    Makes a tmpfs.
    """

    def make(octets: int, inodes: int = 0, point: str = "disk") -> MemoryDisk:
        with undisturbed():
            return stack.enter_context(closing(MemoryDisk(directory / point, octets, inodes)))

    return make


@pytest.fixture(scope="session")
def begun_servers() -> Iterator[Forks]:
    """
    What the hundreds of servers and relays that die here are forked from.
    """
    with begun(
        "lmtpsvc.backends.sql.backend",
        "lmtpsvc.relay.delivering",
        "lmtpsvc.relay.queue",
        "psycopg",
        "pymysql",
    ) as forks:
        yield forks


@pytest.fixture
def service(stack: ExitStack, directory: Path, begun_servers: Forks) -> Callable[..., Service]:
    """
    Makes a server for a root, and starts it; with ``forks=None`` it starts anew.
    """

    def start(root: Path, **options: object) -> Service:
        options = {"forks": begun_servers, **options}
        service = Service(root, directory, **options)  # type: ignore[arg-type]  # handed through
        stack.enter_context(closing(service))
        service.start()
        return service

    return start


@pytest.fixture
def port() -> int:
    """
    A TCP port on loopback where nobody listens.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
