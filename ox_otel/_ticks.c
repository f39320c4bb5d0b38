/* Ticks of CPU time: what must be C of the engine `ticks`.

   Each thread that is armed has a POSIX timer on its own CPU clock. When the thread has used so
   much CPU, the kernel interrupts it, wherever it is, and runs `on_tick` on it. That copies the
   thread's own stack into a cell; `drain` hands the full cells to Python. Threads that wait get no
   signal: between two batches `watch` looks at them from without, see there.

   The kernel looks at these timers only when its own clock beats, each 1 to 10 ms, and only at those
   of the thread that runs then. Where it sees that the time has come is no fair place: what runs
   but for a moment is mostly over before the next beat, and its time is seen to be up in whatever
   runs long enough to meet one. So a tick is due at this beat, and taken at the next one that the
   thread meets, which is as likely to be in one nanosecond of its CPU as in any other.

   Why the handler may do that:

   - It reads nothing of the interpreter's by itself. It has the kernel copy it: process_vm_readv(2)
     on this very process fails on a wrong address, where a plain load would crash. What comes back is
     believed only when it has been checked: pointers for alignment, code objects and strings for
     their type, lengths for their bounds. A stack of which anything fails is torn: it is counted,
     never guessed.
   - It runs on the thread that owns the stack, so nobody changes the frames meanwhile; frames own
     their code objects. What it may interrupt is the interpreter half-way through entering or
     leaving a function, which is what the checks are for.
   - It keeps no pointer. A code object is written down either as the address of one that Python
     told us it holds (`know`), or by its text. `forget` begins a new generation, and cells of an
     older one are void, so that no address outlives the reference that backs it.
   - It allocates nothing, takes no lock, waits for nobody and leaves errno alone. What it needs is
     claimed by compare-and-swap; where none is free the tick is lost, which the thread's clock will
     show. It sets its timer anew, which POSIX allows a handler to do; had that ended meanwhile, it
     fails.
   - The signal is SIGURG, because what it does by default is nothing. A tick that comes late, or
     after somebody has reset all handlers, is lost, where SIGPROF would end the process.

   Layouts are those of the headers that this file is compiled with; Python compares what `walk`
   reads with what the interpreter says of a known stack before it arms anything. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PY_SSIZE_T_CLEAN
#define Py_BUILD_CORE_MODULE 1 /* for the layout of frames: nothing internal is called */
#include <Python.h>

#if defined(Py_GIL_DISABLED) || PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x03100000
#error "not a CPython that was tested: 3.11 to 3.15, with the GIL"
#endif
#ifndef __LP64__
#error "not a system that was tested: with words of 64 bits"
#endif
#if PY_VERSION_HEX >= 0x030E0000
#include "internal/pycore_interpframe_structs.h"
#else
#include "internal/pycore_frame.h"
#endif

#include "_state.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define SIGNAL SIGURG
#define PAGE 4096 /* or a part of one: memory is there or not by whole pages */
#define DEPTH 256 /* frames of a stack, at most */
#define STEPS (2 * DEPTH + 2) /* with an entry of C for each; more is a circle */
#define STRANGERS 16 /* code objects of one stack that Python does not hold, at most */
#define TEXT 4096 /* bytes for their names */
#define CELLS 512 /* ticks between two drains; only those in use take any memory */
#define READERS 256 /* stacks that are read at a time: at a beat, one on each core */
#define WINDOWS 6 /* parts of memory that one reader keeps a copy of */
#define THREADS 4096 /* armed at a time */
#define WATCHED 64 /* threads that are watched at a time, and samples that are taken, at most */
#define NOTES (1 << 16) /* words that a watch writes down, at most */
#define KNOWN (1 << 14) /* places for known code objects, a power of two */

/* What differs between versions: where the topmost frame is, and what a frame says of its code. */

#if PY_VERSION_HEX < 0x030D0000
#define TOP_OF_STATE offsetof(PyThreadState, cframe) /* of which it is the current_frame */
#define CODE_OF(frame) ((uintptr_t)(frame)->f_code)
#define NEXT_OF(frame) ((uintptr_t)(frame)->prev_instr)
#else
#define TOP_OF_STATE offsetof(PyThreadState, current_frame)
#if PY_VERSION_HEX < 0x030E0000
#define CODE_OF(frame) ((uintptr_t)(frame)->f_executable)
#else
#define CODE_OF(frame) ((frame)->f_executable.bits & ~(uintptr_t)3) /* the low bits are tags */
#endif
#define NEXT_OF(frame) ((uintptr_t)(frame)->instr_ptr)
#endif
#define LAST_OWNER 4
#define FIRST_OWNER_IN_C 3 /* from here on: entries of C into the interpreter, no function's */

/* What differs between machines: the instruction that calls the system. */

#if defined(__x86_64__)
#define CALL "\x0F\x05"
#define NEXT_INSTRUCTION(context) (context)->uc_mcontext.gregs[REG_RIP]
#elif defined(__aarch64__)
#define CALL "\x01\x00\x00\xD4"
#define NEXT_INSTRUCTION(context) (context)->uc_mcontext.pc
#else
#error "not a machine that was tested"
#endif

typedef struct _PyInterpreterFrame Frame;
#define FRAME_SIZE offsetof(Frame, localsplus)

#define ID_OF_STATE offsetof(PyThreadState, thread_id)
#define STATE_FROM (TOP_OF_STATE < ID_OF_STATE ? TOP_OF_STATE : ID_OF_STATE)
#define STATE_TO ((TOP_OF_STATE < ID_OF_STATE ? ID_OF_STATE : TOP_OF_STATE) + sizeof(uintptr_t))

/* A code object that Python does not hold, as the handler saw it. */
typedef struct {
    uintptr_t address;
    int line;
    struct text {
        uint32_t at, length; /* in bytes of `text`, in characters */
        int kind; /* bytes a character */
    } name, file;
} Stranger;

