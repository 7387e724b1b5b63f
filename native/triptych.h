/* triptych.h: bundles from C and whatever speaks C.
 *
 *     triptych_engine *engine = triptych_load("my-model", 0);
 *     char *text = triptych_generate(engine, "To be", 200, 0.8, 7);
 *     if (text == NULL) fprintf(stderr, "%s\n", triptych_last_error());
 *     triptych_free(text);
 *     triptych_close(engine);
 *
 * Strings are UTF-8 and end with a zero byte. A function that fails returns NULL, and triptych_last_error() says
 * why. What a function returns is yours until you give it to triptych_free().
 *
 * Threads: every function may be called from any thread, and several at a time, on one engine too. Calls take turns
 * in what is Python and run side by side in what computes. An engine must not be closed while it is in use. A
 * process that forks must do so before its first call.
 *
 * The same bundle, arguments and processor give the same bytes as triptych.load() gives in Python.
 */
#ifndef TRIPTYCH_H
#define TRIPTYCH_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An open bundle. */
typedef struct triptych_engine triptych_engine;

/* Checks every byte of the bundle in `folder` and opens it. `threads` is how many threads one call may use; 0: one for
 * each core. Returns NULL on failure. The first call of a process also starts Python, which takes about a second. */
triptych_engine *triptych_load(const char *folder, int32_t threads);

/* Goes on from `prompt` for up to `max_tokens` tokens. `temperature` 0 takes the likeliest token each time; `seed` is 0
 * or more. Returns the text without its prompt, or NULL on failure: for a model without text, and for a prompt with
 * characters it does not know. A zero byte in the text is given as U+2400. */
char *triptych_generate(triptych_engine *engine, const char *prompt, int32_t max_tokens, double temperature,
                        int64_t seed);

/* Draws `n` samples: of a VAE or GAN, not of a text model. Returns n * *size numbers, sample after sample, and writes
 * to `size` how many numbers one sample has; or NULL on failure. Sample i is the same whatever `n` is. */
float *triptych_sample(triptych_engine *engine, int64_t n, int64_t seed, int64_t *size);

/* Why the last function that failed on this thread did. It is valid until the thread's next failure; never NULL. */
const char *triptych_last_error(void);

/* Releases what triptych_generate() or triptych_sample() returned. NULL is nothing. */
void triptych_free(void *result);

/* Closes an engine. NULL is nothing. */
void triptych_close(triptych_engine *engine);

#ifdef __cplusplus
}
#endif

#endif
