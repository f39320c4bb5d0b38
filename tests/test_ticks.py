"""The compiled part of the ticks: it believes nothing that it has not checked."""

import ctypes
import mmap
import os
import platform
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import CodeType

import pytest
from burning import burn

if sys.platform != "linux":
    pytest.skip("ticks are of Linux", allow_module_level=True)

from ox_otel import _ticks
from ox_otel._looks import Stranger
from ox_otel._probe import obstacle
from ox_otel._tasks import blocked_by, read_task

AT = _ticks.LAYOUT
NOWHERE = 1 << 46  # aligned, and mapped by nobody
LINE = 7
NEVER = 10**15  # nanoseconds
LIBC = ctypes.CDLL(None, use_errno=True)
SI_TIMER, SI_QUEUE = -2, -1
TIMER_DELETE = {"x86_64": 226, "aarch64": 111}[platform.machine()]
RT_TGSIGQUEUEINFO = {"x86_64": 297, "aarch64": 240}[platform.machine()]


class Piece:
    """Some memory that is made up."""

    def __init__(self, offset: int = 0, align: int = 16) -> None:
        self._buffer = ctypes.create_string_buffer(512 + align)
        start = ctypes.addressof(self._buffer)
        self.address = start + -start % align + offset

    def put(self, place: str, value: int, size: int = 8) -> None:
        """Put a number where the field *place* stands."""
        data = value.to_bytes(size, "little", signed=value < 0)
        ctypes.memmove(self.address + AT[place], data, size)


class Forgery:
    """A thread with one frame, of a code object of its own; *odd* is the piece that is misaligned."""

    def __init__(self, odd: str = "") -> None:
        self.name = self._string("forged", odd == "name")
        self.file = self._string("forged.py", odd == "file")
        self.code = Piece(4 * (odd == "code"))
        self.code.put("type", id(CodeType))
        self.code.put("name", self.name.address)
        self.code.put("file", self.file.address)
        self.code.put("line", LINE, 4)
        self.code.put("entry", 2, 4)
        # where a page begins, so that little is read beside it
        self.frame = Piece(4 * (odd == "frame"), align=mmap.PAGESIZE)
        self.frame.put("code", self.code.address)
        self.frame.put("next", self.code.address + AT["instructions"] + 4)
        self.state = Piece()
        self.state.put("thread_id", threading.get_ident())
        self.top = Piece(4 * (odd == "top"))
        self.enter(self.frame.address)

    def enter(self, frame: int) -> None:
        """Have the thread stand in the frame at that address."""
        if sys.version_info < (3, 13):  # there is a structure on the C stack in between
            self.top.put("top_in_c", frame)
            self.state.put("top", self.top.address)
        else:
            self.state.put("top", frame)

    def _string(self, text: str, odd: bool) -> Piece:  # noqa: FBT001 - private
        piece = Piece(4 * odd)
        piece.put("type", id(str))
        piece.put("length", len(text))
        piece.put("state", AT["ascii"], 4)
        ctypes.memmove(piece.address + AT["characters"], text.encode(), len(text))
        return piece

    @property
    def said(self) -> tuple[object, ...]:
        """What it says of its frame."""
        return self.code.address, "forged", "forged.py", LINE

    def seen(self) -> object:
        """Return what a tick would make of it."""
        return _ticks.walk(threading.get_ident(), self.state.address)


def kind(number: int, *, compact: bool = True) -> int:
    """Return the state of a string whose characters have *number* bytes."""
    return AT["ascii"] & ~(0b1111 << _shift()) | (number | compact << 3) << _shift()


def _shift() -> int:
    """Return where the kind stands in the state of a string: before the bit for compact ones."""
    return (AT["ascii"] & -AT["ascii"]).bit_length() - 1


def test_a_faithful_forgery_is_believed() -> None:
    """What the tests below falsify is true before."""
    forged = Forgery()

    assert (forged.said,) == forged.seen()


FALSE = {
    "the state is another thread's": lambda f: f.state.put("thread_id", threading.get_ident() + 1),
    "the frame is nowhere": lambda f: f.enter(NOWHERE),
    "the frame is its own caller": lambda f: f.frame.put("previous", f.frame.address),
    "the caller is where addresses end": lambda f: f.frame.put("previous", -8),
    "the frame is of no kind known": lambda f: f.frame.put("owner", 77, 1),
    "the code is nowhere": lambda f: f.frame.put("code", NOWHERE),
    "the code is a number": lambda f: f.frame.put("code", 8),
    "the code is of another type": lambda f: f.code.put("type", id(int)),
    "the name is nowhere": lambda f: f.code.put("name", NOWHERE),
    "the name is of another type": lambda f: f.name.put("type", id(bytes)),
    "the file is of another type": lambda f: f.file.put("type", id(bytes)),
    "the name has no length": lambda f: f.name.put("length", -1),
    "the name is too long": lambda f: f.name.put("length", 5000),
    "the name is much too long": lambda f: f.name.put("length", 1 << 62),
    "the name is elsewhere": lambda f: f.name.put("state", kind(1, compact=False), 4),
    "the name has characters of 3 bytes": lambda f: f.name.put("state", kind(3), 4),
    "the name has characters beyond the last": lambda f: f.name.put("state", kind(4), 4),
    "the name has characters of 0 bytes": lambda f: f.name.put("state", kind(0), 4),
}


