/* The extension module `edgelstm.runtime._native`: the engine's models and states as Python objects.
 *
 * What is called a thousand times a second, State.step, takes the array as it is where that can be, and leaves every
 * other case, errors included, to a Python function that the state was given. */
#define IMPORTS_ARRAY
#include "native_module.h"

#include <stdlib.h>
#include <string.h>

PyObject *Error, *Misuse;
PyTypeObject *ModelType;
static PyTypeObject *StateType;

PyObject *fail(int error) {
    PyObject *arguments = Py_BuildValue("(si)", edgelstm_error_text(error), error);
    if (arguments != NULL) {
        PyErr_SetObject(Error, arguments);
        Py_DECREF(arguments);
    }
    return NULL;
}

void *allocate(void **base, size_t size) {
    *base = size > SIZE_MAX - EDGELSTM_ALIGNMENT ? NULL : malloc(size + EDGELSTM_ALIGNMENT);
    if (*base == NULL) return NULL;
    return (void *)(((uintptr_t)*base + EDGELSTM_ALIGNMENT - 1) / EDGELSTM_ALIGNMENT * EDGELSTM_ALIGNMENT);
}

/* ---- Model ---- */

static PyObject *model_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"content", "kernel", NULL};
    const char *content, *kernel = NULL;
    Py_ssize_t size;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y#|z", names, &content, &size, &kernel)) return NULL;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Model *self = (Model *)alloc(type, 0);
    if (self == NULL) return NULL;
    self->size = (size_t)size;
    void *copy = allocate(&self->base, (size_t)size);
    if (copy == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    memcpy(copy, content, (size_t)size);
    int error = edgelstm_open(&self->model, copy, (size_t)size);
    if (error == EDGELSTM_OK && kernel != NULL) error = edgelstm_use_kernel(&self->model, kernel);
    if (error != EDGELSTM_OK) {
        Py_DECREF(self);
        return fail(error);
    }
    return (PyObject *)self;
}

static void model_dealloc(Model *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    free(self->base);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *model_features(Model *self, void *unused) {
    (void)unused;
    return PyLong_FromSize_t(edgelstm_features(&self->model));
}

static PyObject *model_outputs(Model *self, void *unused) {
    (void)unused;
    return PyLong_FromSize_t(edgelstm_outputs(&self->model));
}

static PyObject *model_kernel(Model *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(edgelstm_kernel(&self->model));
}

static PyObject *model_snapshot_size(Model *self, void *unused) {
    (void)unused;
    return PyLong_FromSize_t(edgelstm_snapshot_size(&self->model));
}

static PyGetSetDef model_getset[] = {
    {"features", (getter)model_features, NULL, "Numbers that a timestep takes.", NULL},
    {"outputs", (getter)model_outputs, NULL, "Numbers that a timestep gives.", NULL},
    {"kernel", (getter)model_kernel, NULL, "Which instructions it runs on.", NULL},
    {"snapshot_size", (getter)model_snapshot_size, NULL, "Bytes of a stream's snapshot.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot model_slots[] = {
    {Py_tp_doc, "Model(content, kernel=None): an opened .elm file."},
    {Py_tp_new, (void *)model_new},
    {Py_tp_dealloc, (void *)model_dealloc},
    {Py_tp_getset, model_getset},
    {0, NULL}};

static PyType_Spec model_spec = {"edgelstm.runtime._native.Model", sizeof(Model), 0, Py_TPFLAGS_DEFAULT, model_slots};

/* ---- State ---- */

typedef struct {
    PyObject_HEAD
    Model *owner;
    edgelstm_state *state;
    void *base;
    size_t streams;
    unsigned long long steps;
    PyObject *otherwise; /* What to call where x or out is not as step wants them. */
    npy_intp features, outputs;
    int busy, slow;
} State;

static PyObject *state_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"model", "streams", "otherwise", NULL};
    PyObject *model, *otherwise = Py_None;
    Py_ssize_t streams = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|nO", names, ModelType, &model, &streams, &otherwise)) return NULL;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    State *self = (State *)alloc(type, 0);
    if (self == NULL) return NULL;
    Py_INCREF(model);
    Py_INCREF(otherwise);
    self->owner = (Model *)model;
    self->otherwise = otherwise;
    self->streams = streams < 0 ? 0 : (size_t)streams;
    const edgelstm_model *opened = &self->owner->model;
    self->features = (npy_intp)edgelstm_features(opened);
    self->outputs = (npy_intp)edgelstm_outputs(opened);
    self->slow = self->owner->size > LONG_STEP;
    const size_t size = edgelstm_state_size(opened, self->streams);
    void *memory = size ? allocate(&self->base, size) : NULL;
    if (memory == NULL && size) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    const int error = size ? edgelstm_init(opened, memory, size, self->streams, &self->state) : EDGELSTM_RANGE;
    if (error != EDGELSTM_OK) {
        Py_DECREF(self);
        return fail(error);
    }
    return (PyObject *)self;
}

