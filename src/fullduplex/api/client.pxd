from .connection cimport Connection

cdef class ClientConnection(Connection):
    cdef public object when_open, _handshake, _reader, _opened
    cdef public bint _is_silent

    cpdef ready(self)
    cpdef receive_opening(self, bytes data)
    cpdef opening_expired(self)
    cpdef ended(self, error)
