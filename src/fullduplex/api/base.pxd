from ..engine.link cimport Link, Owner
from ..wire.session cimport Session

cdef class BaseConnection(Owner):
    cdef public object settings, _request, _response, subprotocol, _id, _remote_address
    cdef public bint finished
    # Last what each message needs, and first in `Connection`.
    cdef public object backlog
    cdef public Session session
    cdef public Link link

    cpdef bint lags(self) except -1
    cpdef hear(self)