@pytest.mark.parametrize("falsify", FALSE.values(), ids=FALSE)
def test_what_does_not_fit_is_not_believed(falsify) -> None:
    """One thing wrong, as while a function is entered or memory is used again: the stack is torn."""
    forged = Forgery()
    falsify(forged)

    assert forged.seen() is None


@pytest.mark.parametrize(
    "odd", ["frame", "code", "name", "file", *(["top"] if sys.version_info < (3, 13) else [])]
)
def test_no_object_stands_at_an_odd_address(odd: str) -> None:
    """All is well but the alignment: the stack is torn."""
    assert Forgery(odd).seen() is None


def test_a_page_that_cannot_be_read_is_not_taken_for_the_one_before() -> None:
    """A frame nowhere, at the same place in its page as the last one that was read: torn."""
    forged = Forgery()
    _ticks.know([forged.code.address])
    before = forged.seen()
    forged.enter(NOWHERE + forged.frame.address % 4096)
    after = forged.seen()
    _ticks.forget()

    assert (forged.code.address,) == before
    assert after is None


def test_a_state_that_cannot_be_read_is_not_taken_for_the_one_before() -> None:
    """A thread whose state is nowhere: torn, though that of the last one is still about."""
    forged = Forgery()

    assert (forged.said,) == forged.seen()
    assert _ticks.walk(threading.get_ident(), NOWHERE) is None


def test_entries_of_c_in_a_circle_have_an_end() -> None:
    """Frames that are left out, each of which has the other for a caller: torn, not a hang."""
    first, second = Forgery(), Forgery()
    for one, other in ((first, second), (second, first)):
        one.frame.put("owner", 3, 1)
        one.frame.put("previous", other.frame.address)

    assert first.seen() is None


def test_code_that_cannot_be_read_is_not_taken_for_what_was_read_before() -> None:
    """Two functions, the second of which is nowhere now: torn, though its head is still about."""
    inner, outer = Forgery(), Forgery()
    inner.frame.put("previous", outer.frame.address)
    before = inner.seen()
    outer.frame.put("code", NOWHERE)

    assert (inner.said, outer.said) == before
    assert inner.seen() is None


def test_a_name_that_cannot_be_read_is_not_taken_for_what_was_read_before() -> None:
    """A name without characters, which is nowhere now: torn, though its head is still about."""
    forged = Forgery()
    forged.name.put("length", 0)
    before = forged.seen()
    forged.code.put("name", NOWHERE)

    assert ((forged.code.address, "", "forged.py", LINE),) == before
    assert forged.seen() is None


def test_characters_that_cannot_be_read_are_none() -> None:
    """The head of a name where a page ends, and no page beyond: torn."""
    forged = Forgery()
    pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    beyond = ctypes.addressof(ctypes.c_char.from_buffer(pages)) + mmap.PAGESIZE
    head = beyond - AT["characters"]
    ctypes.memmove(head, forged.name.address, AT["characters"])
    forged.code.put("name", head)
    ctypes.memmove(beyond, b"beyond", 6)
    before = forged.seen()
    LIBC.mprotect(ctypes.c_void_p(beyond), mmap.PAGESIZE, 0)
    after = forged.seen()
    LIBC.mprotect(ctypes.c_void_p(beyond), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE)

    assert ((forged.code.address, "beyond", "forged.py", LINE),) == before
    assert after is None


def test_a_function_about_to_be_entered_is_not_shown() -> None:
    """A frame before its first line is left out, as the interpreter does, shims of its own with it."""
    forged = Forgery()
    forged.frame.put("next", forged.code.address + AT["instructions"] + 2)

    assert () == forged.seen()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 has no such frames")
def test_entries_of_c_are_no_frames() -> None:
    """What stands for C code that calls Python is left out."""
    forged = Forgery()
    forged.frame.put("owner", 3, 1)

    assert () == forged.seen()


def test_an_address_is_written_down_only_while_it_is_known() -> None:
    """A code object that Python holds is its address, and text again as soon as it is let go of."""
    forged = Forgery()
    _ticks.know([forged.code.address])
    known = forged.seen()
    _ticks.forget()

    assert (forged.code.address,) == known
    assert (forged.said,) == forged.seen()


