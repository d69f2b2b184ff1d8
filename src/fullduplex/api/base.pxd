from ..engine.link cimport Link, Owner
from ..wire.session cimport Session

cdef class BaseConnection(Owner):
    cdef public object settings, _request, _response, subprotocol, backlog, _id, _remote_address
    cdef public Session session
    cdef public Link link
    cdef public bint finished

    cpdef bint lags(self) except -1
    cpdef hear(self)
