cimport cython

from ..engine.link cimport Link
from ..wire.session cimport Session
from .base cimport BaseConnection

cdef int GATHER
cdef object OPEN

@cython.locals(
    connection=BaseConnection, session=Session, link=Link, plain=bytes, full=list, errors=list, encoded=dict,
    names_policy=bint
)
cdef list _tell(connections, int first, bytes payload, policy, key)
