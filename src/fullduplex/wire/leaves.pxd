# cython: language_level=3
# The leaves in C; `leaves.py` says what each does.

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    /* What a bytearray can hold, its last zero included: what was deleted at its beginning still counts as held. */
    static inline Py_ssize_t fullduplex_capacity(PyObject *out)
    {
        PyByteArrayObject *array = (PyByteArrayObject *) out;
        return array->ob_alloc - (array->ob_start - array->ob_bytes);
    }
    #define fullduplex_set_size(out, size) Py_SET_SIZE((PyVarObject *) (out), size)

    /* Not by a resize to 0: that has malloc cut the memory down to one byte, and keeps it. Since CPython 3.15 it does not,
       and the memory is not the bytearray's own, but that of a bytes object. */
    static inline int fullduplex_empty(PyObject *out)
    {
        PyByteArrayObject *array = (PyByteArrayObject *) out;
        if (PY_VERSION_HEX >= 0x030F0000 || array->ob_exports)
            return PyByteArray_Resize(out, 0); /* BufferError, as for any change while it is looked into */
        PyObject_Free(array->ob_bytes);
        array->ob_bytes = array->ob_start = NULL;
        array->ob_alloc = 0;
        Py_SET_SIZE((PyVarObject *) array, 0);
        return 0;
    }
    """
    int empty "fullduplex_empty"(bytearray) except -1
    Py_ssize_t capacity "fullduplex_capacity"(bytearray)
    void set_size "fullduplex_set_size"(bytearray, Py_ssize_t)

ctypedef unsigned char byte

cdef enum:
    SMALLEST = 511  # bytes; up to 512, its last zero included, Python keeps them in pools of its own


cdef extern from *:
    """
    /* Messages that a listener has not kept are memory for the next ones of the same size: malloc is slow with many of 1 KiB
       or more. None is used again before its list is gone, too, so nobody sees it change. In all they are as much as the
       largest read brings. Each module has its own ones, so that `spare` and `payload` go together; the GIL guards them. */
    enum { SPARE_LEAST = 1024, SPARE_MOST = 131072 }; /* bytes: of one, of all */
    static PyObject *fullduplex_spares[SPARE_MOST / SPARE_LEAST];
    static Py_ssize_t fullduplex_spare_count, fullduplex_spare_size;

    static inline PyObject *fullduplex_bytes(Py_ssize_t size)
    {
        if (size >= SPARE_LEAST && fullduplex_spare_count) {
            PyObject *spare = fullduplex_spares[--fullduplex_spare_count];
            fullduplex_spare_size -= Py_SIZE(spare);
            if (Py_SIZE(spare) == size && Py_REFCNT(spare) == 1) {
    #ifdef __GNUC__
    #pragma GCC diagnostic push
    #pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* which is meant for readers */
    #endif
                ((PyBytesObject *) spare)->ob_shash = -1; /* of what it was */
    #ifdef __GNUC__
    #pragma GCC diagnostic pop
    #endif
                return spare;
            }
            Py_DECREF(spare); /* sizes have changed, or somebody sees it */
        }
        return PyBytes_FromStringAndSize(NULL, size);
    }

    static inline void fullduplex_spare(PyObject *messages)
    {
        Py_ssize_t count = PyList_GET_SIZE(messages);
    #ifdef Py_GIL_DISABLED
        count = 0; /* a count of references says less there */
    #endif
        for (Py_ssize_t i = 0; i < count; i++) {
            PyObject *message = PyList_GET_ITEM(messages, i);
            if (PyBytes_CheckExact(message) && Py_REFCNT(message) == 1 && Py_SIZE(message) >= SPARE_LEAST
                && Py_SIZE(message) <= SPARE_MOST - fullduplex_spare_size) {
                fullduplex_spares[fullduplex_spare_count++] = Py_NewRef(message);
                fullduplex_spare_size += Py_SIZE(message);
            }
        }
    }
    """
    bytes bytes_of "fullduplex_bytes"(Py_ssize_t size)
    void spare "fullduplex_spare"(list messages)


cdef extern from *:
    """
    /* Where the loader can choose (glibc), the mask's loop is there twice: for all processors, and for newer ones. */
    #if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__)
    __attribute__((target_clones("avx2", "default")))
    #endif
    static void fullduplex_xor(unsigned char *out, const unsigned char *data, Py_ssize_t words, unsigned long long keys)
    {
        for (Py_ssize_t i = 0; i < words; i++) { /* nothing is aligned, so by memcpy: compilers make vectors of it */
            unsigned long long word;
            memcpy(&word, data + 8 * i, 8);
            word ^= keys;
            memcpy(out + 8 * i, &word, 8);
        }
    }
    """
    void xor_words "fullduplex_xor"(byte* out, const byte* data, Py_ssize_t words, uint64_t keys) nogil


cdef inline void xor(byte* out, const byte* data, Py_ssize_t size, const byte* key) noexcept nogil:
    cdef uint32_t half
    cdef Py_ssize_t i = size & ~7
    memcpy(&half, key, 4)
    xor_words(out, data, size >> 3, <uint64_t> half << 32 | half)
    while i < size:
        out[i] = data[i] ^ key[i & 3]
        i += 1


cdef inline bytes mask(object data, object key):
    cdef Py_buffer view
    cdef bytes result
    if len(key) != 4:
        raise ValueError("a mask key has four bytes")
    cdef bytes four = bytes(key)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        result = PyBytes_FromStringAndSize(NULL, view.len)
        xor(<byte*> PyBytes_AS_STRING(result), <const byte*> view.buf, view.len, <const byte*> PyBytes_AS_STRING(four))
    finally:
        PyBuffer_Release(&view)
    return result


cdef inline byte* find(bytearray data, Py_ssize_t start, Py_ssize_t stop, bint masked) except NULL:
    if not (4 if masked else 0) <= start <= stop <= PyByteArray_GET_SIZE(data):
        raise IndexError("no such payload")
    return <byte*> PyByteArray_AS_STRING(data) + start


cdef inline long long long_length(bytearray data, Py_ssize_t at) except? -1:
    cdef const byte* source = find(data, at, at + 8, False)
    cdef uint64_t length = 0
    cdef int i
    for i in range(8):
        length = length << 8 | source[i]
    return <long long> length if 65_535 < length and not length >> 63 else -1


cdef inline bytes payload(bytearray data, Py_ssize_t start, Py_ssize_t stop, bint masked):
    cdef byte* source = find(data, start, stop, masked)
    cdef bytes result = bytes_of(stop - start)
    if masked:
        xor(<byte*> PyBytes_AS_STRING(result), source, stop - start, source - 4)
    else:
        memcpy(PyBytes_AS_STRING(result), source, stop - start)
    return result


cdef inline object extend(bytearray message, bytearray data, Py_ssize_t start, Py_ssize_t stop, bytes key):
    cdef byte* source = find(data, start, stop, False)
    cdef Py_ssize_t at = PyByteArray_GET_SIZE(message)
    if message is data or PyBytes_GET_SIZE(key) not in (0, 4):
        raise ValueError("a message of its own, and a mask key of four bytes or none")
    PyByteArray_Resize(message, at + stop - start)
    if PyBytes_GET_SIZE(key):
        xor(<byte*> PyByteArray_AS_STRING(message) + at, source, stop - start, <const byte*> PyBytes_AS_STRING(key))
    else:
        memcpy(PyByteArray_AS_STRING(message) + at, source, stop - start)


cdef inline str text(bytearray data, Py_ssize_t start, Py_ssize_t stop, bint masked):
    cdef byte* source = find(data, start, stop, masked)
    if masked:
        xor(source, source, stop - start, source - 4)
    return PyUnicode_DecodeUTF8(<char*> source, stop - start, NULL)


cdef inline byte* append(bytearray out, Py_ssize_t size) except NULL:
    # Where `size` more bytes are to be written. Room is made for more than one frame: `out` is emptied soon.
    cdef Py_ssize_t before = PyByteArray_GET_SIZE(out)
    cdef Py_ssize_t after = before + size
    if after >= capacity(out):
        PyByteArray_Resize(out, max(after, 2 * before, SMALLEST))
    set_size(out, after)
    cdef byte* at = <byte*> PyByteArray_AS_STRING(out) + before
    at[size] = 0  # as all bytearrays end
    return at


cdef inline byte* begin(bytearray out, int first, Py_ssize_t size, Py_ssize_t more, byte bit) except NULL:
    # Append the head of a frame, and room for `more` bytes behind it: where these stand.
    cdef int head = 2 if size < 126 else 4 if size < 65536 else 10
    cdef int i
    if not 0 <= first <= 255:
        raise ValueError("byte must be in range(0, 256)")
    cdef byte* to = append(out, head + more)
    to[0] = <byte> first
    if head == 2:
        to[1] = bit | <byte> size
    elif head == 4:
        to[1] = bit | 126
        to[2] = <byte> (size >> 8)
        to[3] = <byte> (size & 255)
    else:
        to[1] = bit | 127
        for i in range(8):
            to[2 + i] = <byte> ((<uint64_t> size >> (56 - 8 * i)) & 255)
    return to + head


cdef inline object append_head(bytearray out, int first, Py_ssize_t size):
    begin(out, first, size, 0, 0)


cdef inline int put(bytearray out, int first, const char* data, Py_ssize_t size, const byte* key) except -1:
    cdef byte* to
    if key == NULL:
        to = begin(out, first, size, size, 0)
        memcpy(to, data, size)
    else:
        to = begin(out, first, size, 4 + size, 0x80)
        memcpy(to, key, 4)
        xor(to + 4, <const byte*> data, size, key)
    return 0


cdef inline object append_frame(bytearray out, int first, object payload, bytes key):
    cdef Py_buffer view
    cdef const byte* keys = NULL
    if key is not None:
        if PyBytes_GET_SIZE(key) != 4:
            raise ValueError("a mask key has four bytes")
        keys = <const byte*> PyBytes_AS_STRING(key)
    if PyBytes_CheckExact(payload):
        put(out, first, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), keys)
        return None
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        put(out, first, <const char*> view.buf, view.len, keys)
    finally:
        PyBuffer_Release(&view)
    return None
