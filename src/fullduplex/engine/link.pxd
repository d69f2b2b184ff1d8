cimport cython

from ..wire cimport leaves
from . cimport calls
from .engine cimport Engine
from ..wire.session cimport Session

cdef object CLOSED, CLOSING, CONNECTING

cdef class Owner:
    cpdef ready(self)
    cpdef receive_opening(self, bytes data)
    cpdef received(self)
    cpdef bint is_behind(self)
    cpdef noticed(self)
    cpdef drained(self)
    cpdef opening_expired(self)
    cpdef ended(self, error)

cdef class Link:
    cdef public object sock
    cdef public Owner owner
    cdef public Engine engine
    cdef public Session session
    cdef public bytearray unsent
    cdef public int fd, _direct, ending
    cdef public long long slot
    cdef public double open_deadline, slow_since
    cdef public bint tls, connecting, established, reading, resting, wants_read, wants_write, corked, dirty, draining
    cdef public long long slow_size, low_water

    @cython.locals(engine=Engine, session=Session, size=Py_ssize_t)
    cpdef readable(self)
    @cython.locals(engine=Engine, session=Session)
    cdef _serve(self, Py_ssize_t size)
    cdef _half_ended(self)
    cpdef open(self, extension=*)
    @cython.locals(session=Session)
    cpdef feed(self, bytes data)
    @cython.locals(session=Session)
    cpdef attend(self)
    cpdef pause_reading(self)
    cpdef resume_reading(self)
    @cython.locals(session=Session)
    cdef _set_paused(self)
    cdef _watch(self)
    cpdef int events(self)
    cpdef connects(self)
    cpdef touch(self)
    @cython.locals(session=Session, out=bytearray, sent=Py_ssize_t, waited=Py_ssize_t)
    cpdef flush(self)
    @cython.locals(out=bytearray, sent=Py_ssize_t, head=Py_ssize_t)
    cpdef flush_with(self, payload)
    @cython.locals(unsent=bytearray, sent=Py_ssize_t)
    cpdef writable(self)
    cpdef bint is_closed(self)
    cpdef Py_ssize_t buffered(self)
    cpdef bint is_blocked(self)
    cdef _check_drained(self)
    cdef _check_slow(self)
    cdef _establish(self)
    cdef Py_ssize_t _read_some(self) except -2
    cdef Py_ssize_t _read_tls(self, view) except -2
    cdef Py_ssize_t _write_tls(self, bytearray data) except -2
    cpdef double deadline(self)
    @cython.locals(session=Session)
    cpdef expire(self, double now)
    cdef _cut_off(self, double now)
    cpdef finish(self, double deadline)
    cpdef abort(self, who, detail, error=*)
    cdef _end(self)
    cdef bint _has_unread(self) except -1
    cdef _shut_tls(self)
    cdef _lost(self, error)
    cdef _ended(self, who, detail)
    cdef _close(self, error)