/* One tick. A cell belongs to whoever has made its state BUSY: a handler, then the drain. */
typedef struct {
    int handle; /* of the thread */
    int weight; /* the periods that it stands for: more than one where it comes late */
    unsigned generation;
    int depth; /* frames, -1: the stack was torn */
    int strangers;
    uint32_t used; /* bytes of `text` */
    uintptr_t codes[DEPTH]; /* leaf first: an address, or the number of a stranger below it */
    Stranger stranger[STRANGERS];
    char text[TEXT];
} Cell;

enum { FREE, BUSY, FULL };

/* What it takes to read one stack into a cell; it belongs to whoever has made its state BUSY. */
typedef struct {
    Cell *cell;
    char state[STATE_TO - STATE_FROM];
    int windows;
    union {
        struct window {
            uintptr_t from, to;
            int is_used;
            _Alignas(16) char bytes[PAGE + FRAME_SIZE];
        } window[WINDOWS];
        struct {
            PyCodeObject code[STRANGERS];
            PyASCIIObject string[2 * STRANGERS];
        } head;
    };
    struct iovec from[2 * STRANGERS], to[2 * STRANGERS];
    int pieces;
} Reader;

/* Where the last stack of a thread was: the first byte of each window, and in the bits that this has
   not, how many the window has beyond a page. A hint, from one stack to the next, and no more. */
typedef struct {
    _Atomic uintptr_t window[WINDOWS];
} Whereabouts;

/* One armed thread. Its number and its epoch are the handle, so that a late tick of the one that
   had the place before is told from its own. */
typedef struct {
    _Atomic uintptr_t state; /* the PyThreadState, 0: nobody is armed here */
    _Atomic unsigned epoch;
    unsigned long thread; /* its ident */
    _Atomic int timer; /* the kernel's number of it */
    long long period;
    /* its handler's own: the CPU that it will have used when a tick is due, and whether that is */
    long long next;
    int is_due;
    Whereabouts whereabouts;
} Place;

static Cell cells[CELLS];
static _Atomic int states[CELLS]; /* apart, so that to look through them touches no cell */
static Reader readers[READERS];
static _Atomic int reader_states[READERS];
static Place places[THREADS];
static _Atomic uintptr_t known[KNOWN]; /* open addressing; 0 is an empty place */
static unsigned known_count;
static _Atomic unsigned generation;
static _Atomic long long spent; /* nanoseconds of CPU, by handlers */
static pid_t own_pid;
static long long beat; /* nanoseconds from one beat of the kernel's clock to the next, never 0 */

/* Reading */

/* Return how many bytes of the pieces were read, in their order. */
static size_t read_pieces(Reader *reader) {
    int pieces = reader->pieces;
    reader->pieces = 0;
    ssize_t size = process_vm_readv(own_pid, reader->to, pieces, reader->from, pieces, 0);
    return size < 0 ? 0 : (size_t)size;
}

static int copy_pieces(Reader *reader) {
    size_t wanted = 0;
    for (int i = 0; i < reader->pieces; i++) {
        wanted += reader->to[i].iov_len;
    }
    return read_pieces(reader) == wanted;
}

static void add_piece(Reader *reader, void *to, uintptr_t from, size_t size) {
    int i = reader->pieces++;
    reader->to[i] = (struct iovec){to, size};
    reader->from[i] = (struct iovec){(void *)from, size};
}

/* Neither the first nor the last pages are anybody's: sums of an address and a size do not wrap. */
static int is_pointer(uintptr_t address) {
    return address >= PAGE && address <= UINTPTR_MAX - 4 * PAGE && address % sizeof(void *) == 0;
}

/* Return the memory at an address. It is read together with all of its page, as most frames of a stack
   lie one above the other: a window is a page, and beyond it what is left of that which begins there. */
static const void *memory_at(Reader *reader, uintptr_t address, size_t size) {
    uintptr_t end = address + size, from = address & ~(uintptr_t)(PAGE - 1);
    if (!is_pointer(address)) {
        return NULL;
    }
    struct window *window = reader->window, *beyond = window + reader->windows;
    while (window < beyond && window->from != from) {
        window++;
    }
    if (window == beyond) {
        window = &reader->window[reader->windows < WINDOWS ? reader->windows++ : WINDOWS - 1];
        window->from = from;
        window->to = 0;
    }
    if (window->to < end) {
        window->to = end > from + PAGE ? end : from + PAGE;
        add_piece(reader, window->bytes, from, window->to - from);
        if (!copy_pieces(reader)) {
            return NULL;
        }
    }
    window->is_used = 1;
    return window->bytes + (address - window->from);
}

/* Read the state of a thread, and in the same call the windows through which its last stack was seen:
   mostly it is still there. */
static int read_state(Reader *reader, uintptr_t state, Whereabouts *whereabouts) {
    reader->windows = 0;
    add_piece(reader, reader->state, state + STATE_FROM, STATE_TO - STATE_FROM);
    for (int i = 0; i < WINDOWS; i++) {
        uintptr_t from = atomic_load_explicit(&whereabouts->window[i], memory_order_relaxed);
        if (!from) {
            break;
        }
        struct window *window = &reader->window[reader->windows++];
        window->from = from & ~(uintptr_t)(PAGE - 1);
        window->to = from + PAGE;
        window->is_used = 0;
        add_piece(reader, window->bytes, window->from, window->to - window->from);
    }
    size_t size = read_pieces(reader), wanted = STATE_TO - STATE_FROM;
    int is_there = size >= wanted;
    for (int i = 0; i < reader->windows; i++) {
        wanted += reader->window[i].to - reader->window[i].from;
        if (size < wanted) {
            reader->windows = i;
        }
    }
    return is_there;
}

/* Write down which windows were looked through. */
static void remember(const Reader *reader, Whereabouts *whereabouts) {
    int count = 0;
    for (int i = 0; i < reader->windows; i++) {
        const struct window *window = &reader->window[i];
        if (window->is_used) {
            atomic_store_explicit(&whereabouts->window[count++],
                                  window->to - PAGE, memory_order_relaxed);
        }
    }
    if (count < WINDOWS) {
        atomic_store_explicit(&whereabouts->window[count], 0, memory_order_relaxed);
    }
}

static int is_known(uintptr_t code) {
    for (uintptr_t i = code >> 4;; i++) {
        uintptr_t found = atomic_load_explicit(&known[i % KNOWN], memory_order_relaxed);
        if (found == code || !found) {
            return found == code;
        }
    }
}

