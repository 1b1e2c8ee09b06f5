/* What the extension module's files share. */
#ifndef EDGELSTM_NATIVE_MODULE_H
#define EDGELSTM_NATIVE_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#define NPY_TARGET_VERSION NPY_1_22_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL edgelstm_array_api
#ifndef IMPORTS_ARRAY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include "engine/edgelstm.h"

/* A step on more bytes of weights than this takes long enough to let other threads run meanwhile. */
#define LONG_STEP 200000

extern PyObject *Error;  /* ValueError with the engine's error number as its second argument. */
extern PyObject *Misuse; /* edgelstm.runtime.InputError */
extern PyTypeObject *ModelType;
extern PyType_Spec windows_spec;

typedef struct {
    PyObject_HEAD
    edgelstm_model model;
    size_t size;
    void *base;
} Model;

/* NULL, with the engine's error as the exception. */
PyObject *fail(int error);

/* So many bytes on a border of EDGELSTM_ALIGNMENT; `base` is what to free. NULL where there is no memory. */
void *allocate(void **base, size_t size);

/* A state is one thread's at a time; who breaks that gets an error rather than a wrong answer. */
int enter(int *busy);

/* The data of a C-contiguous float32 array of this shape, or NULL (without an exception); `rows` of -1 are any. */
float *data_of(PyObject *object, int dimensions, npy_intp rows, npy_intp columns, int writable);

#endif
