/*
 * core/activation.h: what happens to each number between layers, with the bias that comes before it, forward and backward.
 *
 *   relu        max(0, z)
 *   leaky_relu  z where z > 0, else 0.01 z (Maas et al., 2013)
 *   gelu        z Phi(z), Phi the normal distribution function: the exact form, by erf (Hendrycks & Gimpel, 2016)
 *   none        z
 * as PyTorch's ReLU, LeakyReLU() and GELU(). To add one: a word and a row in activation.c, and the formula here.
 *
 * One pass over the numbers does bias and activation, and one does derivative and the sum for the bias: beside a small
 * matrix product each further pass would be seen.
 */
#ifndef CORE_ACTIVATION_H
#define CORE_ACTIVATION_H

#include <stdbool.h>
#include <stddef.h>

enum activation { ACTIVATION_RELU, ACTIVATION_GELU, ACTIVATION_LEAKY_RELU, ACTIVATION_NONE };

/* As configuration and manifest spell them; NULL-terminated. ACTIVATION_NONE has no word: it is what the last layer has. */
extern const char *const activation_words[];

/* True when the derivative cannot be told from the result: then forward needs room to leave it. */
bool activation_keeps_slope(enum activation a);

/* y [rows, n] = f(y + bias), bias [n]. slope [rows, n] gets f'(y + bias) where activation_keeps_slope, else it may be
 * NULL. */
void activation_forward(enum activation a, float *y, const float *bias, size_t rows, size_t n, float *slope);

/* dy [rows, n] = dy * f', given y (the result of the forward pass) and slope; dbias [n] = the sums of its columns.
 * n <= NETWORK_MAX_WIDTH. */
void activation_backward(enum activation a, float *dy, const float *y, const float *slope, size_t rows, size_t n,
                         float *dbias);

#endif