/* Write down the frames of a thread, leaf first; code that is not known becomes a stranger, whose
   text is yet to be read. Return whether that went well. */
static int walk_frames(Reader *reader, uintptr_t state, unsigned long thread,
                       Whereabouts *whereabouts, uintptr_t *next_of) {
    Cell *cell = reader->cell;
    unsigned long thread_id;
    uintptr_t top;
    cell->depth = cell->strangers = reader->pieces = 0;
    if (!is_pointer(state) || !read_state(reader, state, whereabouts)) {
        return 0;
    }
    memcpy(&top, reader->state + (TOP_OF_STATE - STATE_FROM), sizeof top);
    memcpy(&thread_id, reader->state + (ID_OF_STATE - STATE_FROM), sizeof thread_id);
    if (thread_id != thread) {
        return 0; /* the state of a thread that has ended, and now somebody else's memory */
    }
#if PY_VERSION_HEX < 0x030D0000
    const _PyCFrame *in_c = memory_at(reader, top, sizeof *in_c);
    if (!in_c) {
        return 0;
    }
    top = (uintptr_t)in_c->current_frame;
#endif
    for (int left = STEPS; top && cell->depth < DEPTH; left--) {
        const Frame *frame = memory_at(reader, top, FRAME_SIZE);
        if (!left || !frame || (unsigned char)frame->owner > LAST_OWNER ||
            (uintptr_t)frame->previous == top) {
            return 0;
        }
        top = (uintptr_t)frame->previous;
        if ((unsigned char)frame->owner >= FIRST_OWNER_IN_C) {
            continue;
        }
        uintptr_t code = CODE_OF(frame);
        if (!is_pointer(code)) {
            return 0;
        }
        if (!is_known(code)) {
            int i = 0;
            while (i < cell->strangers && cell->stranger[i].address != code) {
                i++;
            }
            if (i == STRANGERS) {
                break; /* the callers beyond are seen when Python has got to know these */
            }
            if (i == cell->strangers) {
                cell->strangers++;
                cell->stranger[i].address = code;
                next_of[i] = 0;
            }
            if (next_of[i] < NEXT_OF(frame)) {
                next_of[i] = NEXT_OF(frame);
            }
            code = (uintptr_t)i;
        }
        cell->codes[cell->depth++] = code;
    }
    remember(reader, whereabouts);
    return 1;
}

/* Have the characters of a string read into `text`, if its head is one. */
static int add_text(Reader *reader, const PyASCIIObject *head, uintptr_t address,
                    struct text *text) {
    Cell *cell = reader->cell;
    if (Py_TYPE(&head->ob_base) != &PyUnicode_Type || !head->state.compact) {
        return 0;
    }
    cell->used = (cell->used + 3) & ~3u; /* for characters of up to four bytes */
    text->kind = head->state.kind;
    if ((text->kind != 1 && text->kind != 2 && text->kind != 4) ||
        (size_t)head->length > (TEXT - cell->used) / (size_t)text->kind) { /* or negative */
        return 0;
    }
    text->at = cell->used;
    text->length = (uint32_t)head->length;
    size_t size = (size_t)text->length * (size_t)text->kind;
    if (size) {
        size_t before = head->state.ascii ? sizeof(PyASCIIObject) : sizeof(PyCompactUnicodeObject);
        add_piece(reader, cell->text + text->at, address + before, size);
        cell->used += (uint32_t)size;
    }
    return 1;
}

/* Return whether characters of four bytes are ones: Python takes it that those of a string are. */
static int is_text(const Cell *cell, struct text text) {
    const Py_UCS4 *characters = (const Py_UCS4 *)(cell->text + text.at);
    for (uint32_t i = 0; text.kind == 4 && i < text.length; i++) {
        if (characters[i] > 0x10FFFF) {
            return 0;
        }
    }
    return 1;
}

/* Read the text of all strangers in three steps: code objects, heads of strings, characters. */
static int read_strangers(Reader *reader, const uintptr_t *next_of) {
    Cell *cell = reader->cell;
    PyCodeObject *code = reader->head.code;
    PyASCIIObject *string = reader->head.string;
    size_t code_size = offsetof(PyCodeObject, co_code_adaptive);
    int count = cell->strangers;
    cell->used = 0;
    for (int i = 0; i < count; i++) {
        add_piece(reader, &code[i], cell->stranger[i].address, code_size);
    }
    if (count && !copy_pieces(reader)) {
        return 0;
    }
    for (int i = 0; i < count; i++) {
        uintptr_t name = (uintptr_t)code[i].co_qualname, file = (uintptr_t)code[i].co_filename;
        if (Py_TYPE(&code[i].ob_base.ob_base) != &PyCode_Type || !is_pointer(name) ||
            !is_pointer(file)) {
            return 0;
        }
        /* where no frame of it has come to its first line, it is a shim of the interpreter's, or
           a function about to be entered: nothing that Python shows */
        uintptr_t begin = cell->stranger[i].address + code_size;
        size_t entry = (size_t)code[i]._co_firsttraceable * sizeof(_Py_CODEUNIT);
        cell->stranger[i].line = next_of[i] < begin + entry ? -1 : code[i].co_firstlineno;
        add_piece(reader, &string[2 * i], name, sizeof(PyASCIIObject));
        add_piece(reader, &string[2 * i + 1], file, sizeof(PyASCIIObject));
    }
    if (count && !copy_pieces(reader)) {
        return 0;
    }
    for (int i = 0; i < count; i++) {
        Stranger *stranger = &cell->stranger[i];
        uintptr_t name = (uintptr_t)code[i].co_qualname, file = (uintptr_t)code[i].co_filename;
        if (!add_text(reader, &string[2 * i], name, &stranger->name) ||
            !add_text(reader, &string[2 * i + 1], file, &stranger->file)) {
            return 0;
        }
    }
    if (reader->pieces && !copy_pieces(reader)) {
        return 0;
    }
    for (int i = 0; i < count; i++) {
        if (!is_text(cell, cell->stranger[i].name) || !is_text(cell, cell->stranger[i].file)) {
            return 0;
        }
    }
    return 1;
}

