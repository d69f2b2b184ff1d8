cimport cython

from ..engine.link cimport Link
from ..wire.session cimport Session
from .awaitables cimport Receive, Waiter
from .base cimport BaseConnection

cdef class Connection(BaseConnection):
    cdef object __weakref__
    cdef public object loop, listener, _stream, _pongs, _drain_waiters, _turn_waiters, _closed_waiters, _context
    cdef public Receive _iterate
    cdef public Waiter _waiter

    cpdef Waiter wait(self)
    @cython.locals(session=Session)
    cpdef resume_reading(self)
    @cython.locals(session=Session, link=Link)
    cpdef received(self)
    @cython.locals(session=Session)
    cdef _check_queue(self)
    cpdef bint is_behind(self)
    cpdef conclude(self)
    @cython.locals(session=Session, inbox=list)
    cpdef _hear(self)
