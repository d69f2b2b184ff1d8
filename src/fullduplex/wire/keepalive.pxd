cdef class Keepalive:
    cdef public double interval, timeout, latency, _own_at, _due, _next, _blocked_for
    cdef public dict _pings
    cdef public bytes _own

    cpdef start(self, double now)
    cpdef bytes ping(self, bytes data, double now)
    cpdef list pong(self, bytes data, double now)
    cpdef double deadline(self)
    cpdef bint is_silent(self, double now, double received_at, bint paused)
    cpdef str describe_silence(self, double now)
    cpdef bytes next_ping(self, double now, bint paused)
