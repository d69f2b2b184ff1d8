# The same in C; `contexts.py` says what each does.

from .base cimport BaseConnection

cdef extern from "Python.h":
    int PyContext_Enter(object) except -1
    int PyContext_Exit(object) except -1


cdef inline object run(object context, object callback, object argument):
    PyContext_Enter(context)
    try:
        callback(argument)
    finally:
        PyContext_Exit(context)


cdef inline object hear(object context, BaseConnection connection):
    PyContext_Enter(context)
    try:
        connection.hear()
    finally:
        PyContext_Exit(context)
