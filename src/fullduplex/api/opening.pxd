cdef class Opening:
    cdef public object reader, task
    cdef public bytes head, rest
    cdef public tuple agreed
