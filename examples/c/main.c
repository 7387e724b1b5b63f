/* Generates a text, or draws samples: main BUNDLE [PROMPT] */
#include <inttypes.h>
#include <stdio.h>

#include "triptych.h"

static int failed(void) {
    fprintf(stderr, "%s\n", triptych_last_error());
    return 1;
}

static int generate(triptych_engine *engine, const char *prompt) {
    char *text = triptych_generate(engine, prompt, 40, 0.8, 7);
    if (text == NULL) return failed();
    printf("%s%s\n", prompt, text);
    triptych_free(text);
    return 0;
}

static int sample(triptych_engine *engine) {
    int64_t size;
    float *samples = triptych_sample(engine, 4, 0, &size);
    if (samples == NULL) return failed();
    for (int64_t i = 0; i < 4; i++) {
        double sum = 0;
        for (int64_t j = 0; j < size; j++) sum += samples[i * size + j];
        printf("sample %" PRId64 ": %" PRId64 " numbers, mean %.6f\n", i, size, sum / size);
    }
    triptych_free(samples);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: %s BUNDLE [PROMPT]\n", argv[0]);
        return 2;
    }
    triptych_engine *engine = triptych_load(argv[1], 0);
    if (engine == NULL) return failed();
    int code = argc == 3 ? generate(engine, argv[2]) : sample(engine);
    triptych_close(engine);
    return code;
}