static void state_dealloc(State *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    Py_CLEAR(self->otherwise);
    Py_CLEAR(self->owner);
    free(self->base);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

int enter(int *busy) {
    if (*busy) {
        PyErr_SetString(Misuse, "the stream or fleet is in use by another thread, or was when this process was forked; "
                                "give each thread and each process its own");
        return 0;
    }
    *busy = 1;
    return 1;
}

float *data_of(PyObject *object, int dimensions, npy_intp rows, npy_intp columns, int writable) {
    if (!PyArray_Check(object)) return NULL;
    PyArrayObject *array = (PyArrayObject *)object;
    if (PyArray_NDIM(array) != dimensions || PyArray_TYPE(array) != NPY_FLOAT32) return NULL;
    if (PyArray_DIM(array, dimensions - 1) != columns) return NULL;
    if (dimensions == 2 && rows >= 0 && PyArray_DIM(array, 0) != rows) return NULL;
    if (!(writable ? PyArray_ISCARRAY(array) : PyArray_ISCARRAY_RO(array))) return NULL;
    return (float *)PyArray_DATA(array);
}

static PyObject *call_otherwise(State *self, PyObject *x, PyObject *out) {
    if (self->otherwise == Py_None) return fail(EDGELSTM_NOT_FINITE);
    return PyObject_CallFunctionObjArgs(self->otherwise, (PyObject *)self, x, out == NULL ? Py_None : out, NULL);
}

static PyObject *state_step(State *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    PyObject *x, *out = count > 1 ? args[1] : NULL;
    const Py_ssize_t named = names == NULL ? 0 : PyTuple_Size(names);
    int error;
    if (count < 1 || count > 2 || named > 1 || (named == 1 && count == 2)) {
        PyErr_SetString(PyExc_TypeError, "step(x, out=None) takes one timestep and where to write the answer");
        return NULL;
    }
    if (named == 1) {
        if (PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, 0), "out") != 0) {
            PyErr_SetString(PyExc_TypeError, "step(x, out=None) has no other argument than out");
            return NULL;
        }
        out = args[count];
    }
    if (out == Py_None) out = NULL;
    x = args[0];
    /* A subclass of arrays may mean something else by its data, as a masked array does. */
    const float *from = PyArray_CheckExact(x) ? data_of(x, 1, 0, self->features, 0) : NULL;
    if (from == NULL) return call_otherwise(self, x, out);
    PyObject *answer = out;
    float *to;
    if (out == NULL) {
        answer = PyArray_SimpleNew(1, &self->outputs, NPY_FLOAT32);
        if (answer == NULL) return NULL;
        to = (float *)PyArray_DATA((PyArrayObject *)answer);
    } else {
        to = PyArray_CheckExact(out) ? data_of(out, 1, 0, self->outputs, 1) : NULL;
        if (to == NULL) return call_otherwise(self, x, out);
        Py_INCREF(answer);
    }
    if (!enter(&self->busy)) {
        Py_DECREF(answer);
        return NULL;
    }
    if (self->slow) {
        Py_BEGIN_ALLOW_THREADS
        error = edgelstm_step(&self->owner->model, self->state, from, to);
        Py_END_ALLOW_THREADS
    } else {
        error = edgelstm_step(&self->owner->model, self->state, from, to);
    }
    self->busy = 0;
    if (error != EDGELSTM_OK) {
        Py_DECREF(answer);
        return error == EDGELSTM_NOT_FINITE ? call_otherwise(self, x, out) : fail(error);
    }
    self->steps++;
    return answer;
}

