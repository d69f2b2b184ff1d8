cimport cython

from . cimport leaves
from .codec cimport broken_rule, head_length, head_size
from .extensions cimport Extension
from .flags cimport flag

cdef int BINARY_FRAME, CLOSE, CONT, FIN, MASK, MAX_FRAME_HEAD, MAX_QUEUE_SIZE, OPCODE, RSV, SMALL_FRAGMENT, TEXT, TEXT_FRAME

cdef class Fragment:
    cdef public object data
    cdef public flag fin

cdef class Receiver:
    # The flags; what only frames need that are not the usual one; then what all messages do, up to the session's part.
    cdef public flag server, _fin, _encoded, _sees_all, _skipping, streaming, deaf, active
    cdef public unsigned char _opcode, _message_opcode, _rsv
    cdef public long long max_size, max_fragments, _message_size, _fragments
    cdef public bytes _key, _control
    cdef public bytearray _message
    cdef public Py_ssize_t _valid
    cdef public long long max_frame, _remaining
    cdef public Extension extension
    cdef public object meter
    cdef public double received_at
    cdef public bytes _stash
    cdef public bytearray rest
    cdef public list inbox
    cdef public Py_ssize_t inbox_head, inbox_size, _decoded, completed

    cpdef _receive_control(self, int opcode, bytes payload)
    cpdef _fail(self, int code, str rule, kind=*, str limit=*, cause=*)
    cpdef _measure(self, Py_ssize_t size, Py_ssize_t messages)

    cpdef receive(self, bytearray data, Py_ssize_t size, double now)
    cpdef go_on(self)
    @cython.locals(at=Py_ssize_t, usual_ones=Py_ssize_t, bit=int, masked=bint, longest="long long", usual=bint,
                   total=Py_ssize_t, first=int, length=Py_ssize_t, start=Py_ssize_t, stop=Py_ssize_t)
    cdef _receive(self, bytearray data, Py_ssize_t size)
    cdef bint _expects_message(self)
    cdef Py_ssize_t _receive_frame(self, bytearray data, Py_ssize_t at, Py_ssize_t size) except -1
    @cython.locals(held=Py_ssize_t, head=bytes, rule=str, need=int, opcode=int)
    cdef Py_ssize_t _receive_head(self, bytearray data, Py_ssize_t at, Py_ssize_t size) except -1
    @cython.locals(opcode=int, extension=Extension)
    cdef bint _begin_data(self, int first, long long length) except -1
    @cython.locals(length=Py_ssize_t, key=bytes, complete=bint, is_plain=bint, piece=bytearray, message=bytearray)
    cdef Py_ssize_t _receive_payload(self, bytearray data, Py_ssize_t at, Py_ssize_t size) except -1
    @cython.locals(extension=Extension)
    cdef bytes _decode(self, piece, bint complete)
    cdef bint _is_utf8(self, bint complete) except -1
    @cython.locals(message=bytearray)
    cdef _deliver(self, bint complete)
    cdef _fail_decoded(self)
    cdef _fail_too_big(self, length)
    cpdef stream(self)
    cpdef skip(self)
    cpdef drop(self, Py_ssize_t kept)
    cdef list _untaken(self)
    cdef _keep(self, list messages)
    cpdef spare(self, list delivered)
    @cython.locals(inbox=list, head=Py_ssize_t)
    cpdef take(self)
    cpdef Py_ssize_t queued(self) except -1
