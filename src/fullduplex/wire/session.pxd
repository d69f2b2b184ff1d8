cimport cython

from . cimport leaves
from .codec cimport MaskKeys
from .extensions cimport Extension
from .flags cimport flag
from .keepalive cimport Keepalive
from .receiver cimport Receiver

cdef object CLOSED, CLOSING, CONNECTING, OPEN

cdef class Session(Receiver):
    # First what each message needs.
    cdef public object state, pacer
    cdef public MaskKeys _mask_keys
    cdef public bytearray out
    cdef public int sending
    cdef public flag paused, blocked, attention
    cdef public int _controls, _idle_looks
    cdef public object limits, rcvd, sent, rcvd_then_sent, verdict, failure
    cdef public double close_timeout, resume_at, _controls_since, _verdict_at, _close_at, _rest_at, _idle_at
    cdef public bytes _pong
    cdef public str who, detail, limit
    cdef public list acknowledged
    cdef public Keepalive keepalive

    cpdef open(self, double now, extension=*)
    cpdef end(self, str who, str detail)
    cpdef error(self)
    cdef _move(self, event)
    cdef _receive_close(self, bytes payload)
    cpdef conclude(self, double now)
    cpdef hold(self, double now)
    cpdef _append(self, int first, payload)
    cdef _append_data(self, int first, payload)
    @cython.locals(keys=MaskKeys)
    cpdef send(self, int first, payload, compress=*)
    cpdef bint send_head(self, int first, Py_ssize_t size) except -1
    cpdef send_fragment(self, int opcode, payload, bint fin, compress=*)
    cpdef send_shared(self, int first, payload, bytes frame)
    cpdef bint say_shared(self, int first) except -1
    cpdef pace(self, double now)
    cdef list _match_pong(self, bytes payload)
    cdef bint _may_control(self) except -1
    cdef tuple _encode(self, Extension extension, int first, payload, compress)
    cdef _refusal(self)
    cpdef ping(self, data, double now)
    cpdef pong(self, bytes data)
    cdef _check_control(self, bytes data)
    cpdef close(self, code, str reason, double now)
    cdef _send_close(self, close, double now)
    cpdef unblock(self)
    cpdef double deadline(self)
    cpdef expire(self, double now)
    cdef _check_idle(self, double now)
