/*
 * recall-train synth: a synthetic data set to try things on (train/synth.h).
 */
#include <getopt.h>
#include <stdio.h>

#include "train/command.h"
#include "train/synth.h"

static const char help[] =
    "usage: recall-train synth DIR [--users N] [--items N] [--events N] [--seed S]\n"
    "\n"
    "Writes users.csv, items.csv, clicks.csv and train.yaml into DIR, ready for recall-train fit DIR/train.yaml.\n"
    "Defaults: 5000 users, 20000 items, 200000 events, seed 1. The same arguments give the same bytes.\n";

int cmd_synth(int argc, char **argv)
{
    static const struct option longs[] = {
        {"users", required_argument, NULL, 'u'},  {"items", required_argument, NULL, 'i'},
        {"events", required_argument, NULL, 'e'}, {"seed", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},         {0}};
    unsigned long long users = 5000;
    unsigned long long items = 20000;
    unsigned long long events = 200000;
    unsigned long long seed = 1;
    int c;
    while ((c = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
        int bad = 0;
        switch (c) {
        case 'u':
            bad = parse_count("synth", "--users", optarg, 1, 1000000000, &users);
            break;
        case 'i':
            bad = parse_count("synth", "--items", optarg, 1, 1000000000, &items);
            break;
        case 'e':
            bad = parse_count("synth", "--events", optarg, 1, 4000000000, &events);
            break;
        case 's':
            bad = parse_count("synth", "--seed", optarg, 0, UINT64_MAX, &seed);
            break;
        case 'h':
            fputs(help, stdout);
            return STATUS_DONE;
        default:
            return command_bad_option("synth", c, argv);
        }
        if (bad < 0) {
            return STATUS_USAGE;
        }
    }
    if (argc - optind != 1) {
        return command_usage("synth", "one directory is needed");
    }
    struct err e = ERR_INIT;
    if (synth_write(argv[optind], users, items, events, seed, &e) < 0) {
        return command_failed(&e);
    }
    printf("%s/train.yaml\n", argv[optind]);
    return STATUS_DONE;
}