static PyObject *state_run(State *self, PyObject *args) {
    PyObject *from, *to;
    if (!PyArg_ParseTuple(args, "OO", &from, &to)) return NULL;
    const float *xs = data_of(from, 2, -1, self->features, 0);
    const npy_intp timesteps = xs == NULL ? 0 : PyArray_DIM((PyArrayObject *)from, 0);
    float *ys = xs == NULL ? NULL : data_of(to, 2, timesteps, self->outputs, 1);
    int error;
    if (ys == NULL) {
        PyErr_SetString(PyExc_TypeError, "run takes C-contiguous float32 arrays (T, features) and (T, outputs)");
        return NULL;
    }
    if (!enter(&self->busy)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    error = edgelstm_run(&self->owner->model, self->state, xs, (size_t)timesteps, ys);
    Py_END_ALLOW_THREADS
    self->busy = 0;
    if (error != EDGELSTM_OK) return fail(error);
    self->steps += (unsigned long long)timesteps;
    Py_RETURN_NONE;
}

static PyObject *state_fleet_step(State *self, PyObject *args) {
    PyObject *from, *to, *list;
    if (!PyArg_ParseTuple(args, "OOO", &from, &to, &list)) return NULL;
    const float *xs = data_of(from, 2, -1, self->features, 0);
    const npy_intp count = xs == NULL ? 0 : PyArray_DIM((PyArrayObject *)from, 0);
    float *ys = xs == NULL ? NULL : data_of(to, 2, count, self->outputs, 1);
    const size_t *streams = NULL;
    int error;
    if (ys != NULL && list != Py_None) {
        PyArrayObject *array = (PyArrayObject *)list;
        if (!PyArray_Check(list) || PyArray_NDIM(array) != 1 || PyArray_DIM(array, 0) != count ||
            PyArray_TYPE(array) != NPY_UINTP || !PyArray_ISCARRAY_RO(array))
            ys = NULL;
        else
            streams = (const size_t *)PyArray_DATA(array);
    }
    if (ys == NULL) {
        PyErr_SetString(PyExc_TypeError, "fleet_step takes C-contiguous arrays: float32 (n, features) and (n, outputs), "
                                         "and None or uintp (n,)");
        return NULL;
    }
    if (!enter(&self->busy)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    error = edgelstm_fleet_step(&self->owner->model, self->state, streams, (size_t)count, xs, ys);
    Py_END_ALLOW_THREADS
    self->busy = 0;
    if (error != EDGELSTM_OK) return fail(error);
    Py_RETURN_NONE;
}

static PyObject *state_reset(State *self, PyObject *args) {
    Py_ssize_t stream = 0;
    if (!PyArg_ParseTuple(args, "|n", &stream) || !enter(&self->busy)) return NULL;
    const int error = stream < 0 ? EDGELSTM_RANGE : edgelstm_reset(&self->owner->model, self->state, (size_t)stream);
    self->busy = 0;
    if (error != EDGELSTM_OK) return fail(error);
    if (self->streams == 1) self->steps = 0;
    Py_RETURN_NONE;
}

static PyObject *state_snapshot(State *self, PyObject *args) {
    Py_ssize_t stream = 0;
    char *bytes;
    if (!PyArg_ParseTuple(args, "|n", &stream) || !enter(&self->busy)) return NULL;
    const size_t size = edgelstm_snapshot_size(&self->owner->model);
    PyObject *snapshot = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (snapshot == NULL) {
        self->busy = 0;
        return NULL;
    }
    bytes = PyBytes_AsString(snapshot);
    const int error =
        stream < 0 ? EDGELSTM_RANGE
                   : edgelstm_snapshot(&self->owner->model, self->state, (size_t)stream, bytes, size);
    self->busy = 0;
    if (error == EDGELSTM_OK) return snapshot;
    Py_DECREF(snapshot);
    return fail(error);
}

static PyObject *state_restore(State *self, PyObject *args) {
    const char *bytes;
    Py_ssize_t size, stream = 0;
    if (!PyArg_ParseTuple(args, "y#|n", &bytes, &size, &stream) || !enter(&self->busy)) return NULL;
    const int error =
        stream < 0 ? EDGELSTM_RANGE
                   : edgelstm_restore(&self->owner->model, self->state, (size_t)stream, bytes, (size_t)size);
    self->busy = 0;
    if (error != EDGELSTM_OK) return fail(error);
    Py_RETURN_NONE;
}

static PyObject *state_get_steps(State *self, void *unused) {
    (void)unused;
    return PyLong_FromUnsignedLongLong(self->steps);
}

static int state_set_steps(State *self, PyObject *value, void *unused) {
    (void)unused;
    const unsigned long long steps = value == NULL ? 0 : PyLong_AsUnsignedLongLong(value);
    if (PyErr_Occurred()) return -1;
    self->steps = steps;
    return 0;
}

static PyMethodDef state_methods[] = {
    {"step", (PyCFunction)(void (*)(void))state_step, METH_FASTCALL | METH_KEYWORDS,
     "step(x, out=None): one timestep of stream 0."},
    {"run", (PyCFunction)state_run, METH_VARARGS, "run(xs, ys): timesteps of stream 0."},
    {"fleet_step", (PyCFunction)state_fleet_step, METH_VARARGS, "fleet_step(xs, ys, streams): one timestep of many."},
    {"reset", (PyCFunction)state_reset, METH_VARARGS, "reset(stream=0)"},
    {"snapshot", (PyCFunction)state_snapshot, METH_VARARGS, "snapshot(stream=0) -> bytes"},
    {"restore", (PyCFunction)state_restore, METH_VARARGS, "restore(snapshot, stream=0)"},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef state_getset[] = {
    {"steps", (getter)state_get_steps, (setter)state_set_steps, "Timesteps of stream 0 since the last reset.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot state_slots[] = {
    {Py_tp_doc, "State(model, streams=1, otherwise=None): streams of a model; `otherwise(state, x, out)` takes "
                "what step cannot."},
    {Py_tp_new, (void *)state_new},
    {Py_tp_dealloc, (void *)state_dealloc},
    {Py_tp_methods, state_methods},
    {Py_tp_getset, state_getset},
    {0, NULL}};

static PyType_Spec state_spec = {"edgelstm.runtime._native.State", sizeof(State), 0, Py_TPFLAGS_DEFAULT, state_slots};

/* ---- Module ---- */

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", "The engine.", -1, NULL,
                                        NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void) {
    import_array();
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL) return NULL;
    PyObject *errors = PyImport_ImportModule("edgelstm.runtime.errors");
    Misuse = errors == NULL ? NULL : PyObject_GetAttrString(errors, "InputError");
    Py_XDECREF(errors);
    Error = PyErr_NewException("edgelstm.runtime._native.Error", PyExc_ValueError, NULL);
    ModelType = (PyTypeObject *)PyType_FromSpec(&model_spec);
    StateType = (PyTypeObject *)PyType_FromSpec(&state_spec);
    PyObject *windows = PyType_FromSpec(&windows_spec);
    if (Misuse == NULL || Error == NULL || ModelType == NULL || StateType == NULL || windows == NULL ||
        PyModule_AddObjectRef(module, "Error", Error) < 0 ||
        PyModule_AddObjectRef(module, "Model", (PyObject *)ModelType) < 0 ||
        PyModule_AddObjectRef(module, "State", (PyObject *)StateType) < 0 ||
        PyModule_AddObjectRef(module, "Windows", windows) < 0) {
        Py_XDECREF(windows);
        Py_DECREF(module);
        return NULL;
    }
    Py_DECREF(windows);
    return module;
}
