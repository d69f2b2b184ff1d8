cimport cython

from .link cimport Link

cdef class Acceptor:
    cdef public object engine, sock, accepted
    cdef public int fd
    cdef public long long slot
    cdef public double resume_at

cdef class Engine:
    cdef object __weakref__
    cdef public object host, poller, wheel, view
    cdef public dict links, acceptors
    cdef public bytearray buffer
    cdef public double now, _wake_at
    cdef public bint closed, _ticking, _asked
    cdef public set _unwatched, _again
    cdef public list _dirty, _graveyard

    cpdef double time(self)
    @cython.locals(links=dict, link=Link, events=int)
    cpdef tick(self)
    cdef _tidy(self)
    cpdef add(self, Link link)
    cpdef watch(self, Link link, int events)
    cpdef unwatch(self, Link link)
    cpdef forget(self, Link link)
    cpdef add_dirty(self, Link link)
    cpdef serve_again(self, Link link)
    @cython.locals(link=Link)
    cdef _serve_again(self)
    @cython.locals(link=Link)
    cdef _flush(self)
    cdef _expire(self)
