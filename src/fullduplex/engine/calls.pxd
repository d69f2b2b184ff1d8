# The leaves in C; `calls.py` says what each does.

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR, errno

cdef extern from "<sys/socket.h>" nogil:
    ssize_t c_recv "recv"(int fd, void* buffer, size_t size, int flags)
    ssize_t c_send "send"(int fd, const void* data, size_t size, int flags)


cdef inline Py_ssize_t read(object sock, int fd, bytearray buffer) except -2:
    cdef Py_ssize_t count
    if fd < 0:
        try:
            return sock.recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            return -1
    count = c_recv(fd, PyByteArray_AS_STRING(buffer), PyByteArray_GET_SIZE(buffer), 0)
    if count < 0:
        if errno == EAGAIN or errno == EINTR:
            return -1
        PyErr_SetFromErrno(OSError)
    return count


cdef inline Py_ssize_t write(object sock, int fd, bytearray data) except -2:
    cdef Py_ssize_t count
    if fd < 0:
        try:
            return sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
    count = c_send(fd, PyByteArray_AS_STRING(data), PyByteArray_GET_SIZE(data), 0)
    if count < 0:
        if errno == EAGAIN or errno == EINTR:
            return 0
        PyErr_SetFromErrno(OSError)
    return count