def test_more_strangers_than_there_is_room_for_cut_the_stack() -> None:
    """The innermost sixteen are seen, in their order."""
    forged = [Forgery() for _ in range(20)]
    for inner, outer in pairwise(forged):
        inner.frame.put("previous", outer.frame.address)

    assert [f.said for f in forged[:16]] == list(forged[0].seen())  # type: ignore[call-overload]


def test_recursion_is_one_stranger() -> None:
    """Frames of one code object cost one reading of its text, however many they are."""
    forged = [Forgery() for _ in range(100)]
    for inner, outer in pairwise(forged):
        inner.frame.put("previous", outer.frame.address)
        inner.frame.put("code", forged[-1].code.address)
        inner.frame.put("next", forged[-1].code.address + AT["instructions"] + 4)

    assert (forged[-1].said,) * 100 == forged[0].seen()


@pytest.mark.parametrize("name", ["é" * 9, "ж" * 9, "🜚" * 9, "x" * 700, "", "\udc80"])
def test_names_of_all_kinds(name: str) -> None:
    """Text of one, two and four bytes a character is read whole."""
    code = (lambda look: look()).__code__.replace(co_qualname=name)
    function = type(test_names_of_all_kinds)(code, globals())

    assert name == function(_ticks.walk)[0][1]


def armed(period: float) -> int:
    """Have this thread tick; return its handle."""
    _ticks.claim()
    nanoseconds = round(period * 1e9)
    return _ticks.arm(
        threading.get_ident(), threading.get_native_id(), nanoseconds // 2, nanoseconds
    )


def unhurried(first: int = NEVER, period: int = NEVER) -> int:
    """Arm this thread so that it ticks when told to, and has no timer; return its handle."""
    _ticks.claim()
    handle = _ticks.arm(threading.get_ident(), threading.get_native_id(), first, period)
    for line in Path("/proc/self/timers").read_text("ascii").splitlines():
        if line.startswith("ID:"):
            LIBC.syscall(TIMER_DELETE, int(line.split()[1]))
    return handle


def send(handle: int, *, code: int = SI_TIMER, thread: int = 0, times: int = 2) -> None:
    """Send what the kernel would send for a tick, or nearly; it has come when this returns.

    A tick is due with the first signal, and taken with the second.
    """
    info = struct.pack("iii4xiiq96x", signal.SIGURG, 0, code, 0, 0, handle)
    thread = thread or threading.get_native_id()
    for _ in range(times):
        assert 0 == LIBC.syscall(RT_TGSIGQUEUEINFO, os.getpid(), thread, signal.SIGURG, info)


def addresses(stack: bytes | tuple[int | Stranger, ...] | None) -> list[int | Stranger]:
    """Return the frames of a stack as `drain` or `look` returns it."""
    return memoryview(stack).cast("P").tolist() if isinstance(stack, bytes) else [*(stack or ())]


def test_ticks_are_the_cpu_of_the_thread() -> None:
    """One each 10 ms of CPU, those that came late or together included; none while it sleeps."""
    handle = armed(0.01)
    began = time.thread_time()
    for _ in range(5):
        burn(0.08)
        time.sleep(0.02)
    used = time.thread_time() - began
    _ticks.disarm(handle)
    _ticks.release()
    ticks = _ticks.drain()

    assert {handle} == {found for found, _, _ in ticks}
    assert used / 0.01 == pytest.approx(sum(weight for _, weight, _ in ticks), abs=2)
    assert all(stack is not None for _, _, stack in ticks)


def test_a_tick_is_taken_when_the_kernel_looks_again() -> None:
    """Where it happens to see first that the time has come is mostly within what runs for long."""
    handle = unhurried()
    found = []
    for _ in range(4):
        send(handle, times=1)
        found.append(len(_ticks.drain()))
    _ticks.disarm(handle)
    _ticks.release()

    assert [0, 1, 0, 1] == found


def test_a_call_of_the_system_has_the_ticks_that_it_has_held_up() -> None:
    """No signal comes within; it is taken at the end, where the thread stands in the call still."""
    size = 1 << 25
    file = os.memfd_create("pages")
    os.ftruncate(file, size)
    page = bytearray(1 << 20)
    used = {"read": 0.0, "work": 0.0}

    def read() -> None:
        began = time.thread_time()
        os.preadv(file, [page] * (size >> 20), 0)
        used["read"] += time.thread_time() - began

    def work() -> None:
        began = time.thread_time()
        burn(0.02)
        used["work"] += time.thread_time() - began

    _ticks.know([id(read.__code__)])
    handle = armed(0.01)
    while sum(used.values()) < 3:
        read()
        work()
    _ticks.disarm(handle)
    _ticks.release()
    ticked: dict[object, int] = {}
    for _, weight, stack in _ticks.drain():
        leaf = addresses(stack)[0]
        ticked[leaf] = ticked.get(leaf, 0) + weight
    _ticks.forget()
    os.close(file)
    share = ticked[id(read.__code__)] / sum(ticked.values())

    assert used["read"] / sum(used.values()) == pytest.approx(share, abs=0.12)


