# The same in C; `direct.py` says what it does.

from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF

from .awaitables cimport Step, Waiter

cdef extern from "Python.h":
    """
    typedef int (*fullduplex_sender)(PyObject *, PyObject *, PyObject **);

    static void fullduplex_set_sender(PyObject *kind, fullduplex_sender sender)
    {
        /* Not in place: it has these methods from Step, as others have them that are asked otherwise. */
        static PyAsyncMethods methods;
        PyTypeObject *type = (PyTypeObject *) kind;
        methods = *type->tp_as_async;
        methods.am_send = (sendfunc) sender;
        type->tp_as_async = &methods;
        PyType_Modified(type);
    }
    """
    int PYGEN_RETURN
    int PYGEN_NEXT
    ctypedef int (*Sender "fullduplex_sender")(PyObject*, PyObject*, PyObject**) except -1  # PYGEN_ERROR
    void set_sender "fullduplex_set_sender"(object kind, Sender sender)


cdef inline int tell(PyObject* step, PyObject* nothing, PyObject** result) except -1:
    result[0] = NULL  # of an error
    cdef object answer = (<Step> step).answer()
    Py_INCREF(answer)
    result[0] = <PyObject*> answer
    return PYGEN_NEXT if type(answer) is Waiter else PYGEN_RETURN


cdef inline object answer_directly(object kind):
    set_sender(kind, tell)
