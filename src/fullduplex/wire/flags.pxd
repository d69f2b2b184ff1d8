# A truth that takes one byte of an object instead of four.

cdef extern from *:
    ctypedef bint flag "unsigned char"