def test_a_tick_that_a_call_of_the_system_has_held_up_is_taken_at_its_end() -> None:
    """It is late by more than two beats, though by less than a period: it need not come again."""
    handle = unhurried(first=50_000_000)
    burn(0.1)
    send(handle, times=1)
    ticks = [weight for _, weight, _ in _ticks.drain()]
    _ticks.disarm(handle)
    _ticks.release()

    assert [1] == ticks


def test_a_tick_that_a_call_of_the_system_has_held_up_stands_for_what_was_due_before() -> None:
    """The beats that were met within the call are those of ticks to come."""
    period = 100_000
    handle = unhurried(period=period)
    send(handle, times=1)  # which is when the first is due
    due = time.thread_time_ns()
    burn(0.1)
    came = time.thread_time_ns()
    send(handle, times=1)
    [weight] = [weight for _, weight, _ in _ticks.drain()]
    _ticks.disarm(handle)
    _ticks.release()
    late = came - due

    assert (late - 20_000_000) // period <= weight <= late // period


@pytest.mark.parametrize("handle", ["a", None])
def test_what_is_no_handle_is_refused(handle: int) -> None:
    """As any wrong argument."""
    with pytest.raises(TypeError):
        _ticks.disarm(handle)


def test_a_late_tick_stands_for_all_that_was_due() -> None:
    """One that the thread has not let through for ten periods counts ten times, as its clock has it."""
    handle = armed(0.01)
    burn(0.05)
    _ticks.drain()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
    burn(0.1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGURG})
    burn(0.02)
    _ticks.disarm(handle)
    _ticks.release()
    weights = [weight for _, weight, _ in _ticks.drain()]

    assert 12 == pytest.approx(sum(weights), abs=2)
    assert max(weights) >= 9


def test_what_was_known_before_is_void() -> None:
    """A tick that wrote down addresses does not count any more once these may be reused."""
    _ticks.know([id(burn.__code__)])
    handle = armed(0.01)
    burn(0.1)
    _ticks.disarm(handle)
    _ticks.release()
    _ticks.forget()

    assert {None} == {stack for _, _, stack in _ticks.drain()}


def test_a_tick_begins_anew_after_a_torn_stack() -> None:
    """Whatever was still to be read then: the names of sixteen functions but one, as many as can be."""
    handle = unhurried()
    send(handle)
    forged = [Forgery() for _ in range(16)]
    for inner, outer in pairwise(forged):
        inner.frame.put("previous", outer.frame.address)
    forged[-1].file.put("type", id(bytes))
    torn = forged[0].seen()
    send(handle)
    before, after = _ticks.drain()
    _ticks.disarm(handle)
    _ticks.release()

    assert torn is None
    assert before[2]
    assert before == after


def test_a_tick_without_a_cell_is_lost_and_nothing_else() -> None:
    """If nobody drains for long, the first ticks are kept; then there is room again."""
    handle = unhurried()
    for _ in range(600):
        send(handle)
    kept = [(found, weight) for found, weight, _ in _ticks.drain()]
    left = _ticks.drain()
    send(handle)
    later = len(_ticks.drain())
    _ticks.disarm(handle)
    _ticks.release()

    assert [(handle, 1)] * 512 == kept
    assert ([], 1) == (left, later)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking beside other threads
def test_a_tick_is_lost_where_too_many_stacks_are_read() -> None:
    """And nothing else: then there is room again, and in a child at once."""
    in_a_century = time.monotonic_ns() + NEVER * 1000
    watchers = [
        threading.Thread(target=_ticks.watch, args=([], [in_a_century], 0, 0)) for _ in range(256)
    ]
    handle = unhurried()
    for watcher in watchers:
        watcher.start()  # reads, if only in a century
    deadline = time.monotonic() + 20
    while _ticks.walk() and time.monotonic() < deadline:
        time.sleep(0.01)
    send(handle, times=1200)
    lost = _ticks.watch([], [0], 0, 0), _ticks.drain()
    is_free_in_a_child = in_a_child(lambda: _ticks.walk() is not None)
    while any(watcher.is_alive() for watcher in watchers):
        _ticks.ring()
        time.sleep(0.001)
    _ticks.watch([], [0], 0, 0)  # hears the last ring
    send(handle, times=1200)
    later = len(_ticks.drain())
    _ticks.disarm(handle)
    _ticks.release()

    assert ([], []) == lost
    assert is_free_in_a_child
    assert 512 == later


def test_nobody_watches_while_there_are_many_ticks_to_drain() -> None:
    """Before they leave no cell free, and at once when they have."""
    handle = unhurried()
    taken = []
    for ticks in (256, 1, 300):  # a watch takes a cell itself
        for _ in range(ticks):
            send(handle)
        taken.append(len(_ticks.watch([], [0], 0, 2**62)))
    _ticks.drain()
    taken.append(len(_ticks.watch([], [0], 0, 2**62)))
    _ticks.disarm(handle)
    _ticks.release()

    assert [1, 0, 0, 1] == taken


