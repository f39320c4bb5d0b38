"""Threads are watched without the GIL: what is seen of one is believed only if it has stood still."""

import ctypes
import mmap
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from standstill import until_still

if sys.platform != "linux":
    pytest.skip("ticks are of Linux", allow_module_level=True)

from ox_otel import _ticks

MONOTONIC_COARSE = 6  # of Linux, which has it from one beat of the kernel's clock to the next
NEVER = 10**15  # nanoseconds
ENOUGH = 2**62  # nanoseconds of CPU, however much others use
LIBC = ctypes.CDLL(None)


class Watched:
    """A thread that is armed; its code is known while it waits."""

    def __init__(self, target: Callable[[], object]) -> None:
        self.thread = threading.Thread(target=target)
        self.thread.start()
        assert self.thread.native_id is not None
        self.clock = ~self.thread.native_id << 3 | 6
        _ticks.claim()
        self.handle = _ticks.arm(self.thread.ident or 0, self.thread.native_id, NEVER, NEVER)

    def know(self) -> list[int]:
        """Have all code on its stack known; return the addresses, leaf first."""
        codes = []
        frame = sys._current_frames()[self.thread.ident or 0]
        while frame:
            codes.append(id(frame.f_code))
            frame = frame.f_back  # type: ignore[assignment]
        _ticks.know(codes)
        return codes

    def cpu(self) -> int:
        """Return what its clock reads."""
        return time.clock_gettime_ns(self.clock)

    def at(self, cpu: int = 0, *, seen: bool = False) -> tuple[int, int, int, bool]:
        """Return it as `watch` takes it."""
        return self.handle, self.clock, cpu, seen


@contextmanager
def watched(target: Callable[[], object]) -> Iterator[Watched]:
    """Yield an armed thread that runs *target*, which must end by itself when the block does."""
    one = Watched(target)
    _ticks.watch([], [0], 0, ENOUGH)  # somebody may have rung
    try:
        yield one
    finally:
        _ticks.disarm(one.handle)
        _ticks.forget()
        _ticks.release()


@contextmanager
def parked() -> Iterator[Watched]:
    """Yield an armed thread that waits, its code known."""
    over = threading.Lock()
    over.acquire()
    with watched(over.acquire) as one:
        try:
            until_still([one.thread])
            yield one
        finally:
            over.release()
            one.thread.join()


def look(one: Watched) -> tuple[bool, list[tuple[int, int, bytes | None]]]:
    """Take one sample of a thread now; return whether it is complete, and the looks."""
    [(_, _, is_complete, looks)] = _ticks.watch([one.at()], [0], 0, ENOUGH)
    return is_complete, looks


def state_of(thread: threading.Thread) -> int:
    """Return where the interpreter keeps what it knows of a thread."""
    api = ctypes.pythonapi
    api.PyInterpreterState_Get.restype = ctypes.c_void_p
    api.PyInterpreterState_ThreadHead.restype = api.PyThreadState_Next.restype = ctypes.c_void_p
    state = api.PyInterpreterState_ThreadHead(ctypes.c_void_p(api.PyInterpreterState_Get()))
    while ctypes.c_ulong.from_address(state + _ticks.LAYOUT["thread_id"]).value != thread.ident:
        state = api.PyThreadState_Next(ctypes.c_void_p(state))
    return int(state)


def word(address: int) -> ctypes.c_uint64:
    """Return the word at an address, to be read and changed."""
    return ctypes.c_uint64.from_address(address)


@contextmanager
def standing_in(thread: threading.Thread, frame: int) -> Iterator[None]:
    """Have a thread, which waits, seem to stand in the frame at that address; 0: in none."""
    place = state_of(thread) + _ticks.LAYOUT["top"]
    if sys.version_info < (3, 13):  # there is a structure on the C stack in between
        place = word(place).value + _ticks.LAYOUT["top_in_c"]
    top = word(place)
    before, top.value = top.value, frame
    try:
        yield
    finally:
        top.value = before


def soon(*milliseconds: int) -> list[int]:
    """Return times from now on."""
    now = time.monotonic_ns()
    return [now + 1_000_000 * each for each in milliseconds]


def test_a_thread_that_waits_is_seen_where_it_stands() -> None:
    """With what its clock reads, and its frames, all of them known."""
    with parked() as one:
        codes = one.know()
        is_complete, [(number, cpu, stack)] = look(one)
        expected = one.cpu()

    assert is_complete
    assert (0, expected) == (number, cpu)
    assert stack is not None
    assert codes == memoryview(stack).cast("P").tolist()


