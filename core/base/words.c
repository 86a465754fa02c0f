#include "words.h"

#include <stdlib.h>

#include "cleanup.h"

void ap_words_fini(struct ap_words *words)
{
	for (unsigned i = 0; i < words->n; i++)
		free(words->at[i]);
	free(words->at);
	*words = (struct ap_words){.at = NULL};
}

void ap_words_take(struct ap_words *words, struct ap_buf *text)
{
	char **grown = realloc(words->at, (words->n + 2) * sizeof *grown);
	if (grown)
		words->at = grown;
	ap_buf_adds(text, "");
	words->failed = words->failed || !grown || text->failed || !text->data;
	if (words->failed) {
		ap_buf_fini(text);
		return;
	}
	words->at[words->n++] = ap_steal(text->data);
	words->at[words->n] = NULL;
	*text = (struct ap_buf){0};
}

void ap_words_add(struct ap_words *words, const char *word)
{
	struct ap_buf text = {0};
	ap_buf_adds(&text, word);
	ap_words_take(words, &text);
}

void ap_words_add_pair(struct ap_words *words, const char *name, const char *value)
{
	struct ap_buf text = {0};
	ap_buf_printf(&text, "%s=%s", name, value);
	ap_words_take(words, &text);
}
