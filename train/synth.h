/*
 * train/synth.h: a made-up world with a known structure, for trying, testing and measuring.
 *
 * Writes users.csv, items.csv, clicks.csv and a train.yaml that uses every type of feature. Ids are the numbers from 1.
 *
 * The model. There are 16 topics with 8 corners each. An item belongs to one corner of one topic; its category is the
 * topic (10 % of the labels are wrong), its tags name topic and corner (with one stray tag in three), its price and age
 * follow topic and popularity. A user has a main and a second topic and a favourite corner in each; gender, city, age,
 * spend and the list of topics follow them loosely, with gaps. In every period of three days a user has a mood: the
 * main topic (60 %), the second (25 %) or any (15 %). An event: a time, 90 days in order; a user, half of the time each
 * in turn, else busy ones more often; an item, one time in ten the most popular of all, else of the mood's topic, 70 %
 * from the favourite corner. Popularity within a topic falls with its rank r as r^-0.6. So features tell something
 * about users and items without events, ids tell more, and the latest history tells the mood.
 */
#ifndef TRAIN_SYNTH_H
#define TRAIN_SYNTH_H

#include <stdint.h>

#include "core/err.h"

enum { SYNTH_MAX = 2000000000 }; /* of users and of items */

/* Creates `dir` when it is not there, and replaces the four files in it. 1 to SYNTH_MAX users and items, any number of
 * events (> 0). The same arguments give the same bytes. Memory does not depend on the numbers. */
int synth_write(const char *dir, uint64_t users, uint64_t items, uint64_t events, uint64_t seed, struct err *e);

#endif
