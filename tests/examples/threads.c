/* Eight threads on one engine: every sample and every error is that thread's own. threads BUNDLE */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "triptych.h"

enum { THREADS = 8, ROUNDS = 20, SAMPLES = 3 };

static triptych_engine *engine;
static float *wanted[THREADS];
static int64_t size;

static void *work(void *argument) {
    int64_t number = (int64_t)(intptr_t)argument, found;
    char expected[64];
    snprintf(expected, sizeof expected, "seed: got -%d", (int)number + 1);
    for (int round = 0; round < ROUNDS; round++) {
        float *samples = triptych_sample(engine, SAMPLES, number, &found);
        if (samples == NULL || found != size) return "no samples";
        if (memcmp(samples, wanted[number], SAMPLES * size * sizeof *samples) != 0) return "other samples";
        triptych_free(samples);
        if (triptych_sample(engine, SAMPLES, -number - 1, &found) != NULL) return "no error";
        if (strstr(triptych_last_error(), expected) == NULL) return "another thread's error";
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 2 || (engine = triptych_load(argv[1], 1)) == NULL) return 2;
    pthread_t threads[THREADS];
    for (int64_t i = 0; i < THREADS; i++) wanted[i] = triptych_sample(engine, SAMPLES, i, &size);
    for (int64_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i);
    int failures = 0;
    for (int i = 0; i < THREADS; i++) {
        void *problem;
        pthread_join(threads[i], &problem);
        if (problem != NULL) failures += printf("%s\n", (char *)problem) > 0;
        triptych_free(wanted[i]);
    }
    triptych_close(engine);
    triptych_free(NULL);
    triptych_close(NULL);
    if (triptych_sample(engine, 1, 0, &size) != NULL) failures++;
    if (triptych_generate(NULL, "x", 1, 1.0, 0) != NULL) failures++;
    if (triptych_load(NULL, 0) != NULL) failures++;
    printf("%s\n", triptych_last_error());
    return failures;
}
