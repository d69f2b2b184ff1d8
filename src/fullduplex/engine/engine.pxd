cimport cython

from . cimport calls
from .link cimport Link
from .poller cimport Watcher

cdef int READ, WRITE, BUFFER, LOOK, SOLE, TOGETHER
cdef double SLICE

cdef class Acceptor:
    cdef public object engine, sock, accepted
    cdef public int fd
    cdef public long long slot
    cdef public double resume_at

cdef class Engine(Watcher):
    cdef object __weakref__
    cdef public object host, poller, wheel, view
    cdef public list links
    cdef public dict acceptors
    cdef public int _epoll
    cdef public Py_ssize_t _count
    cdef public Link _sole
    cdef public bint unasked, several
    cdef public Py_ssize_t most
    cdef public bytearray buffer
    cdef public double now, spell, _wake_at, _reply_by
    cdef public bint closed, _ticking, _asked
    cdef public set _unwatched, _again
    cdef public list _dirty, _graveyard, _knocking, _replies
    cdef public bytearray _told
    cdef public bint _telling
    cdef public Py_ssize_t _tell_next

    cpdef double time(self) except? -1
    @cython.locals(sole=Link, end=double, count=Py_ssize_t)
    cpdef tick(self)
    @cython.locals(link=Link)
    cpdef serve(self, int fd, int events)
    cdef _tidy(self)
    cdef _bury_all(self)
    cdef _accept_all(self)
    cpdef add(self, Link link)
    cpdef watch(self, Link link, int events)
    cpdef unwatch(self, Link link)
    cpdef forget(self, Link link)
    cpdef add_reply(self, Link link)
    cpdef add_dirty(self, Link link)
    cpdef add_told(self, Link link)
    cpdef serve_again(self, Link link)
    @cython.locals(link=Link)
    cdef _serve_again(self)
    @cython.locals(replies=list, link=Link)
    cdef _reply(self)
    cdef _flush_one(self, Link link)
    @cython.locals(dirty=list, link=Link, end=double, count=Py_ssize_t)
    cdef _flush(self)
    @cython.locals(told=bytearray, link=Link, fd=Py_ssize_t, end=double, count=int)
    cdef _tell(self)
    cdef _expire(self)
