/*
 * recall-train report: the page of a JSON report, or of a bundle.
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "core/buf.h"
#include "core/fileio.h"
#include "train/command.h"
#include "train/report.h"
#include "train/report_file.h"

static const char help[] = "usage: recall-train report REPORT.json|BUNDLE [--output FILE.html]\n"
                           "\n"
                           "Draws the report of fit or eval as one HTML page, complete in itself: of a JSON report "
                           "(--report), or of a bundle.\n"
                           "The page goes to stdout, or into a file.\n";

static int draw(const char *path, const char *output, struct err *e)
{
    struct buf page = BUF_INIT;
    json_t *report = report_read(path, e);
    int result = report == NULL ? -1 : report_page(report, &page, e);
    if (result == 0 && output == NULL) {
        fwrite(page.data, 1, page.len, stdout);
    } else if (result == 0) {
        result = file_replace(output, page.data, page.len, e);
    }
    json_decref(report);
    buf_release(&page);
    return result;
}

int cmd_report(int argc, char **argv)
{
    static const struct option longs[] = {
        {"output", required_argument, NULL, 'o'}, {"help", no_argument, NULL, 'h'}, {0}};
    const char *output = NULL;
    struct err e = ERR_INIT;
    int c;
    while ((c = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
        switch (c) {
        case 'o':
            output = strcmp(optarg, "-") == 0 ? NULL : optarg;
            break;
        case 'h':
            fputs(help, stdout);
            return STATUS_DONE;
        default:
            return command_bad_option("report", c, argv);
        }
    }
    if (argc - optind != 1) {
        return command_usage("report", "one report or bundle is needed");
    }
    return draw(argv[optind], output, &e) < 0 ? command_failed(&e) : STATUS_DONE;
}