def test_a_late_tick_is_not_that_of_the_next_in_its_place() -> None:
    """One sent to a thread whose timer has ended since, while another has its place."""
    first = unhurried()
    _ticks.disarm(first)
    second = unhurried()
    send(first)
    late = _ticks.drain()
    send(second)
    ticks = _ticks.drain()
    _ticks.disarm(second)
    send(second)
    _ticks.release()

    assert first % 4096 == second % 4096
    assert [] == late
    assert [second] == [handle for handle, _, _ in ticks]
    assert [] == _ticks.drain()


def test_what_no_timer_sent_is_no_tick() -> None:
    """The signal of the ticks with the value of a tick, from somebody else."""
    handle = unhurried()
    send(handle, code=SI_QUEUE)
    _ticks.disarm(handle)
    _ticks.release()

    assert [] == _ticks.drain()


def test_an_address_is_void_from_the_moment_it_may_be_forgotten() -> None:
    """A tick in the midst of `forget` sees some of what is being forgotten: that does not count."""
    codes = [id(burn.__code__), id(sys._getframe().f_code)]
    handle = armed(0.001)
    dangling = 0
    until = time.thread_time() + 0.3
    while time.thread_time() < until:
        _ticks.drain()
        _ticks.know(codes)
        _ticks.forget()
        for _, _, stack in _ticks.drain():
            dangling += any(address in codes for address in addresses(stack))
    _ticks.disarm(handle)
    _ticks.release()

    assert 0 == dangling


def test_what_ticks_take_from_a_thread_is_told_once() -> None:
    """The CPU of the handler, as the clock of the thread that it ran on has it."""
    handle = unhurried()
    _ticks.cost()
    began = time.thread_time_ns()
    for _ in range(200):
        send(handle)
    took = _ticks.cost()
    used = time.thread_time_ns() - began
    left = _ticks.cost()
    _ticks.disarm(handle)
    _ticks.release()
    _ticks.drain()

    assert 200 * 500 < took < used
    assert 0 == left


def test_a_call_of_the_system_goes_on_after_a_tick() -> None:
    """A read that waits while ticks come reads at last, as if there had been none."""
    to_read, to_write = os.pipe()
    found: list[int] = []

    def read() -> None:
        ready.append((unhurried(), threading.get_native_id()))
        found.append(LIBC.read(to_read, ctypes.create_string_buffer(1), 1))

    ready: list[tuple[int, int]] = []
    reader = threading.Thread(target=read)
    reader.start()
    while not ready:
        time.sleep(0.001)
    ((handle, thread),) = ready
    for _ in range(20):
        time.sleep(0.01)
        if reader.is_alive() and not found:
            send(handle, thread=thread)
    os.write(to_write, b"!")
    reader.join()
    _ticks.disarm(handle)
    _ticks.release()
    os.close(to_read)
    os.close(to_write)

    assert [1] == found
    assert _ticks.drain()


