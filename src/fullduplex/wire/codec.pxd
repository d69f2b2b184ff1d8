from . cimport leaves

# What is imported, as C knows it.
cdef int BINARY, CLOSE, CONT, FIN, LENGTH, MASK, MAX_CONTROL, OPCODE, PONG, RSV

cdef class MaskKeys:
    cdef public bytes _page
    cdef public Py_ssize_t _at
    cpdef bytes next(self)

cpdef int head_size(int second) except -1
cpdef object head_length(bytes head)
cpdef str broken_rule(int first, int second, bint server, bint continues, int rsv=*)
cpdef bytes mask(data, key)
cpdef bytes payload(bytearray data, Py_ssize_t start, Py_ssize_t stop, bint masked)
cpdef extend(bytearray message, bytearray data, Py_ssize_t start, Py_ssize_t stop, bytes key)
cpdef str text(bytearray data, Py_ssize_t start, Py_ssize_t stop, bint masked)
cpdef append_frame(bytearray out, int first, payload, bytes key)
cpdef append_head(bytearray out, int first, Py_ssize_t size)
cpdef long long long_length(bytearray data, Py_ssize_t at) except? -1
cpdef empty(bytearray out)
