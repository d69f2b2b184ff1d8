cimport cython

from .extensions cimport Extension

cdef int FIN, OPCODE, RSV1
cdef bytes _END, _NOTHING

cdef class Deflate(Extension):
    cdef public object shared, _window
    cdef object _plan, _compressor, _inflater
    cdef bint _used, _compressing, _heard
    cdef int _final_blocks

    @cython.locals(data=bytes)
    cpdef encode(self, int first, payload, compress)
    @cython.locals(data=bytes)
    cpdef encode_shared(self, int first, payload)
    cdef bint _is_worth(self, payload, compress) except -1
    cdef _new_compressor(self)
    cpdef decode(self, data, bint complete, limit)
    @cython.locals(parts=list, part=bytes, most="long long", more=bint)
    cdef _inflate(self, data, bint complete, long long limit)
    cdef _pass_final_block(self)
    cdef _end_message(self)
    @cython.locals(size=Py_ssize_t, window=bytearray)
    cdef _remember(self, bytes part)
    cdef bytearray _unpacked_window(self)
    cdef _new_inflater(self)

cdef bytes _flushed(compressor, payload)
cdef bytes _without_tail(bytes data)