class AlternateStack(ctypes.Structure):
    """The `stack_t` of sigaltstack(2)."""

    _fields_ = (("at", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def test_a_tick_runs_on_the_alternate_stack_of_a_thread_that_has_one() -> None:
    """Where a language keeps its stacks small, signals must not use them."""
    memory = ctypes.create_string_buffer(1 << 17)
    ours, before = AlternateStack(ctypes.addressof(memory), 0, 1 << 17), AlternateStack()
    handle = unhurried()
    assert 0 == LIBC.sigaltstack(ctypes.byref(ours), ctypes.byref(before))
    send(handle)
    LIBC.sigaltstack(ctypes.byref(before), None)
    _ticks.disarm(handle)
    _ticks.release()

    assert 1 == len(_ticks.drain())
    assert any(memory.raw)


def test_a_tick_looks_up_no_symbol() -> None:
    """The first call of a function in a library would have the loader work within the handler."""
    data = Path(_ticks.__file__).read_bytes()
    at, size, count = (
        struct.unpack_from(f, data, i)[0] for f, i in (("Q", 32), ("H", 54), ("H", 56))
    )
    headers = [struct.unpack_from("II5Q", data, at + size * number) for number in range(count)]
    ((dynamic, length),) = [
        (offset, held) for kind, _, offset, _, _, held, _ in headers if kind == 2
    ]
    tags = dict(struct.iter_unpack("QQ", data[dynamic : dynamic + length]))

    assert tags[30] & 8  # DF_BIND_NOW


def test_a_thread_with_a_small_stack_ticks() -> None:
    """What the handler needs is on no stack: 64 KiB, or the least there is, are enough."""
    assert "True\n" == run(
        "import os, threading, time\n"
        "from ox_otel import _ticks\n"
        "_ticks.claim()\n"
        "ticks = []\n"
        "def burn():\n"
        "    _ticks.arm(threading.get_ident(), threading.get_native_id(), 10**6, 10**6)\n"
        "    while len(ticks) < 4 and time.thread_time() < 10: ticks.extend(_ticks.drain())\n"
        "threading.stack_size(max(65536, os.sysconf('SC_THREAD_STACK_MIN')))\n"
        "thread = threading.Thread(target=burn)\n"
        "thread.start()\n"
        "thread.join()\n"
        "print(len(ticks) > 3)"
    )


def test_a_thread_that_is_not_there_cannot_be_armed() -> None:
    """Nor can one of another process."""
    with pytest.raises(LookupError):
        _ticks.arm(1, threading.get_native_id(), 10**9, 10**9)
    with pytest.raises(OSError, match="Invalid"):
        _ticks.arm(threading.get_ident(), 1, 10**9, 10**9)


def test_a_thread_that_creates_others_is_not_taken_for_one_of_these() -> None:
    """A new thread, until it comes to run, bears the ident of its creator in 3.11."""
    program = (
        "import _thread, os, sys, threading\n"
        f"sys.path.append({str(Path(__file__).parent)!r})\n"
        "from test_ticks import send\n"
        "from ox_otel import _ticks\n"
        "os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])\n"
        "seen = _ticks.claim()\n"
        "for _ in range(2000):\n"
        "    _thread.start_new_thread(int, ())\n"
        f"    handle = _ticks.arm(threading.get_ident(), threading.get_native_id(), {NEVER}, {NEVER})\n"
        "    send(handle)\n"
        "    seen += [stack is not None for _, _, stack in _ticks.drain()].count(True)\n"
        "    _ticks.disarm(handle)\n"
        "print(seen)\n"
    )
    assert "2000\n" == run(program)


def test_a_stale_handle_disarms_nobody() -> None:
    """The place of a thread that has ended is given to another, which its handle is not for."""
    first = armed(0.01)
    _ticks.disarm(first)
    second = armed(0.01)
    _ticks.disarm(first)
    burn(0.1)
    _ticks.disarm(second)
    _ticks.release()

    assert first != second
    assert {second} == {handle for handle, _, _ in _ticks.drain()}


def test_the_signal_of_others_is_not_taken() -> None:
    """Neither our own, nor where another profiler uses SIGPROF."""
    free = _ticks.taken()
    found = []
    for number in (signal.SIGURG, signal.SIGPROF):
        before = signal.signal(number, lambda *_: None)
        found.append(_ticks.taken())
        signal.signal(number, before)

    assert 0 == free
    assert [signal.SIGURG, signal.SIGPROF] == found


def test_a_signal_is_not_claimed_from_others() -> None:
    """To ask and to take is one thing: nobody's handler gets lost in between."""
    got: list[int] = []
    before = signal.signal(signal.SIGURG, lambda *_: got.append(1))
    said = _ticks.claim()
    signal.raise_signal(signal.SIGURG)
    signal.signal(signal.SIGURG, before)
    free = _ticks.claim()
    _ticks.release()

    assert (signal.SIGURG, 0) == (said, free)
    assert [1] == got


def test_what_is_ours_is_not_taken_again() -> None:
    """Whoever sets a handler from C, without the GIL, could be run over each time."""
    before, after = (ctypes.create_string_buffer(152) for _ in range(2))  # glibc's struct sigaction
    _ticks.claim()
    try:
        LIBC.sigaction(signal.SIGURG, None, before)
        before[8:16] = bytes(8)  # a mask that we do not set
        LIBC.sigaction(signal.SIGURG, before, None)
        taken = _ticks.claim()
        LIBC.sigaction(signal.SIGURG, None, after)
    finally:
        _ticks.release()

    assert (0, before.raw[:16]) == (taken, after.raw[:16])


def test_a_signal_that_is_no_tick_is_nothing() -> None:
    """As it is by default."""
    _ticks.claim()
    os.kill(os.getpid(), signal.SIGURG)
    _ticks.release()
    os.kill(os.getpid(), signal.SIGURG)

    assert [] == _ticks.drain()


def test_a_host_that_resets_the_signal_lives_on() -> None:
    """Ticks that come then are ignored: with SIGPROF they would end the process."""
    handle = armed(0.01)
    signal.signal(signal.SIGURG, signal.SIG_DFL)
    burn(0.1)
    _ticks.disarm(handle)

    assert [] == _ticks.drain()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking beside other threads
def test_a_forked_child_has_no_ticks() -> None:
    """Nor would it delete timers of its own that bear the same number."""
    handle = armed(0.01)
    burn(0.03)
    child = os.fork()
    if not child:
        _ticks.disarm(handle)
        burn(0.1)
        os._exit(len(_ticks.drain()))
    _, status = os.waitpid(child, 0)
    ticks = _ticks.drain()
    end = time.thread_time() + 10
    while not ticks and time.thread_time() < end:  # it may take long where others use the cores
        ticks = _ticks.drain()
    _ticks.disarm(handle)
    _ticks.release()

    assert 0 == status
    assert ticks


def in_a_child(judge: Callable[[], bool]) -> bool:
    """Return what *judge* does in a forked child."""
    child = os.fork()
    if not child:
        verdict = 1
        try:
            verdict = not judge()
        finally:
            os._exit(verdict)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking beside other threads
def test_a_forked_child_begins_with_nothing() -> None:
    """Neither ticks that wait to be drained, nor what they took, nor code that is held."""
    handle = unhurried()
    send(handle)
    _ticks.know([id(sys._getframe().f_code)])

    def is_clean() -> bool:
        seen = _ticks.walk()
        return (
            seen is not None
            and not any(isinstance(frame, int) for frame in seen)
            and ([], 0) == (_ticks.drain(), _ticks.cost())
        )

    clean = in_a_child(is_clean)
    _ticks.disarm(handle)
    _ticks.release()
    _ticks.forget()

    assert 1 == len(_ticks.drain())
    assert clean


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking beside other threads
def test_a_forked_child_reads_its_own_memory() -> None:
    """Its ticks see its own stack, not that which its parent has at the same address."""

    def is_seen() -> bool:
        own = _ticks.arm(threading.get_ident(), threading.get_native_id(), NEVER, NEVER)
        send(own)
        ((_, _, stack),) = _ticks.drain()
        names = [frame[1].rpartition(".")[2] for frame in stack or () if isinstance(frame, tuple)]
        return "is_seen" in names

    _ticks.claim()
    seen = in_a_child(is_seen)
    _ticks.release()

    assert seen


def test_what_a_parent_armed_ends_no_timer_of_a_child() -> None:
    """The first timer of each has the same number to the kernel."""
    assert "1\n" == run(
        "import os, threading\n"
        "from ox_otel import _ticks\n"
        "def arm():\n"
        "    return _ticks.arm(threading.get_ident(), threading.get_native_id(), 10**15, 10**15)\n"
        "of_parent = arm()\n"
        "child = os.fork()\n"
        "if child:\n"
        "    os.waitpid(child, 0)\n"
        "else:\n"
        "    arm()\n"
        "    _ticks.disarm(of_parent)\n"
        "    print(open('/proc/self/timers').read().count('ClockID:'))\n"
    )


def test_a_subinterpreter_arms_nobody() -> None:
    """Not even by the state that its thread has in the main interpreter."""
    assert "threads of subinterpreters cannot tick\n" == run(
        "import sys\n"
        "if sys.version_info >= (3, 13):\n"
        "    import _interpreters as i\n"
        "    sub = i.create('legacy')\n"
        "else:\n"
        "    import warnings; warnings.simplefilter('ignore')\n"
        "    import _xxsubinterpreters as i\n"
        "    sub = i.create(isolated=False)\n"
        "i.run_string(sub, '''\n"
        "import sys, threading\n"
        f"sys.path[:] = {sys.path!r}\n"
        "from ox_otel import _ticks\n"
        "try:\n"
        "    _ticks.arm(threading.get_ident(), threading.get_native_id(), 10**9, 10**9)\n"
        "except LookupError as error:\n"
        "    print(error)\n"
        "''')\n"
        "i.destroy(sub)\n"
    )


def run(program: str, *arguments: str, folder: Path | None = None) -> str:
    """Return what a program prints that ends well."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def test_a_process_without_timers_is_told_so() -> None:
    """RLIMIT_SIGPENDING is used up."""
    _, most = resource.getrlimit(resource.RLIMIT_SIGPENDING)

    assert "there is no timer" in run(
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_SIGPENDING, (0, {most}))\n"
        "from ox_otel._probe import obstacle\n"
        "print(obstacle())"
    )


def test_where_reading_kills_only_a_child_dies() -> None:
    """A filter of system calls that kills whoever reads memory so: the ticks are not to be had."""
    assert "process_vm_readv is not allowed\n" == run(_FILTERED, "kill")


def test_the_child_that_dies_leaves_no_core_file(tmp_path: Path) -> None:
    """It would be one of the host's memory."""
    allowed = (
        "import resource\n"
        "_, most = resource.getrlimit(resource.RLIMIT_CORE)\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (most, most))\n"
    )
    run(allowed + _FILTERED, "kill", folder=tmp_path)

    assert [] == list(tmp_path.iterdir())


def test_without_proc_there_are_no_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could tell which threads wait for the signal."""
    monkeypatch.setattr("ox_otel._probe.blocked_by", lambda _: None)

    assert "/proc does not tell which signals a thread blocks" == obstacle()


def test_where_reading_is_refused_that_is_said() -> None:
    """A filter of system calls that refuses to read memory."""
    assert "process_vm_readv is not allowed\n" == run(_FILTERED, "refuse")


_FILTERED = """
import ctypes, platform, struct, sys
number = {"x86_64": 310, "aarch64": 270}[platform.machine()]
action = 0x80000000 if sys.argv[1] == "kill" else 0x00050001  # the process, EPERM
program = ctypes.create_string_buffer(b"".join([
    struct.pack("HBBI", 0x20, 0, 0, 0),  # the number of the system call
    struct.pack("HBBI", 0x15, 0, 1, number),
    struct.pack("HBBI", 0x06, 0, 0, action),
    struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000),  # allow
]))
packed = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(program)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges
assert libc.prctl(22, 2, packed) == 0, ctypes.get_errno()
if sys.argv[2:]:
    exec(sys.argv[2])
else:
    from ox_otel._probe import obstacle
    print(obstacle())
"""


def test_a_tick_that_fails_leaves_errno_alone() -> None:
    """The code that it interrupts may be about to look at it."""
    assert "(77, [None])\n" == run(
        _FILTERED,
        "refuse",
        "import os, signal, threading\n"
        "from ox_otel import _ticks\n"
        "_ticks.claim()\n"
        "thread = threading.get_native_id()\n"
        "handle = _ticks.arm(threading.get_ident(), thread, 10**15, 10**15)\n"
        f"info = struct.pack('iii4xiiq96x', signal.SIGURG, 0, {SI_TIMER}, 0, 0, handle)\n"
        "ctypes.set_errno(77)\n"
        "for _ in range(2):\n"
        f"    libc.syscall({RT_TGSIGQUEUEINFO}, os.getpid(), thread, signal.SIGURG, info)\n"
        "print((ctypes.get_errno(), [stack for _, _, stack in _ticks.drain()]))\n",
    )


def test_the_ticks_can_be_had_here() -> None:
    """On an interpreter and a kernel that are known there is no obstacle."""
    assert "" == obstacle()


def test_a_program_that_is_replaced_sees_no_late_tick() -> None:
    """Timers end with exec, and so does what they had sent."""
    assert "well\n" == run(
        "import os, sys, threading, time\n"
        "from ox_otel import _ticks\n"
        "_ticks.claim()\n"
        "_ticks.arm(threading.get_ident(), threading.get_native_id(), 10**6, 10**6)\n"
        "until = time.thread_time() + 0.1\n"
        "while time.thread_time() < until: pass\n"
        "os.execv(sys.executable, [sys.executable, '-c', 'sum(range(10**7)); print(\"well\")'])\n"
    )


def test_the_end_of_the_interpreter_is_not_disturbed() -> None:
    """Timers that nobody ended go on ticking while the interpreter is taken down."""
    for _ in range(5):
        run(
            "import threading, time\n"
            "from ox_otel import _ticks\n"
            "_ticks.claim()\n"
            "def burn():\n"
            "    _ticks.arm(threading.get_ident(), threading.get_native_id(), 10**6, 10**6)\n"
            "    while True: sum(range(1000))\n"
            "for _ in range(3): threading.Thread(target=burn, daemon=True).start()\n"
            "_ticks.arm(threading.get_ident(), threading.get_native_id(), 10**6, 10**6)\n"
            "time.sleep(0.2)\n"
            "garbage = [[] for _ in range(10**5)]\n"
        )


def test_what_the_kernel_tells_of_a_thread_is_read() -> None:
    """The beginning of a file, which Python would read the same."""
    mine = threading.get_native_id()

    assert read_task(mine, "comm") == _ticks.read_task(mine, "comm")
    assert blocked_by(mine) == blocked_by(mine, _ticks.read_task)
    assert 16384 >= len(_ticks.read_task(mine, "status")) > 100


@pytest.mark.parametrize("thread_and_name", [(2**30, "comm"), (1, "nothing"), (1, "x" * 1000)])
def test_a_thread_or_a_file_that_is_not_there(thread_and_name: tuple[int, str]) -> None:
    """Is an error, as it is in Python."""
    with pytest.raises(OSError, match="No such file"):
        _ticks.read_task(*thread_and_name)


def test_known_stacks_are_packed() -> None:
    """A stack whose code objects are all known is their addresses, and no more than them."""
    codes = []
    frame = sys._getframe()
    while frame:
        codes.append(id(frame.f_code))
        frame = frame.f_back
    _ticks.know(codes)
    handle = unhurried()
    codes.insert(0, id(send.__code__))
    _ticks.know(codes)
    send(handle)
    [(_, _, seen)] = _ticks.drain()
    _ticks.forget()
    send(handle)
    [(_, _, unknown)] = _ticks.drain()
    _ticks.disarm(handle)
    _ticks.release()

    assert isinstance(seen, bytes)
    assert codes == addresses(seen)[-len(codes) :]
    assert isinstance(unknown, tuple)
