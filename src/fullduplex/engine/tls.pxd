cimport cython

from . cimport calls
from .engine cimport Engine

cdef int BUFFER, PORTION

cdef class TLS:
    cdef public object sock, incoming, outgoing, ssl_object, _openssl
    cdef public int fd
    cdef public bytearray sealed
    cdef public bint more, wants_read, wants_write
    cdef public Py_ssize_t _taken
    cdef public bint _over
    cdef public object _error

    @cython.locals(data=bytes)
    cpdef bint shake(self) except -1
    @cython.locals(data=bytes, size=Py_ssize_t, count=Py_ssize_t, opened=Py_ssize_t)
    cpdef Py_ssize_t read(self, Engine engine, Py_ssize_t most) except -2
    @cython.locals(done=Py_ssize_t, whole=bint)
    cpdef Py_ssize_t write(self, bytearray data) except -2
    @cython.locals(sealed=bytearray, data=bytes, sent=Py_ssize_t)
    cpdef bint flush(self) except -1
    cpdef end(self)
