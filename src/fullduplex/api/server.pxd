from .connection cimport Connection

cdef class Opening:
    cdef public object reader, task
    cdef public bytes head, rest
    cdef public tuple agreed

cdef class ServerConnection(Connection):
    cdef public object server
    cdef public bytes place
    cdef public str _extensions
    cdef public Opening _opening

    cpdef ready(self)
    cpdef receive_opening(self, bytes data)
    cpdef opening_expired(self)
    cpdef ended(self, error)
