from . cimport contexts

cdef class Step:
    cpdef answer(self)

cdef class Ready(Step):
    cdef public object _value

cdef class Failed(Step):
    cdef public object _error

cdef class Later(Step):
    cdef public object _args, _coroutine, _function

cdef class Waiter:
    cdef public bint _asyncio_future_blocking
    cdef public object _loop, _wakeup, _context, _message
    cdef public bint _cancelled

    cpdef wake(self)
    cpdef schedule(self)
