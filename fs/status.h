/* The pool as people and their programs look at it: status, status.json, status.html. All three say
 * the same of one look, and say what a program or user wrote as text: nothing in it is obeyed by a
 * terminal or a browser. One thread at a time: what is costly to make is kept for a moment. */
#pragma once

#include "../core/overview.h"

/* A table of 80 columns. Needs a UTF-8 locale. */
void status_table(const struct ap_overview *overview, struct ap_buf *out);

/* One JSON object and a newline, as share/status.schema.json says; its history is at most a second
 * old. -ENOMEM. */
int status_json(const struct ap_overview *overview, struct ap_buf *out);

/* A page that shows that object, and itself again every second. It has status_page_size() bytes,
 * whatever it says, for `n_agents_max` agents: browsers read as much as a file's size says. What
 * does not fit is left out, screens first. -ENOMEM. */
int status_page(const struct ap_overview *overview, unsigned n_agents_max, struct ap_buf *out);
size_t status_page_size(unsigned n_agents_max);
