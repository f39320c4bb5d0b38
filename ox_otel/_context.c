/* The context that is current on another thread: what `contextvars` shows of the calling one only.

   A thread's state points to it. Whoever changes that pointer has the GIL, and so have we. Threads of C
   may come and go without it, so the list of states is only read, and nothing of a state is kept.
   asyncio's tasks and greenlets each have a context of their own, which is current while they run. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_state.h"

#if defined(Py_GIL_DISABLED) || PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x03100000
#error "not a CPython that was tested: 3.11 to 3.15, with the GIL"
#endif

PyDoc_STRVAR(context_of_doc, "context_of(ident) -> Context | None\n\n"
"Return the context that is current on the thread *ident*, None where there is none.");

static PyObject *context_of(PyObject *module, PyObject *arg) {
    unsigned long ident = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) {
        return NULL;
    }
    PyThreadState *state = state_of(PyInterpreterState_Get(), ident);
    return Py_NewRef(state && state->context ? state->context : Py_None);
}

static PyMethodDef functions[] = {
    {"context_of", context_of, METH_O, context_of_doc},
    {NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "ox_otel._context",
    .m_doc = "The context that is current on another thread.",
    .m_size = 0,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__context(void) {
    return PyModuleDef_Init(&definition);
}
