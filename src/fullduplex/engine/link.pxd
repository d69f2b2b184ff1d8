cimport cython

from ..wire cimport leaves
from . cimport calls
from .engine cimport Engine
from ..wire.flags cimport flag
from .tls cimport TLS
from ..wire.session cimport Session

cdef int BUFFER, SMALL
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
    # Together, in one cache line: what a broadcast looks at.
    cdef public object sock
    cdef public bytes shared
    cdef public int fd, _direct, ending
    cdef public flag followed, connecting, established, reading, resting, corked, dirty, draining
    cdef public TLS tls
    cdef public Engine engine
    cdef public Session session
    cdef public bytearray unsent
    cdef public Owner owner
    cdef public long long slot
    cdef public double open_deadline, slow_since
    cdef public long long slow_size, low_water

    @cython.locals(engine=Engine, session=Session, size=Py_ssize_t)
    cpdef readable(self)
    @cython.locals(engine=Engine, session=Session, tls=TLS)
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
    @cython.locals(tls=TLS)
    cpdef int events(self)
    cpdef connects(self)
    cpdef touch(self)
    @cython.locals(session=Session, out=bytearray, sent=Py_ssize_t, waited=Py_ssize_t)
    cpdef flush(self)
    @cython.locals(session=Session)
    cpdef send_shared(self, int first, payload, bytes frame)
    @cython.locals(shared=bytes, sent=Py_ssize_t)
    cpdef write_shared(self)
    @cython.locals(out=bytearray, sent=Py_ssize_t, head=Py_ssize_t)
    cpdef flush_with(self, payload)
    @cython.locals(tls=TLS, unsent=bytearray, sent=Py_ssize_t)
    cpdef writable(self)
    cpdef secure(self, context, hostname=*)
    cpdef bint is_closed(self)
    @cython.locals(session=Session, waiting=Py_ssize_t)
    cpdef Py_ssize_t buffered(self)
    cpdef bint is_blocked(self)
    cdef _check_drained(self)
    cdef _check_slow(self)
    @cython.locals(tls=TLS)
    cdef _establish(self)
    @cython.locals(engine=Engine, tls=TLS, most=Py_ssize_t, size=Py_ssize_t, wanted=bint)
    cdef Py_ssize_t _read_some(self) except -2
    @cython.locals(tls=TLS, sent=Py_ssize_t)
    cdef Py_ssize_t _write(self, bytearray data) except -2
    cpdef double deadline(self)
    @cython.locals(session=Session)
    cpdef expire(self, double now)
    cdef _cut_off(self, double now)
    cpdef finish(self, double deadline)
    cpdef abort(self, who, detail, error=*)
    cdef _end(self)
    cdef bint _has_unread(self) except -1
    cdef _lost(self, error)
    cdef _ended(self, who, detail)
    cdef _close(self, error)
