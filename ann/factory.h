/*
 * ann/factory.h: what has to be known about a faiss factory string ("OPQ16,IVF1024,PQ16") before faiss sees it.
 */
#ifndef ANN_FACTORY_H
#define ANN_FACTORY_H

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"

enum { FACTORY_MAX = 256 }; /* bytes, with the '\0' */

/* Refuses what faiss 1.7.3 answers with a signal, abort() or an endless loop, and lists that n vectors can't train. */
int factory_check(const char *factory, size_t n, struct err *e);

/* HNSW, HNSW<M>, with or without ",Flat": a graph over the vectors themselves. */
bool factory_is_graph(const char *factory);

/* Whether candidates have approximate scores, so that more than k are needed to find the best k. */
bool factory_is_lossy(const char *factory);

/* The lists of IVF<n>, wherever it stands; 0: no such part. */
size_t factory_lists(const char *factory);

/* The string for faiss: PQ<m> becomes PQ<m>np. Polysemous training, which that leaves out, only renumbers codes for a
 * filter that is never switched on here, and takes half a minute whatever the number of vectors. */
int factory_for_faiss(char out[FACTORY_MAX], const char *factory, struct err *e);

#endif
