/* Words of a command line or an environment, built one after the other. */
#pragma once

#include <stdbool.h>

#include "buf.h"

struct ap_words {
	char **at; /* each owned; NULL behind the last, or NULL: there is none */
	unsigned n;
	bool failed; /* a word was lost to ENOMEM */
};

void ap_words_fini(struct ap_words *words);

#define AP_CLEANUP_WORDS __attribute__((cleanup(ap_words_fini)))

/* Appends a copy of a word. */
void ap_words_add(struct ap_words *words, const char *word);

/* Appends a text as one word, and takes its memory. */
void ap_words_take(struct ap_words *words, struct ap_buf *text);

/* Appends "NAME=VALUE". */
void ap_words_add_pair(struct ap_words *words, const char *name, const char *value);