def test_what_a_thread_uses_while_it_is_looked_at_is_its_own() -> None:
    """Nobody else is to be looked for on its account."""

    def burn() -> None:
        while not over:
            pass

    over: list[None] = []
    with watched(burn) as one:
        one.know()
        found = []
        deadline = time.monotonic() + 60
        while len(found) < 40 and time.monotonic() < deadline:
            # where all cores are busy it stands still while we look
            cpu = one.cpu()
            others = time.process_time_ns() - time.thread_time_ns()
            [(_, _, is_complete, [(_, _, stack)])] = _ticks.watch(
                [one.at(cpu)], soon(3), others, 2_000
            )
            if stack is None:
                found.append(is_complete)
        over.append(None)
        one.thread.join()

    assert found
    assert found.count(True) > len(found) / 2  # at a beat, the kernel looks at the clock by itself


def test_nothing_is_believed_while_the_clock_goes_on() -> None:
    """However still the thread seems to stand: this clock is one that goes on always."""
    with parked() as one:
        one.know()
        one.clock = time.CLOCK_MONOTONIC
        is_complete, [(number, _, stack)] = look(one)

    assert is_complete
    assert (0, None) == (number, stack)


def test_code_that_is_not_known_takes_the_gil() -> None:
    """To see whose it is takes a frame."""
    with parked() as one:
        found = look(one)

    assert (False, []) == found


def test_a_thread_that_has_ended_takes_the_gil() -> None:
    """Its clock is gone: whatever is read of it is nobody's."""
    over = threading.Event()
    with watched(over.wait) as one:
        over.set()
        one.thread.join()
        found = look(one)

    assert (False, []) == found


def test_a_thread_whose_clock_is_gone_takes_the_gil() -> None:
    """Nothing tells whether it has moved while it was looked at, however still it seems to stand."""
    ended = threading.Thread(target=lambda: None)
    ended.start()
    ended.join()
    with parked() as one:
        one.know()
        one.clock = ~(ended.native_id or 0) << 3 | 6
        found = look(one)

    assert (False, []) == found


def test_a_torn_stack_takes_the_gil() -> None:
    """What has been read of it before is not all."""
    page = mmap.mmap(-1, mmap.PAGESIZE)  # in which a frame stands that has a caller nowhere
    frame = ctypes.addressof(ctypes.c_char.from_buffer(page))
    with parked() as one:
        word(frame + _ticks.LAYOUT["code"]).value = one.know()[0]
        with standing_in(one.thread, frame):
            whole = look(one)
            word(frame + _ticks.LAYOUT["previous"]).value = 1 << 46
            torn = look(one)

    assert (True, 1) == (whole[0], len(whole[1]))
    assert (False, []) == torn


class Frames:
    """Frames that are made up, in pages of their own; their code is a number that is known."""

    def __init__(self, pages: int) -> None:
        self._memory = mmap.mmap(-1, pages * mmap.PAGESIZE)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))

    def put(self, at: int, code: int, caller: int = 0) -> int:
        """Put a frame so many bytes from the start, with a caller at an address; return its own."""
        frame = self.start + at
        word(frame + _ticks.LAYOUT["code"]).value = code
        word(frame + _ticks.LAYOUT["previous"]).value = caller
        _ticks.know([code])
        return frame

    def lock(self, page: int, protection: int = 0) -> None:
        """Have a page as if it were not there, or back."""
        address = self.start + page * mmap.PAGESIZE
        assert 0 == LIBC.mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, protection)


def codes_at(one: Watched, frame: int) -> list[int]:
    """Return the code of a thread's frames, leaf first, when it stands in the one at that address."""
    with standing_in(one.thread, frame):
        _, looks = look(one)
    return [code for _, _, stack in looks for code in memoryview(stack or b"").cast("P").tolist()]


A, B, C = 0x100000, 0x200000, 0x300000  # code


def test_where_a_thread_stood_before_is_read_anew() -> None:
    """It is read at once with where it stands now, so that what has changed there is seen."""
    frames = Frames(1)
    with parked() as one:
        frame = frames.put(0, A)
        first = codes_at(one, frame)
        frames.put(0, B)
        second = codes_at(one, frame)

    assert ([A], [B]) == (first, second)


def test_where_a_thread_stood_before_may_be_gone() -> None:
    """What was read after it, then, has not been read; it is when it is needed."""
    frames = Frames(3)
    with parked() as one:
        codes_at(one, frames.put(2 * mmap.PAGESIZE, C))  # or who knows where a thread stood before
        outer = frames.put(mmap.PAGESIZE, B)
        first = codes_at(one, frames.put(0, A, outer))
        frames.put(mmap.PAGESIZE, C)
        frames.lock(0)
        second = codes_at(one, outer)
        frames.lock(0, mmap.PROT_READ | mmap.PROT_WRITE)

    assert ([A, B], [C]) == (first, second)


