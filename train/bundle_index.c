#include "train/bundle_index.h"

struct ann *bundle_index_open(const struct bundle *b, struct err *e)
{
    struct ann_vectors vectors = {b->item_vectors, b->n_items, b->dim};
    struct ann *index = ann_open(b->index_engine, b->index_path, &vectors, b->index_effort, e);
    if (index == NULL) {
        err_prefix(e, "bundle %s", b->dir);
    }
    return index;
}
