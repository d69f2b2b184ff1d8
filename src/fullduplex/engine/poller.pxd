cdef class Watcher:
    cpdef serve(self, int fd, int events)