def test_a_frame_may_go_on_in_the_next_page() -> None:
    """Then it is seen whole, again and again, and so is what lies above it in its own page."""
    frames = Frames(2)
    with parked() as one:
        outer = frames.put(mmap.PAGESIZE - 40, A)
        inner = frames.put(64, B, outer)
        seen = [codes_at(one, inner) for _ in range(3)]
        frames.put(mmap.PAGESIZE - 40, C)
        changed = codes_at(one, inner)
        frames.lock(1)
        torn = codes_at(one, inner)
        frames.lock(1, mmap.PROT_READ | mmap.PROT_WRITE)

    assert [[B, A]] * 3 == seen
    assert [B, C] == changed
    assert [] == torn


def test_a_stack_may_be_in_many_pages() -> None:
    """More than are kept at a time, time and again, and after it one that is in few."""
    frames = Frames(20)
    with parked() as one:
        leaf = 0
        for page in range(20):
            leaf = frames.put(page * mmap.PAGESIZE + 128, A + 16 * page, leaf)
        seen = [codes_at(one, leaf) for _ in range(3)]
        few = codes_at(one, frames.put(0, B))

    assert [[A + 16 * page for page in reversed(range(20))]] * 3 == seen
    assert [B] == few


def test_a_thread_without_frames_takes_the_gil() -> None:
    """It is in C: there is no place of its own."""
    with parked() as one:
        one.know()
        with standing_in(one.thread, 0):
            found = look(one)

    assert (False, []) == found


def test_a_stale_handle_is_nobody() -> None:
    """The place is another thread's by now."""
    with parked() as one:
        one.know()
        stale = one.handle
        _ticks.disarm(stale)
        one.handle = _ticks.arm(one.thread.ident or 0, one.thread.native_id or 0, NEVER, NEVER)
        right = look(one)
        renewed, one.handle = one.handle, stale
        wrong = look(one)
        one.handle = renewed

    assert right[0]
    assert (False, []) == wrong


def test_who_has_not_moved_is_not_looked_at() -> None:
    """Where nobody has, the watch is over: there may be nothing to see for long."""
    with parked() as one:
        one.know()
        samples = _ticks.watch([one.at(one.cpu(), seen=True)], soon(1, 2, 3), 0, ENOUGH)

    assert [(True, [])] == [sample[2:] for sample in samples]


def test_who_has_been_seen_and_has_not_moved_is_not_looked_at_again() -> None:
    """Each is looked at where it has come to, once."""
    with parked() as one:
        one.know()
        samples = _ticks.watch([one.at()], soon(50, 300, 550), 0, ENOUGH)

    assert [1, 0] == [len(looks) for *_, looks in samples]


def test_a_sample_that_is_not_complete_ends_the_watch() -> None:
    """The rest of it is to be taken at once, with the GIL."""
    with parked() as one, parked() as other:
        one.know()
        _ticks.know([])
        samples = _ticks.watch([one.at(), (-1, *other.at()[1:])], soon(50, 100, 150), 0, ENOUGH)

    assert [(False, 1)] == [(is_complete, len(looks)) for *_, is_complete, looks in samples]


def test_who_ran_when_it_was_looked_at_is_looked_at_again() -> None:
    """Though its clock should have stood still since."""
    with parked() as one:
        one.know()
        [(_, _, is_complete, looks)] = _ticks.watch([one.at(one.cpu())], [0], 0, ENOUGH)

    assert is_complete
    assert 1 == len(looks)


def test_samples_are_taken_when_they_are_due() -> None:
    """As long as somebody moves, and not before."""

    def nap() -> None:
        while not over:
            time.sleep(0.0005)

    over: list[None] = []
    with watched(nap) as one:
        dues = soon(20, 40, 60, 80)
        samples = _ticks.watch([one.at()], dues, 0, ENOUGH)
        over.append(None)
        one.thread.join()

    assert 1 <= len(samples) <= 4
    assert all(at >= due for (at, *_), due in zip(samples, dues, strict=False))


def test_a_sample_that_is_due_before_the_last_one_is_over_is_not_taken() -> None:
    """It is missed, and that is to be counted."""
    with parked() as one:
        one.know()
        samples = _ticks.watch([one.at()], [*soon(1), 1, 2], 0, ENOUGH)

    assert 1 == len(samples)


