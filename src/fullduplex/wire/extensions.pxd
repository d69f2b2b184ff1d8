cdef class Extension:
    cpdef encode(self, int first, payload, compress)
    cpdef begin(self, int rsv)
    cpdef decode(self, data, bint complete, limit)
    cpdef encode_shared(self, int first, payload)
    cpdef pass_shared(self, int first)
    cpdef rest(self)
