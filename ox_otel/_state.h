/* The state of a thread, which the interpreter keeps and hands to nobody by name. */

#ifndef OX_OTEL_STATE_H
#define OX_OTEL_STATE_H

#include <Python.h>

/* Return the state of the thread with this ident, NULL if it has none; needs the GIL.

   It is the oldest of those that bear the ident: until a new thread comes to run, 3.11 has that of its
   creator in its state. The list begins with the newest. */
static PyThreadState *state_of(PyInterpreterState *interpreter, unsigned long ident) {
    PyThreadState *found = NULL;
    PyThreadState *state = PyInterpreterState_ThreadHead(interpreter);
    for (; state; state = PyThreadState_Next(state)) {
        if (state->thread_id == ident) {
            found = state;
        }
    }
    return found;
}

#endif