def test_whatever_others_use_takes_the_gil() -> None:
    """Somebody has moved that is not watched."""
    with parked() as one:
        one.know()
        for _ in range(5):  # an interrupt between two clocks is in the one and not in the other
            others = time.process_time_ns() - time.thread_time_ns()
            explained = others - one.cpu()
            [(_, seen, much, _)] = _ticks.watch([one.at()], [0], explained - 10**9, 10**9)
            if others <= seen:
                break
        [(_, _, little, _)] = _ticks.watch([one.at()], [0], explained, 10**9)

    assert (False, True) == (much, little)
    assert others <= seen <= time.process_time_ns()


def test_what_the_watched_have_used_is_explained() -> None:
    """This clock is one that goes on by more than any process can have used."""
    with parked() as one:
        one.know()
        one.clock = time.CLOCK_REALTIME
        is_complete = [_ticks.watch([one.at(cpu)], [0], 0, 1)[0][2] for cpu in (0, 2**62)]

    assert [True, False] == is_complete


def test_whoever_rings_ends_the_watch() -> None:
    """This one, or the next."""
    _ticks.ring()
    before = _ticks.watch([], soon(60_000), 0, ENOUGH)
    bell = threading.Timer(0.05, _ticks.ring)
    bell.start()
    began = time.monotonic()
    meanwhile = _ticks.watch([], soon(60_000), 0, ENOUGH)
    elapsed = time.monotonic() - began
    bell.join()

    assert [] == before == meanwhile
    assert elapsed < 50


def test_a_signal_does_not_end_the_wait_for_a_sample() -> None:
    """Whoever watches in a thread that the host has signals sent to is not disturbed."""
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    main = threading.get_ident()
    sender = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR1))
    sender.start()
    samples = _ticks.watch([], soon(500), 0, ENOUGH)
    sender.join()
    signal.signal(signal.SIGUSR1, before)

    assert 1 == len(samples)


def test_where_there_is_no_waiting_there_are_no_samples() -> None:
    """The system refuses, as it does with a time before all times: better none than all at once."""
    assert [] == _ticks.watch([], [-1], 0, ENOUGH)


@pytest.mark.parametrize("number", [signal.SIGURG, signal.SIGPROF])
def test_whoever_takes_the_signal_ends_the_watch(number: int) -> None:
    """Before the next sample: from then on ticks are somebody else's."""
    with parked() as one:
        one.know()
        before = signal.signal(number, lambda *_: None)
        try:
            taken = _ticks.watch([one.at()], soon(1), 0, ENOUGH)
        finally:
            signal.signal(number, before)

    assert [] == taken


def test_no_more_is_watched_than_there_is_room_for() -> None:
    """It is an error to ask for more threads or times."""
    one = (0, 0, 0, False)
    for threads, dues in (([one] * 65, []), ([], [0] * 65)):
        with pytest.raises(ValueError, match="too much to watch"):
            _ticks.watch(threads, dues, 0, 0)


@pytest.mark.parametrize("threads", [[()], [(1, 2, 3)], [("a", 0, 0, False)]])
def test_what_is_no_thread_is_refused(threads: list[tuple[int, int, int, bool]]) -> None:
    """As any wrong argument."""
    with pytest.raises(TypeError):
        _ticks.watch(threads, [], 0, 0)


@pytest.mark.parametrize(("due", "error"), [("a", TypeError), (1 << 70, OverflowError)])
def test_what_is_no_time_is_refused(due: int, error: type[Exception]) -> None:
    """As any wrong argument."""
    with pytest.raises(error):
        _ticks.watch([], [due], 0, 0)


def test_there_is_room_to_watch_after_a_thousand_watches() -> None:
    """None leaves anything behind, whatever came of it."""
    with parked() as one:
        seen = [look(one) for _ in range(500)]
        one.know()
        seen += [look(one) for _ in range(500)]

    assert 1000 == len(seen)
    assert [] == _ticks.drain()


def test_what_is_written_down_has_an_end() -> None:
    """Sixty-four threads, as deep as can be: the watch ends while there is room for one more sample."""

    def descend(depth: int) -> None:
        if depth:
            descend(depth - 1)
        else:
            over.wait()

    over = threading.Event()
    taken = []
    with watched(lambda: descend(300)) as one:
        try:
            until_still([one.thread])
            one.know()
            one.clock = MONOTONIC_COARSE  # goes on between two samples, hardly within one
            for _ in range(10):  # on a busy machine it may end before, the next one being due
                dues = soon(50, 100, 150, 200, 250, 300)
                taken.append(len(_ticks.watch([one.at()] * 64, dues, 0, ENOUGH)))
                if taken[-1] > 2:
                    break
        finally:
            over.set()
            one.thread.join()

    assert 3 == max(taken)