static void read_stack(Reader *reader, uintptr_t state, unsigned long thread,
                       Whereabouts *whereabouts) {
    uintptr_t next_of[STRANGERS]; /* the furthest instruction that any frame has come to */
    reader->cell->generation = atomic_load(&generation);
    if (!walk_frames(reader, state, thread, whereabouts, next_of) ||
        !read_strangers(reader, next_of)) {
        reader->cell->depth = -1;
    }
}

/* Return the number of the first that is in this state, which is BUSY from now on, or *count*. */
static int claim_from(_Atomic int *of, int state, int from, int count) {
    while (from < count) {
        int expected = state;
        if (atomic_compare_exchange_strong(&of[from], &expected, BUSY)) {
            break;
        }
        from++;
    }
    return from;
}

/* Return a reader with a cell to write to, NULL if either cannot be had. */
static Reader *begin_reading(void) {
    int number = claim_from(states, FREE, 0, CELLS);
    int reader = number < CELLS ? claim_from(reader_states, FREE, 0, READERS) : READERS;
    if (reader < READERS) {
        readers[reader].cell = &cells[number];
        return &readers[reader];
    }
    if (number < CELLS) {
        atomic_store(&states[number], FREE);
    }
    return NULL;
}

/* Give a reader back; its cell is FREE, too, or FULL. */
static void end_reading(Reader *reader, int state) {
    Cell *cell = reader->cell;
    atomic_store(&reader_states[reader - readers], FREE);
    atomic_store(&states[cell - cells], state);
}

/* The handler */

