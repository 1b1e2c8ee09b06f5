/* `_native.Windows`: windows in flight as Python objects. */
#include "native_module.h"

#include <stdlib.h>

typedef struct {
    PyObject_HEAD
    Model *owner;
    edgelstm_windows *windows;
    void *base;
    size_t size;
    npy_intp features, outputs;
    int busy, slow;
} Windows;

static PyObject *windows_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"model", "window", "hop", "partial", "streams", NULL};
    PyObject *model;
    Py_ssize_t window, hop, streams = 1;
    int partial;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!nnp|n", names, ModelType, &model, &window, &hop, &partial,
                                     &streams))
        return NULL;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Windows *self = (Windows *)alloc(type, 0);
    if (self == NULL) return NULL;
    Py_INCREF(model);
    self->owner = (Model *)model;
    const edgelstm_model *opened = &self->owner->model;
    self->features = (npy_intp)edgelstm_features(opened);
    self->outputs = (npy_intp)edgelstm_outputs(opened);
    if (window > 0 && hop > 0 && streams > 0)
        self->size = edgelstm_windows_size(opened, (size_t)streams, (size_t)window, (size_t)hop);
    if (self->size == 0) {
        Py_DECREF(self);
        return fail(EDGELSTM_RANGE);
    }
    self->slow = self->owner->size > LONG_STEP / ((size_t)((window - 1) / hop) + 1);
    void *memory = allocate(&self->base, self->size);
    if (memory == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    const int error = edgelstm_windows_init(opened, memory, self->size, (size_t)streams, (size_t)window, (size_t)hop,
                                            partial, &self->windows);
    if (error != EDGELSTM_OK) {
        Py_DECREF(self);
        return fail(error);
    }
    return (PyObject *)self;
}

