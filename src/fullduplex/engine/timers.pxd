cdef class Wheel:
    cdef dict _slots
    cdef list _order

    cpdef add(self, timed)
    cpdef remove(self, timed)
    cpdef double next(self)