static long long nanoseconds_of(struct timespec time) {
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static long long thread_time(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return nanoseconds_of(now);
}

static struct timespec as_time(long long nanoseconds) {
    return (struct timespec){nanoseconds / 1000000000, nanoseconds % 1000000000};
}

/* Return whether a signal comes at the end of a system call, within which it could not. */
static int ends_call(const ucontext_t *context) {
    char before[sizeof CALL - 1];
    struct iovec to = {before, sizeof before};
    struct iovec from = {(char *)NEXT_INSTRUCTION(context) - sizeof before, sizeof before};
    return process_vm_readv(own_pid, &to, 1, &from, 1, 0) == sizeof before &&
           memcmp(before, CALL, sizeof before) == 0;
}

/* Have the signal come when the thread has used so much CPU, and at each beat from then on.
   The library's own call may read what another thread has freed: it once kept timers in memory. */
static int set_timer(int timer, long long nanoseconds) {
    struct itimerspec times = {.it_value = as_time(nanoseconds), .it_interval = {.tv_nsec = 1}};
    return (int)syscall(SYS_timer_settime, timer, 0, &times, NULL);
}

/* Have the next tick come in time; return for how many periods of CPU one stands that comes now. */
static int next_period(Place *place, long long used) {
    long long late = used - place->next;
    int periods = late > 0 ? 1 + (int)(late / place->period) : 1;
    place->next += periods * place->period;
    return periods;
}

static void on_tick(int signal, siginfo_t *info, void *context) {
    int saved = errno;
    long long began = thread_time();
    int handle = info->si_value.sival_int;
    Place *place = &places[handle & (THREADS - 1)];
    /* before it is known to be this thread's: what is set below may be gone, but is nobody else's */
    int timer = atomic_load(&place->timer);
    uintptr_t state = atomic_load(&place->state);
    /* SIGURG can come from elsewhere too, and is nothing to us then */
    if (info->si_code == SI_TIMER && state &&
        (unsigned)handle / THREADS == atomic_load(&place->epoch)) {
        if (place->next > began + place->period) {
            place->next = began; /* written by a late tick of the thread that had the place before */
        }
        /* A system call may have held the signal up, and met the next beat too: for sure where it
           went on for two beats, for one and a part with a chance of that part. */
        long long late = began - place->next, held = beat + began % beat;
        /* which makes a difference only where it decides if there is a tick, or how many */
        int may_matter = !place->is_due || late >= place->period;
        int is_held = may_matter && late > held && ends_call(context);
        if (!place->is_due && !is_held) {
            place->is_due = 1;
        } else {
            int weight = next_period(place, is_held ? began - held : began);
            place->is_due = place->next <= began;
            set_timer(timer, place->is_due ? 1 : place->next - began);
            Reader *reader = begin_reading();
            if (reader) {
                reader->cell->handle = handle;
                reader->cell->weight = weight;
                read_stack(reader, state, (unsigned long)pthread_self(), &place->whereabouts);
                end_reading(reader, FULL);
            }
        }
    }
    atomic_fetch_add(&spent, thread_time() - began);
    errno = saved;
    (void)signal;
}

/* What Python calls, always with the GIL. */

PyDoc_STRVAR(taken_doc, "taken() -> int\n\n"
"Return the signal that somebody else has a handler for, 0 if there is none: the one of the ticks,\n"
"or SIGPROF, which means that another profiler is at work.");

static int is_ours(void) {
    struct sigaction found;
    return sigaction(SIGNAL, NULL, &found) == 0 && (found.sa_flags & SA_SIGINFO) &&
           found.sa_sigaction == on_tick;
}

static int is_free(int signal) {
    struct sigaction found;
    return sigaction(signal, NULL, &found) == 0 &&
           (found.sa_handler == SIG_DFL || found.sa_handler == SIG_IGN);
}

static int taken_by_others(int ours) {
    return !is_free(SIGPROF) ? SIGPROF : ours || is_free(SIGNAL) ? 0 : SIGNAL;
}

static PyObject *taken(PyObject *module, PyObject *unused) {
    return PyLong_FromLong(taken_by_others(is_ours()));
}

PyDoc_STRVAR(claim_doc, "claim() -> int\n\n"
"Take the signal of the ticks, unless `taken` returns another one, as this does then.");

static PyObject *claim(PyObject *module, PyObject *unused) {
    /* in one with the question: a host's thread could take the signal in between two calls. One in C
       could even so: what is ours already is not taken again. */
    int ours = is_ours(), other = taken_by_others(ours);
    own_pid = getpid();
    if (!other && !ours) {
        struct sigaction action = {.sa_sigaction = on_tick};
        action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
        sigfillset(&action.sa_mask); /* no other handler on top of ours */
        sigaction(SIGNAL, &action, NULL);
    }
    return PyLong_FromLong(other);
}

PyDoc_STRVAR(release_doc, "release() -> None\n\n"
"Give the signal back; ticks that come late do nothing.");

static PyObject *release(PyObject *module, PyObject *unused) {
    if (is_ours()) {
        struct sigaction action = {.sa_handler = SIG_DFL};
        sigaction(SIGNAL, &action, NULL);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(may_read_doc, "may_read() -> bool\n\n"
"Return whether process_vm_readv(2) is allowed.");

static int fails_to_read(void) {
    int from = 1, to = 0;
    struct iovec local = {&to, sizeof to}, remote = {&from, sizeof from};
    return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) != sizeof to || to != from;
}

static int fails_in_child(void *unused) {
    (void)unused;
    prctl(PR_SET_DUMPABLE, 0); /* or, killed, it might leave a core file of the host's memory */
    return fails_to_read();
}

static PyObject *may_read(PyObject *module, PyObject *unused) {
    /* A filter of system calls may not only refuse but kill: then let it be a child. Its end is told
       to nobody but us. It has a copy of our memory: before Linux 5.16 a signal that dumps core, as
       a filter's does, kills all processes that share memory with the one that it was meant for. */
    static _Alignas(16) char stack[16384];
    if (prctl(PR_GET_SECCOMP) != 0) {
        int status;
        pid_t child = clone(fails_in_child, stack + sizeof stack, 0, NULL);
        if (child < 0 || waitpid(child, &status, __WCLONE) != child || status != 0) {
            Py_RETURN_FALSE;
        }
    }
    return PyBool_FromLong(!fails_to_read());
}

PyDoc_STRVAR(arm_doc, "arm(ident, native_id, first, period) -> int\n\n"
"Tick on that thread after *first* and then every *period* nanoseconds of its CPU; return a\n"
"handle.\n\n"
"Raises:\n"
"    LookupError: there is no such thread.\n"
"    OSError: the kernel has no timer, or no such thread.\n");

static PyObject *arm(PyObject *module, PyObject *args) {
    unsigned long ident;
    int native_id;
    long long first, period;
    if (!PyArg_ParseTuple(args, "kiLL", &ident, &native_id, &first, &period)) {
        return NULL;
    }
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_LookupError, "threads of subinterpreters cannot tick");
        return NULL;
    }
    PyThreadState *state = state_of(PyInterpreterState_Main(), ident);
    int number = 0;
    while (number < THREADS && atomic_load(&places[number].state)) {
        number++;
    }
    if (!state || number == THREADS) {
        PyErr_SetString(PyExc_LookupError, state ? "too many threads" : "no such thread");
        return NULL;
    }
    Place *place = &places[number];
    unsigned epoch = (atomic_load(&place->epoch) + 1) % (1u << 18);
    int handle = (int)(epoch * THREADS) + number;
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGNAL};
    event.sigev_value.sival_int = handle;
    event.sigev_notify_thread_id = native_id;
    /* the kernel's number for the clock of one thread, see clock_getres(2) */
    clockid_t clock = (clockid_t)(~(unsigned)native_id << 3 | 6);
    struct timespec used;
    int timer;
    if (clock_gettime(clock, &used) != 0 || syscall(SYS_timer_create, clock, &event, &timer) != 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    place->thread = ident;
    place->period = period;
    place->next = nanoseconds_of(used) + first;
    place->is_due = 0;
    atomic_store(&place->timer, timer);
    atomic_store(&place->epoch, epoch);
    atomic_store(&place->state, (uintptr_t)state);
    if (set_timer(timer, first) != 0) {
        int saved = errno;
        atomic_store(&place->state, 0);
        syscall(SYS_timer_delete, timer);
        errno = saved;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromLong(handle);
}

/* Return the place of the thread that a handle is for, NULL if it is armed no more. */
static Place *place_of(long handle) {
    Place *place = &places[handle & (THREADS - 1)];
    int is_its = atomic_load(&place->state) && (unsigned long)handle / THREADS == place->epoch;
    return is_its ? place : NULL;
}

PyDoc_STRVAR(disarm_doc, "disarm(handle) -> None\n\n"
"End the ticks of a thread, dead or alive.");

static PyObject *disarm(PyObject *module, PyObject *arg) {
    Place *place = place_of(PyLong_AsLong(arg)); /* an error is a number of nobody's */
    if (place) {
        atomic_store(&place->state, 0);
        syscall(SYS_timer_delete, atomic_load(&place->timer));
    }
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(know_doc, "know(addresses) -> None\n\n"
"Take it that the code objects at these addresses are kept alive until `forget` is called.");

static PyObject *know(PyObject *module, PyObject *arg) {
    PyObject *addresses = PySequence_Fast(arg, "a list of addresses is needed");
    if (!addresses) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(addresses); i++) {
        uintptr_t code = (uintptr_t)PyLong_AsVoidPtr(PySequence_Fast_GET_ITEM(addresses, i));
        if (PyErr_Occurred()) {
            break;
        }
        /* half full at the most, so that the handler does not search for long; the rest are strangers */
        if (code && known_count < KNOWN / 2 && !is_known(code)) {
            uintptr_t place = code >> 4;
            while (atomic_load_explicit(&known[place % KNOWN], memory_order_relaxed)) {
                place++;
            }
            atomic_store_explicit(&known[place % KNOWN], code, memory_order_relaxed);
            known_count++;
        }
    }
    Py_DECREF(addresses);
    if (PyErr_Occurred()) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(forget_doc, "forget() -> None\n\n"
"Know no code object any more; only then may they be let go of.");

static void forget_all(void) {
    for (int i = 0; i < KNOWN; i++) {
        atomic_store_explicit(&known[i], 0, memory_order_relaxed);
    }
    known_count = 0;
    /* last: a tick that comes meanwhile still finds some of them, and must be of the old one */
    atomic_fetch_add(&generation, 1);
}

static PyObject *forget(PyObject *module, PyObject *unused) {
    forget_all();
    Py_RETURN_NONE;
}

static PyObject *text_of(const Cell *cell, struct text text) {
    return PyUnicode_FromKindAndData(text.kind, cell->text + text.at, text.length);
}

/* Return the stack in a cell as `drain` describes it. */
static PyObject *stack_of(const Cell *cell) {
    PyObject *strangers[STRANGERS] = {NULL};
    if (cell->depth < 0 || cell->generation != atomic_load(&generation)) {
        Py_RETURN_NONE;
    }
    PyObject *stack = NULL, *list = PyList_New(0);
    for (int i = 0; list && i < cell->depth; i++) {
        uintptr_t code = cell->codes[i];
        PyObject *item;
        if (code >= STRANGERS) {
            item = PyLong_FromVoidPtr((void *)code);
        } else {
            const Stranger *stranger = &cell->stranger[code];
            if (stranger->line < 0) {
                continue;
            }
            if (!strangers[code]) {
                strangers[code] = Py_BuildValue(
                    "NNNi", PyLong_FromVoidPtr((void *)stranger->address),
                    text_of(cell, stranger->name), text_of(cell, stranger->file), stranger->line);
            }
            item = Py_XNewRef(strangers[code]);
        }
        if (!item || PyList_Append(list, item) != 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    for (int i = 0; i < STRANGERS; i++) {
        Py_XDECREF(strangers[i]);
    }
    if (list) {
        stack = PyList_AsTuple(list);
        Py_DECREF(list);
    }
    return stack;
}

/* Return the stack in a cell as bytes where all its code objects are known: most are, and a string
   of bytes is found again in a dictionary far sooner than so many numbers are made and compared. */
static PyObject *packed_stack_of(const Cell *cell) {
    if (cell->depth < 0 || cell->strangers || cell->generation != atomic_load(&generation)) {
        return stack_of(cell);
    }
    Py_ssize_t size = cell->depth * (Py_ssize_t)sizeof cell->codes[0];
    return PyBytes_FromStringAndSize((const char *)cell->codes, size);
}

PyDoc_STRVAR(drain_doc, "drain() -> list[tuple[int, int, bytes | tuple | None]]\n\n"
"Return the ticks since the last drain: the thread's handle, how many ticks it stands for, and\n"
"the stack, leaf first, None where it was torn. Where all code objects of a stack are known it is\n"
"their addresses, side by side as in memory; else a tuple, in which a frame is the address of its\n"
"code object where that is known, or a tuple: address, qualified name, file and first line.");

static PyObject *drain(PyObject *module, PyObject *unused) {
    PyObject *ticks = PyList_New(0);
    for (int i = 0; ticks && (i = claim_from(states, FULL, i, CELLS)) < CELLS; i++) {
        PyObject *tick =
            Py_BuildValue("iiN", cells[i].handle, cells[i].weight, packed_stack_of(&cells[i]));
        atomic_store(&states[i], FREE);
        if (!tick || PyList_Append(ticks, tick) != 0) {
            Py_CLEAR(ticks);
        }
        Py_XDECREF(tick);
    }
    return ticks;
}

PyDoc_STRVAR(cost_doc, "cost() -> int\n\n"
"Return the nanoseconds of CPU that ticks have taken from their threads since the last call.");

static PyObject *cost(PyObject *module, PyObject *unused) {
    return PyLong_FromLongLong(atomic_exchange(&spent, 0));
}

PyDoc_STRVAR(walk_doc, "walk(ident=None, address=None) -> tuple | None\n\n"
"Return what a tick would see of the calling thread, or of whatever lies at *address* if that is\n"
"the state of the thread *ident*.");

static PyObject *walk(PyObject *module, PyObject *args) {
    unsigned long ident = PyThread_get_thread_ident();
    unsigned long long address = (uintptr_t)PyThreadState_Get();
    if (!PyArg_ParseTuple(args, "|kK", &ident, &address)) {
        return NULL;
    }
    own_pid = getpid();
    Whereabouts whereabouts = {{0}};
    Reader *reader = begin_reading();
    if (!reader) {
        Py_RETURN_NONE;
    }
    read_stack(reader, (uintptr_t)address, ident, &whereabouts);
    PyObject *stack = stack_of(reader->cell);
    end_reading(reader, FREE);
    return stack;
}

/* Watching: where do threads wait? Whoever needs the GIL in order to look finds each thread where
   it lets go of that. So here they are looked at without it, while they may run: what has been read
   of a stack is believed only if the clock of its thread has stood still meanwhile, for then nobody
   has changed it. Of a thread that runs, ticks tell more than any look could. */

typedef struct {
    int handle;
    int clock;
    long long cpu; /* what its clock has been read to be */
    int is_seen; /* whether its stack has been, since that */
} Watched;

typedef struct {
    Watched thread[WATCHED];
    long long due[WATCHED];
    int threads, dues;
    long long explained; /* CPU that these threads have been seen to use, and that before */
    long long unnoticed; /* CPU beyond that which may be somebody else's */
    Reader *reader;
    size_t used; /* words of the notes */
} Watch;

enum { RUNNING = -1, UNSEEN = -2 }; /* instead of a depth */

static _Atomic int rung; /* whether somebody wants the watch to end: a futex */
static uintptr_t notes[NOTES];

static long long read_clock(clockid_t clock) {
    struct timespec now;
    return clock_gettime(clock, &now) == 0 ? nanoseconds_of(now) : -1;
}

static long long cpu_of_others(void) {
    return read_clock(CLOCK_PROCESS_CPUTIME_ID) - thread_time();
}

/* Return at that time on the monotonic clock, or, with 0, when somebody rings before. */
static int wait_until(long long due) {
    struct timespec at = as_time(due);
    while (!atomic_exchange(&rung, 0)) {
        if (syscall(SYS_futex, &rung, FUTEX_WAIT_BITSET_PRIVATE, 0, &at, NULL,
                    FUTEX_BITSET_MATCH_ANY) != 0 &&
            errno != EAGAIN && errno != EINTR) {
            return errno == ETIMEDOUT;
        }
    }
    return 0;
}

/* Read the clock of a thread; return whether it has gone on, or UNSEEN if there is none. The sum over
   all threads, which is as new from then on, is explained to be as much more. */
static int goes_on(Watch *watch, Watched *one) {
    long long cpu = read_clock(one->clock), before = one->cpu;
    if (cpu < 0) {
        return UNSEEN;
    }
    watch->explained += cpu - before;
    one->cpu = cpu;
    return cpu != before;
}

/* Look at a thread whose clock has gone on; return the depth of its stack, which is in the cell. */
static int look_at(Watch *watch, Watched *one) {
    const Cell *cell = watch->reader->cell;
    Place *place = place_of(one->handle);
    uintptr_t next_of[STRANGERS];
    int is_whole = place && walk_frames(watch->reader, atomic_load(&place->state), place->thread,
                                        &place->whereabouts, next_of);
    int has_moved = goes_on(watch, one);
    if (has_moved) {
        return has_moved == 1 ? RUNNING : UNSEEN;
    }
    return is_whole && cell->depth && !cell->strangers ? cell->depth : UNSEEN;
}

/* Take one sample, and write it down; return whether the watch may go on. */
static int sample(Watch *watch) {
    uintptr_t *head = notes + watch->used;
    int looks = 0, is_complete = 1;
    watch->used += 4;
    head[0] = (uintptr_t)read_clock(CLOCK_MONOTONIC);
    for (int i = 0; i < watch->threads; i++) {
        Watched *one = &watch->thread[i];
        if (!goes_on(watch, one) && one->is_seen) {
            continue; /* it is where it was */
        }
        int depth = look_at(watch, one);
        one->is_seen = depth >= 0;
        if (depth == UNSEEN) {
            is_complete = 0;
            continue;
        }
        uintptr_t *look = notes + watch->used;
        look[0] = (uintptr_t)i;
        look[1] = (uintptr_t)one->cpu;
        look[2] = (uintptr_t)depth;
        watch->used += 3;
        if (depth > 0) {
            memcpy(look + 3, watch->reader->cell->codes, (size_t)depth * sizeof *look);
            watch->used += (size_t)depth;
        }
        looks++;
    }
    long long others = cpu_of_others();
    is_complete = is_complete && others - watch->explained < watch->unnoticed;
    head[1] = (uintptr_t)others;
    head[2] = (uintptr_t)is_complete;
    head[3] = (uintptr_t)looks;
    return is_complete && looks;
}

/* Take sample after sample, as long as that needs neither the GIL nor anything of Python's. */
static void watch_threads(Watch *watch) {
    for (int i = 0; i < watch->dues; i++) {
        int is_late = i && watch->due[i] <= read_clock(CLOCK_MONOTONIC);
        int is_half_full = atomic_load(&states[CELLS / 2]) == FULL; /* the first free one is taken */
        if (is_late || is_half_full || watch->used > NOTES - WATCHED * (DEPTH + 4) ||
            !wait_until(watch->due[i]) || taken_by_others(is_ours()) || !sample(watch)) {
            break;
        }
    }
}

static PyObject *look_of(const uintptr_t *look) {
    int depth = (int)look[2];
    Py_ssize_t size = depth * (Py_ssize_t)sizeof *look;
    PyObject *stack = depth == RUNNING
        ? Py_NewRef(Py_None)
        : PyBytes_FromStringAndSize((const char *)(look + 3), size);
    return Py_BuildValue("iLN", (int)look[0], (long long)look[1], stack);
}

static PyObject *samples_of(const Watch *watch) {
    PyObject *samples = PyList_New(0);
    const uintptr_t *next = notes;
    while (samples && next < notes + watch->used) {
        const uintptr_t *head = next;
        PyObject *looks = PyList_New(0);
        next += 4;
        for (uintptr_t i = 0; looks && i < head[3]; i++) {
            PyObject *look = look_of(next);
            if (!look || PyList_Append(looks, look) != 0) {
                Py_CLEAR(looks);
            }
            Py_XDECREF(look);
            next += 3 + ((int)next[2] > 0 ? next[2] : 0);
        }
        PyObject *sample = Py_BuildValue("LLNN", (long long)head[0], (long long)head[1],
                                         PyBool_FromLong((long)head[2]), looks);
        if (!sample || PyList_Append(samples, sample) != 0) {
            Py_CLEAR(samples);
        }
        Py_XDECREF(sample);
    }
    return samples;
}

PyDoc_STRVAR(watch_doc, "watch(threads, dues, explained, unnoticed) -> list\n\n"
"Take a sample of these threads, which are armed, at each of the times *dues* on the monotonic\n"
"clock, without the GIL. A thread is a tuple: its handle, its clock, what that has been read to be,\n"
"and whether the thread has been seen since. All times are nanoseconds.\n\n"
"Return a tuple for each sample: when it was taken; the CPU used by all other threads; whether it is\n"
"complete; and the looks at those threads that may have moved. A look is a tuple: which thread, what\n"
"its clock reads, and its stack as in `drain`, None if it runs. A sample is not complete where a\n"
"thread is left out that could not be looked at, or where more CPU has been used than these threads\n"
"explain, beside those *explained* before and *unnoticed* nanoseconds.\n\n"
"Returns before the last time is due when somebody rings or takes the signal, after a sample that\n"
"is not complete or in which nobody moved, when the next one is due already, and when there are many\n"
"ticks to drain.\n\n"
"Raises:\n"
"    ValueError: there are more than 64 threads, or times.");

static PyObject *watch(PyObject *module, PyObject *args) {
    PyObject *threads, *dues;
    Watch watch = {0};
    if (!PyArg_ParseTuple(args, "O!O!LL", &PyList_Type, &threads, &PyList_Type, &dues,
                          &watch.explained, &watch.unnoticed)) {
        return NULL;
    }
    if (PyList_GET_SIZE(threads) > WATCHED || PyList_GET_SIZE(dues) > WATCHED) {
        PyErr_SetString(PyExc_ValueError, "too much to watch");
        return NULL;
    }
    watch.threads = (int)PyList_GET_SIZE(threads);
    watch.dues = (int)PyList_GET_SIZE(dues);
    for (int i = 0; i < watch.threads; i++) {
        Watched *one = &watch.thread[i];
        if (!PyArg_ParseTuple(PyList_GET_ITEM(threads, i), "iiLp", &one->handle, &one->clock,
                              &one->cpu, &one->is_seen)) {
            return NULL;
        }
    }
    for (int i = 0; i < watch.dues; i++) {
        watch.due[i] = PyLong_AsLongLong(PyList_GET_ITEM(dues, i));
    }
    watch.reader = PyErr_Occurred() ? NULL : begin_reading();
    if (watch.reader) {
        Py_BEGIN_ALLOW_THREADS
        watch_threads(&watch);
        Py_END_ALLOW_THREADS
        end_reading(watch.reader, FREE);
    }
    return PyErr_Occurred() ? NULL : samples_of(&watch);
}

PyDoc_STRVAR(ring_doc, "ring() -> None\n\n"
"End the present watch, or the next one if nobody watches.");

static PyObject *ring(PyObject *module, PyObject *unused) {
    atomic_store(&rung, 1);
    syscall(SYS_futex, &rung, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(read_task_doc, "read_task(native_id, name) -> bytes\n\n"
"Return the first 16384 bytes of a file that the kernel has for a thread of this process in /proc.\n"
"Keeps the GIL: each time that Python lets go of it, a busy process gives it back after 5 ms.\n\n"
"Raises:\n"
"    OSError: there is no such thread or no such file.\n");

static PyObject *read_task(PyObject *module, PyObject *args) {
    int native_id;
    const char *name;
    char path[64], content[16384];
    if (!PyArg_ParseTuple(args, "is", &native_id, &name)) {
        return NULL;
    }
    PyOS_snprintf(path, sizeof path, "/proc/self/task/%d/%s", native_id, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = file < 0 ? -1 : read(file, content, sizeof content);
    if (size < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    if (file >= 0) {
        close(file);
    }
    return size < 0 ? NULL : PyBytes_FromStringAndSize(content, size);
}

/* A child has no timers, whatever this table says, and its timers to come would bear the same
   numbers; what was being written down in another thread is never finished. Nor does anybody hold
   the known code objects for us there. */
static void after_fork(void) {
    own_pid = getpid();
    atomic_store(&spent, 0);
    forget_all();
    for (int i = 0; i < THREADS; i++) {
        atomic_store(&places[i].state, 0);
    }
    for (int i = 0; i < CELLS; i++) {
        atomic_store(&states[i], FREE);
    }
    for (int i = 0; i < READERS; i++) {
        atomic_store(&reader_states[i], FREE);
    }
}

static PyMethodDef functions[] = {
    {"taken", taken, METH_NOARGS, taken_doc},
    {"claim", claim, METH_NOARGS, claim_doc},
    {"release", release, METH_NOARGS, release_doc},
    {"may_read", may_read, METH_NOARGS, may_read_doc},
    {"arm", arm, METH_VARARGS, arm_doc},
    {"disarm", disarm, METH_O, disarm_doc},
    {"know", know, METH_O, know_doc},
    {"forget", forget, METH_NOARGS, forget_doc},
    {"drain", drain, METH_NOARGS, drain_doc},
    {"watch", watch, METH_VARARGS, watch_doc},
    {"ring", ring, METH_NOARGS, ring_doc},
    {"cost", cost, METH_NOARGS, cost_doc},
    {"walk", walk, METH_VARARGS, walk_doc},
    {"read_task", read_task, METH_VARARGS, read_task_doc},
    {NULL, NULL, 0, NULL},
};

/* One a process, and in the main interpreter only, as its tables are. */
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "ox_otel._ticks",
    .m_doc = "Ticks of CPU time: timers on the clocks of threads, and their stacks.",
    .m_size = -1,
    .m_methods = functions,
};

/* Where what the handler reads stands in this version: tests forge memory by it. */
static PyObject *layout(void) {
    PyASCIIObject ascii = {.state = {.kind = 1, .compact = 1, .ascii = 1}};
    unsigned state;
    memcpy(&state, &ascii.state, sizeof state);
    return Py_BuildValue(
        "{snsnsnsnsnsnsnsnsnsnsnsnsnsnsnsnsI}", "thread_id", offsetof(PyThreadState, thread_id),
#if PY_VERSION_HEX < 0x030D0000
        "top", offsetof(PyThreadState, cframe), "top_in_c", offsetof(_PyCFrame, current_frame),
        "code", offsetof(Frame, f_code), "next", offsetof(Frame, prev_instr),
#else
        "top", offsetof(PyThreadState, current_frame), "top_in_c", (Py_ssize_t)-1,
        "code", offsetof(Frame, f_executable), "next", offsetof(Frame, instr_ptr),
#endif
        "previous", offsetof(Frame, previous), "owner", offsetof(Frame, owner), "type",
        offsetof(PyObject, ob_type), "name", offsetof(PyCodeObject, co_qualname), "file",
        offsetof(PyCodeObject, co_filename), "line", offsetof(PyCodeObject, co_firstlineno),
        "entry", offsetof(PyCodeObject, _co_firsttraceable), "instructions",
        offsetof(PyCodeObject, co_code_adaptive), "length", offsetof(PyASCIIObject, length),
        "state", offsetof(PyASCIIObject, state), "characters", sizeof(PyASCIIObject), "ascii",
        state);
}

PyMODINIT_FUNC PyInit__ticks(void) {
    struct timespec resolution = {0};
    clock_getres(CLOCK_MONOTONIC_COARSE, &resolution); /* that clock counts beats */
    beat = nanoseconds_of(resolution);
    if (beat <= 0) {
        beat = 10000000; /* where it cannot be had: the longest that there is */
    }
    PyObject *module = PyModule_Create(&definition);
    PyObject *places = module ? layout() : NULL;
    if (!places || PyModule_AddObjectRef(module, "LAYOUT", places) != 0) {
        Py_CLEAR(module);
    }
    Py_XDECREF(places);
    if (module && pthread_atfork(NULL, NULL, after_fork) != 0) {
        Py_CLEAR(module);
        PyErr_NoMemory();
    }
    return module;
}