static void windows_dealloc(Windows *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    Py_CLEAR(self->owner);
    free(self->base);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *windows_step(Windows *self, PyObject *const *args, Py_ssize_t count) {
    const float *x = count == 2 ? data_of(args[0], 1, 0, self->features, 0) : NULL;
    float *y = x == NULL ? NULL : data_of(args[1], 1, 0, self->outputs, 1);
    int error, due = 0;
    if (y == NULL) {
        PyErr_SetString(PyExc_TypeError, "step takes C-contiguous float32 arrays (features,) and (outputs,)");
        return NULL;
    }
    if (!enter(&self->busy)) return NULL;
    if (self->slow) {
        Py_BEGIN_ALLOW_THREADS
        error = edgelstm_windows_step(&self->owner->model, self->windows, x, y, &due);
        Py_END_ALLOW_THREADS
    } else {
        error = edgelstm_windows_step(&self->owner->model, self->windows, x, y, &due);
    }
    self->busy = 0;
    return error == EDGELSTM_OK ? PyBool_FromLong(due) : fail(error);
}

static PyObject *windows_run(Windows *self, PyObject *args) {
    PyObject *from, *to;
    if (!PyArg_ParseTuple(args, "OO", &from, &to)) return NULL;
    const float *xs = data_of(from, 2, -1, self->features, 0);
    float *ys = xs == NULL ? NULL : data_of(to, 2, -1, self->outputs, 1);
    size_t answers = 0;
    int error;
    if (ys == NULL) {
        PyErr_SetString(PyExc_TypeError, "run takes C-contiguous float32 arrays (T, features) and (n, outputs)");
        return NULL;
    }
    const size_t timesteps = (size_t)PyArray_DIM((PyArrayObject *)from, 0);
    const size_t room = (size_t)PyArray_DIM((PyArrayObject *)to, 0);
    if (!enter(&self->busy)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    error = edgelstm_windows_run(&self->owner->model, self->windows, xs, timesteps, ys, room, &answers);
    Py_END_ALLOW_THREADS
    self->busy = 0;
    return error == EDGELSTM_OK ? PyLong_FromSize_t(answers) : fail(error);
}

/* The data of a one-dimensional array of this type and length, or NULL (without an exception). */
static void *vector_of(PyObject *object, npy_intp length, int type, int writable) {
    if (!PyArray_Check(object)) return NULL;
    PyArrayObject *array = (PyArrayObject *)object;
    if (PyArray_NDIM(array) != 1 || PyArray_TYPE(array) != type || PyArray_DIM(array, 0) != length) return NULL;
    return (writable ? PyArray_ISCARRAY(array) : PyArray_ISCARRAY_RO(array)) ? PyArray_DATA(array) : NULL;
}

static PyObject *windows_fleet_step(Windows *self, PyObject *args) {
    PyObject *from, *to, *flags, *list;
    if (!PyArg_ParseTuple(args, "OOOO", &from, &to, &flags, &list)) return NULL;
    const float *xs = data_of(from, 2, -1, self->features, 0);
    const npy_intp count = xs == NULL ? 0 : PyArray_DIM((PyArrayObject *)from, 0);
    float *ys = xs == NULL ? NULL : data_of(to, 2, count, self->outputs, 1);
    unsigned char *due = ys == NULL ? NULL : (unsigned char *)vector_of(flags, count, NPY_BOOL, 1);
    if (due == NULL && ys != NULL) due = (unsigned char *)vector_of(flags, count, NPY_UINT8, 1);
    const size_t *streams = NULL;
    int error;
    if (due != NULL && list != Py_None) {
        streams = (const size_t *)vector_of(list, count, NPY_UINTP, 0);
        if (streams == NULL) due = NULL;
    }
    if (due == NULL) {
        PyErr_SetString(PyExc_TypeError, "fleet_step takes C-contiguous arrays: float32 (n, features) and (n, outputs), "
                                         "bool or uint8 (n,), and None or uintp (n,)");
        return NULL;
    }
    if (!enter(&self->busy)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    error = edgelstm_windows_fleet_step(&self->owner->model, self->windows, streams, (size_t)count, xs, ys, due);
    Py_END_ALLOW_THREADS
    self->busy = 0;
    if (error != EDGELSTM_OK) return fail(error);
    Py_RETURN_NONE;
}

static PyObject *windows_reset(Windows *self, PyObject *args) {
    Py_ssize_t stream = 0;
    if (!PyArg_ParseTuple(args, "|n", &stream) || !enter(&self->busy)) return NULL;
    const int error = edgelstm_windows_reset(&self->owner->model, self->windows, (size_t)stream);
    self->busy = 0;
    if (error != EDGELSTM_OK) return fail(error);
    Py_RETURN_NONE;
}

static PyObject *windows_seek(Windows *self, PyObject *args) {
    PyObject *number;
    Py_ssize_t stream = 0;
    if (!PyArg_ParseTuple(args, "O|n", &number, &stream)) return NULL;
    const unsigned long long steps = PyLong_AsUnsignedLongLong(number);
    if (PyErr_Occurred() || !enter(&self->busy)) return NULL;
    const int error = edgelstm_windows_seek(&self->owner->model, self->windows, (size_t)stream, steps);
    self->busy = 0;
    if (error != EDGELSTM_OK) return fail(error);
    Py_RETURN_NONE;
}

static PyObject *windows_steps(Windows *self, PyObject *args) {
    Py_ssize_t stream = 0;
    uint64_t steps = 0;
    if (!PyArg_ParseTuple(args, "|n", &stream) || !enter(&self->busy)) return NULL;
    const int error = edgelstm_windows_steps(&self->owner->model, self->windows, (size_t)stream, &steps);
    self->busy = 0;
    return error == EDGELSTM_OK ? PyLong_FromUnsignedLongLong(steps) : fail(error);
}

static PyObject *windows_answers(Windows *self, PyObject *args) {
    Py_ssize_t timesteps, stream = 0;
    size_t answers = 0;
    if (!PyArg_ParseTuple(args, "n|n", &timesteps, &stream)) return NULL;
    if (timesteps < 0) return fail(EDGELSTM_RANGE);
    if (!enter(&self->busy)) return NULL;
    const int error = edgelstm_windows_answers(&self->owner->model, self->windows, (size_t)stream, (size_t)timesteps,
                                               &answers);
    self->busy = 0;
    return error == EDGELSTM_OK ? PyLong_FromSize_t(answers) : fail(error);
}

static PyObject *windows_state_bytes(Windows *self, void *unused) {
    (void)unused;
    return PyLong_FromSize_t(self->size);
}

static PyMethodDef windows_methods[] = {
    {"step", (PyCFunction)(void (*)(void))windows_step, METH_FASTCALL,
     "step(x, y) -> bool: one timestep of stream 0, and whether y was written."},
    {"run", (PyCFunction)windows_run, METH_VARARGS,
     "run(xs, ys) -> int: timesteps of stream 0, and how many rows of ys were written."},
    {"fleet_step", (PyCFunction)windows_fleet_step, METH_VARARGS,
     "fleet_step(xs, ys, due, streams): one timestep of many, and which rows of ys were written."},
    {"reset", (PyCFunction)windows_reset, METH_VARARGS, "reset(stream=0)"},
    {"seek", (PyCFunction)windows_seek, METH_VARARGS,
     "seek(steps, stream=0): reset, as if so many timesteps had passed of whose inputs nothing is known."},
    {"steps", (PyCFunction)windows_steps, METH_VARARGS, "steps(stream=0) -> int: timesteps since the last reset."},
    {"answers", (PyCFunction)windows_answers, METH_VARARGS,
     "answers(timesteps, stream=0) -> int: how many the next so many timesteps give."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef windows_getset[] = {
    {"state_bytes", (getter)windows_state_bytes, NULL, "Bytes of memory of all streams together.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot windows_slots[] = {
    {Py_tp_doc, "Windows(model, window, hop, partial, streams=1): answers for the last `window` timesteps, every `hop`."},
    {Py_tp_new, (void *)windows_new},
    {Py_tp_dealloc, (void *)windows_dealloc},
    {Py_tp_methods, windows_methods},
    {Py_tp_getset, windows_getset},
    {0, NULL}};

PyType_Spec windows_spec = {"edgelstm.runtime._native.Windows", sizeof(Windows), 0, Py_TPFLAGS_DEFAULT, windows_slots};
