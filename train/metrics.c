#include "train/metrics.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train/evaluate.h"

const struct metric_cutoffs metric_default_cutoffs = {4, {10, 20, 50, 100}};

size_t metric_depth(const struct metric_cutoffs *at)
{
    uint32_t last = at->k[at->n - 1];
    return last > METRIC_MRR_DEPTH ? last : METRIC_MRR_DEPTH;
}

double metric_gain(size_t rank)
{
    return 1.0 / log2((double)rank + 1.0);
}

double metric_ideal(size_t n)
{
    double sum = 0;
    for (size_t rank = 1; rank <= n; rank++) {
        sum += metric_gain(rank);
    }
    return sum;
}

void metrics_of_user(const struct outcomes *o, size_t i, struct metrics *m)
{
    size_t n_relevant = o->n_relevant[i];
    uint32_t first = 0;
    *m = (struct metrics){.at = o->at, .users = 1};
    for (size_t j = o->start[i]; j < o->start[i + 1]; j++) {
        uint32_t rank = o->found[j].rank;
        if (rank == 0) {
            continue;
        }
        double gain = metric_gain(rank);
        first = first == 0 || rank < first ? rank : first;
        for (size_t c = 0; c < o->at.n; c++) {
            if (rank <= o->at.k[c]) {
                m->recall[c] += 1.0;
                m->ndcg[c] += gain;
            }
        }
    }
    m->mrr = first > 0 && first <= METRIC_MRR_DEPTH ? 1.0 / (double)first : 0.0;
    double ideal = 0;
    size_t summed = 0;
    for (size_t c = 0; c < o->at.n; c++) {
        for (; summed < o->at.k[c] && summed < n_relevant; summed++) {
            ideal += metric_gain(summed + 1);
        }
        m->hit_rate[c] = m->recall[c] > 0;
        m->recall[c] /= (double)n_relevant;
        m->ndcg[c] /= ideal;
    }
}

static double coverage(const struct outcomes *o, size_t c)
{
    size_t covered = 0;
    for (size_t i = 0; i < o->n_items; i++) {
        covered += o->shown[c * o->n_items + i] > 0;
    }
    return (double)covered / (double)o->n_items;
}

void metrics_of(const struct outcomes *o, struct metrics *m)
{
    *m = (struct metrics){.at = o->at, .users = o->n_users};
    for (size_t i = 0; i < o->n_users; i++) {
        struct metrics user;
        metrics_of_user(o, i, &user);
        m->mrr += user.mrr;
        for (size_t c = 0; c < o->at.n; c++) {
            m->recall[c] += user.recall[c];
            m->ndcg[c] += user.ndcg[c];
            m->hit_rate[c] += user.hit_rate[c];
        }
    }
    double users = o->n_users > 0 ? (double)o->n_users : 1.0;
    m->mrr /= users;
    for (size_t c = 0; c < o->at.n; c++) {
        m->recall[c] /= users;
        m->ndcg[c] /= users;
        m->hit_rate[c] /= users;
        m->coverage[c] = coverage(o, c);
    }
}

/* --- by name --------------------------------------------------------------------------------------------------------*/

static const double *metric_row(const struct metrics *m, const char *name, size_t length)
{
    const struct {
        const char *name;
        const double *values;
    } rows[] = {{"recall", m->recall}, {"ndcg", m->ndcg}, {"hit_rate", m->hit_rate}, {"coverage", m->coverage}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strlen(rows[i].name) == length && memcmp(rows[i].name, name, length) == 0) {
            return rows[i].values;
        }
    }
    return NULL;
}

double metrics_get(const struct metrics *m, const char *name)
{
    if (strcmp(name, "mrr") == 0) {
        return m->mrr;
    }
    size_t length = strcspn(name, "@");
    const double *row = metric_row(m, name, length);
    for (size_t c = 0; row != NULL && name[length] == '@' && c < m->at.n; c++) {
        char k[16];
        snprintf(k, sizeof k, "%u", m->at.k[c]);
        if (strcmp(k, name + length + 1) == 0) {
            return row[c];
        }
    }
    return NAN;
}

json_t *metrics_to_json(const struct metrics *m)
{
    static const char *const names[] = {"recall", "ndcg", "hit_rate", "coverage"};
    json_t *o = json_object();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const double *row = metric_row(m, names[i], strlen(names[i]));
        for (size_t c = 0; c < m->at.n; c++) {
            char key[32];
            snprintf(key, sizeof key, "%s@%u", names[i], m->at.k[c]);
            json_object_set_new(o, key, json_real(row[c]));
        }
    }
    json_object_set_new(o, "mrr", json_real(m->mrr));
    json_object_set_new(o, "users", json_integer((json_int_t)m->users));
    return o;
}
