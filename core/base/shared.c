#include "shared.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct shared {
	atomic_uint n_refs;
	char text[];
};

static struct shared *shared_of(const char *text)
{
	return (struct shared *)(text - offsetof(struct shared, text));
}

const char *ap_shared_new(const char *text, size_t len)
{
	struct shared *shared = malloc(sizeof *shared + len + 1);
	if (!shared)
		return NULL;
	atomic_init(&shared->n_refs, 1);
	memcpy(shared->text, text, len);
	shared->text[len] = '\0';
	return shared->text;
}

const char *ap_shared_ref(const char *text)
{
	if (text)
		atomic_fetch_add(&shared_of(text)->n_refs, 1);
	return text;
}

void ap_shared_unref(const char *text)
{
	if (text && atomic_fetch_sub(&shared_of(text)->n_refs, 1) == 1)
		free(shared_of(text));
}
