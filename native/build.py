"""Builds libtriptych.so: python native/build.py FOLDER

The library is Python, started inside the calling process by its first call, with the packages of the
environment that built it. cffi writes the C between the two.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
SOURCE = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include "triptych.h"

static _Thread_local char last_error[4096] = "Python could not be started; standard error says why";

const char *triptych_last_error(void) { return last_error; }
void triptych_free(void *result) { free(result); }
static void set_last_error(const char *message) { snprintf(last_error, sizeof last_error, "%s", message); }

/* Python as PYTHON is, whatever PATH and the calling program say; a process that has one already keeps it. */
static void start(void) {
    if (Py_IsInitialized()) return;
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    config.parse_argv = 0;
    PyStatus status = PyConfig_SetBytesString(&config, &config.executable, PYTHON);
    if (!PyStatus_Exception(status)) status = PyConfig_SetBytesString(&config, &config.program_name, PYTHON);
    if (!PyStatus_Exception(status)) status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status)) fprintf(stderr, "triptych: %s\n", status.err_msg ? status.err_msg : "");
    else PyEval_SaveThread();
}
static pthread_once_t once = PTHREAD_ONCE_INIT;

static triptych_engine *python_load(const char *, int32_t);
static char *python_generate(triptych_engine *, const char *, int32_t, double, int64_t);
static float *python_sample(triptych_engine *, int64_t, int64_t, int64_t *);
static void python_close(triptych_engine *);

triptych_engine *triptych_load(const char *folder, int32_t threads) {
    pthread_once(&once, start);
    return python_load(folder, threads);
}
char *triptych_generate(triptych_engine *engine, const char *prompt, int32_t max_tokens, double temperature,
                        int64_t seed) {
    pthread_once(&once, start);
    return python_generate(engine, prompt, max_tokens, temperature, seed);
}
float *triptych_sample(triptych_engine *engine, int64_t n, int64_t seed, int64_t *size) {
    pthread_once(&once, start);
    return python_sample(engine, n, seed, size);
}
void triptych_close(triptych_engine *engine) {
    if (engine != NULL) python_close(engine);
}
"""

DECLARED = """
typedef struct triptych_engine triptych_engine;
extern "Python" triptych_engine *python_load(const char *, int32_t);
extern "Python" char *python_generate(triptych_engine *, const char *, int32_t, double, int64_t);
extern "Python" float *python_sample(triptych_engine *, int64_t, int64_t, int64_t *);
extern "Python" void python_close(triptych_engine *);
void *malloc(size_t size);
void set_last_error(const char *message);
"""


def build(folder: Path) -> Path:
    """Build the library into `folder`, beside a copy of its header; returns the library's path."""
    variables = sysconfig.get_config_vars()
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        sys.exit("native: Python.h is missing. On Debian: apt-get install python3-dev")
    if not variables.get("Py_ENABLE_SHARED"):
        sys.exit(f"native: {sys.executable} has no shared library. Build Python with --enable-shared")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "triptych.h", folder)
    ffi = FFI()
    ffi.embedding_api("")
    ffi.cdef(DECLARED)
    ffi.set_source(
        "libtriptych",
        SOURCE,
        include_dirs=[str(HERE)],
        define_macros=[("PYTHON", f'"{sys.executable}"')],
        extra_link_args=[f"-Wl,-rpath,{variables['LIBDIR']}", "-pthread"],
        py_limited_api=False,
    )
    ffi.embedding_init_code((HERE / "engine.py").read_text("utf-8"))
    return Path(ffi.compile(tmpdir=str(folder), target="libtriptych.so", verbose=False))


if __name__ == "__main__":
    print(build(Path(sys.argv[1]).absolute()))
