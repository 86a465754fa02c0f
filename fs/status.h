/* The files status, status.json and status.html: the pool for people and their programs. All three
 * show one overview, and show what a program or user wrote as text: no terminal and no browser
 * obeys anything in it. One thread at a time: the functions keep for a moment what is costly to
 * make. */
#pragma once

#include "../core/overview.h"

/* A table of 80 columns. Needs a UTF-8 locale. */
void status_table(const struct ap_overview *overview, struct ap_buf *out);

/* One JSON object and a newline, as share/status.schema.json says; its history is at most a second
 * old. -ENOMEM. */
int status_json(const struct ap_overview *overview, struct ap_buf *out);

/* A page that shows that object and refreshes itself every second. It always has status_page_size()
 * bytes, for `n_agents_max` agents: browsers read as much as a file's size says. The function
 * leaves out what does not fit, screens first. -ENOMEM. */
int status_page(const struct ap_overview *overview, unsigned n_agents_max, struct ap_buf *out);
size_t status_page_size(unsigned n_agents_max);
