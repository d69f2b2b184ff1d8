cimport cython

from ..engine.link cimport Link
from ..wire.session cimport Session
from . cimport contexts, direct
from .awaitables cimport Step, Waiter
from .base cimport BaseConnection

# What is imported, as C knows it.
cdef int BINARY_FRAME, TEXT_FRAME, GATHER, FAIR
cdef object CLOSING, CONNECTING, OPEN, DONE

cdef class Receive(Step):
    cdef public Connection _connection
    cdef public bint _iterates

    @cython.locals(connection=Connection, session=Session)
    cpdef answer(self)

cdef class Connection(BaseConnection):
    cdef public object listener, _context
    cdef public Waiter _waiter
    cdef public Receive _iterate
    cdef public Py_ssize_t _unfair
    cdef public object _stream, _pongs, _drain_waiters, _turn_waiters, _closed_waiters
    cdef object __weakref__

    cpdef Waiter wait(self)
    @cython.locals(link=Link)
    cdef _press(self, Py_ssize_t size, bint may_wait)
    @cython.locals(session=Session)
    cpdef resume_reading(self)
    cpdef received(self)
    @cython.locals(session=Session, inbox=list)
    cpdef hear(self)
    @cython.locals(session=Session)
    cdef _check_queue(self)
    cpdef bint is_behind(self)
    cpdef conclude(self)
