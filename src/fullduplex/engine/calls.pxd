# The leaves in C; `calls.py` says what each does.

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Check, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AsStringAndSize, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_SetFromErrno
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memset

from .poller cimport Watcher

cdef extern from * nogil:
    """
    #ifdef __linux__
    #include <sys/epoll.h>
    #include <time.h>
    static double fullduplex_now(void)
    {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec + now.tv_nsec * 1e-9;
    }
    #else /* never called: no poller has a descriptor for us there */
    struct epoll_event { unsigned events; struct { int fd; } data; };
    #define epoll_wait(...) (-1)
    #define fullduplex_now() (0.0)
    #endif
    """
    ctypedef union Data "epoll_data_t":
        int fd
    struct Event "epoll_event":
        unsigned events
        Data data
    int epoll_wait(int fd, Event* events, int most, int timeout)
    double now "fullduplex_now"()

cdef extern from "<sys/socket.h>" nogil:
    ssize_t c_recv "recv"(int fd, void* buffer, size_t size, int flags)
    ctypedef struct Vector "struct iovec":
        void* iov_base
        size_t iov_len
    ctypedef struct Message "struct msghdr":
        Vector* msg_iov
        size_t msg_iovlen
    ssize_t c_sendmsg "sendmsg"(int fd, const Message* message, int flags)
    ssize_t c_send "send"(int fd, const void* data, size_t size, int flags)


cdef inline Py_ssize_t checked(Py_ssize_t count, Py_ssize_t nothing) except -2:
    """What the kernel has answered; `nothing` where it has to be asked again. Raises OSError."""
    if count >= 0:
        return count
    if errno != EAGAIN and errno != EINTR:
        PyErr_SetFromErrno(OSError)
    return nothing


cdef inline Py_ssize_t read(object sock, int fd, bytearray buffer, Py_ssize_t most) except -2:
    if fd < 0:
        try:
            return sock.recv_into(buffer, most)
        except (BlockingIOError, InterruptedError):
            return -1
    return checked(c_recv(fd, PyByteArray_AS_STRING(buffer), min(most, PyByteArray_GET_SIZE(buffer)), 0), -1)


cdef inline bytes read_bytes(object sock, int fd, Py_ssize_t most):
    cdef char buffer[32768]
    cdef Py_ssize_t count
    if fd < 0:
        try:
            return sock.recv(most)
        except (BlockingIOError, InterruptedError):
            return None
    count = checked(c_recv(fd, buffer, min(most, <Py_ssize_t> sizeof(buffer)), 0), -1)
    return None if count < 0 else PyBytes_FromStringAndSize(buffer, count)


cdef inline Py_ssize_t write(object sock, int fd, object data) except -2:
    cdef char* start
    cdef Py_ssize_t size
    if fd < 0:
        try:
            return sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
    if PyByteArray_Check(data):
        start, size = PyByteArray_AS_STRING(data), PyByteArray_GET_SIZE(data)
    else:
        PyBytes_AsStringAndSize(data, &start, &size)
    return checked(c_send(fd, start, size, 0), 0)


cdef inline Py_ssize_t write_both(object sock, int fd, bytearray data, object more) except -2:
    cdef Py_ssize_t count
    cdef Py_buffer view
    cdef Message message
    cdef Vector vectors[2]
    if fd < 0:
        if not hasattr(sock, "sendmsg"):
            return write(sock, fd, data)
        try:
            return sock.sendmsg((data, more))
        except (BlockingIOError, InterruptedError):
            return 0
    PyObject_GetBuffer(more, &view, PyBUF_SIMPLE)
    vectors[0].iov_base = PyByteArray_AS_STRING(data)
    vectors[0].iov_len = PyByteArray_GET_SIZE(data)
    vectors[1].iov_base = view.buf
    vectors[1].iov_len = view.len
    memset(&message, 0, sizeof(message))
    message.msg_iov = vectors
    message.msg_iovlen = 2
    count = c_sendmsg(fd, &message, 0)
    PyBuffer_Release(&view)
    return checked(count, 0)


cdef inline Py_ssize_t poll(object poller, int fd, int most, Watcher watcher) except -1:
    cdef Event events[512]
    cdef int count, i
    if fd < 0:
        ready = poller.poll(0, most)
        for descriptor, happened in ready:
            watcher.serve(descriptor, happened)
        return len(ready)
    count = epoll_wait(fd, events, min(most, 512), 0)
    if count < 0:
        if errno == EINTR:
            return 0
        PyErr_SetFromErrno(OSError)
    for i in range(count):
        watcher.serve(events[i].data.fd, events[i].events)
    return count
