#include "permission.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The kinds of tools of ACP. */
#define KINDS(KIND)                                                                                \
	KIND(read)                                                                                 \
	KIND(edit)                                                                                 \
	KIND(delete)                                                                               \
	KIND(move)                                                                                 \
	KIND(search)                                                                               \
	KIND(execute)                                                                              \
	KIND(think)                                                                                \
	KIND(fetch)                                                                                \
	KIND(switch_mode)                                                                          \
	KIND(other)

#define NAME(kind) #kind,
#define WORD(kind) " " #kind

const char *const ap_permission_kinds[AP_PERMISSION_N_KINDS + 1] = {KINDS(NAME) NULL};
const char ap_permission_kind_words[] = KINDS(WORD);

static int kind_find(const char *name, size_t len)
{
	for (int kind = 0; kind < AP_PERMISSION_N_KINDS; kind++) {
		if (strlen(ap_permission_kinds[kind]) == len &&
		    strncmp(ap_permission_kinds[kind], name, len) == 0)
			return kind;
	}
	return -1;
}

int ap_permission_kind(const char *name)
{
	return kind_find(name, strlen(name));
}

/* KIND,KIND */
static int kinds_parse(const char *text, uint32_t *ret, struct ap_err *err)
{
	uint32_t policy = 0;
	for (const char *at = text;; at++) {
		size_t len = strcspn(at, ",");
		int kind = kind_find(at, len);
		if (kind < 0)
			return ap_err_set(err, -EINVAL, "'%.*s' is none of:%s",
					  (int)(len < 64 ? len : 64), at, ap_permission_kind_words);
		policy |= UINT32_C(1) << kind;
		at += len;
		if (!*at)
			break;
	}
	*ret = policy;
	return 0;
}

static const struct {
	const char *word;
	uint32_t policy;
} words[] = {
	{"ask", AP_PERMISSION_ASK},
	{"allow", AP_PERMISSION_ALLOW},
	{"reject", AP_PERMISSION_REJECT},
};

int ap_permission_parse(const char *text, uint32_t *ret, struct ap_err *err)
{
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		if (strcmp(text, words[i].word) == 0) {
			*ret = words[i].policy;
			return 0;
		}
	}
	if (strncmp(text, "allow:", 6) == 0)
		return kinds_parse(text + 6, ret, err);
	return ap_err_set(
		err, -EINVAL,
		"'%.64s' is none of: ask allow reject allow:KIND,KIND, with KIND one of:%s", text,
		ap_permission_kind_words);
}

void ap_permission_format(uint32_t policy, char *ret, size_t size)
{
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		if (policy == words[i].policy) {
			snprintf(ret, size, "%s", words[i].word);
			return;
		}
	}
	size_t n = (size_t)snprintf(ret, size, "allow");
	char before = ':';
	for (int kind = 0; kind < AP_PERMISSION_N_KINDS; kind++) {
		if (!(policy & UINT32_C(1) << kind) || n >= size)
			continue;
		n += (size_t)snprintf(ret + n, size - n, "%c%s", before, ap_permission_kinds[kind]);
		before = ',';
	}
}

enum ap_verdict ap_permission_judge(uint32_t policy, const char *kind)
{
	int known = kind ? ap_permission_kind(kind) : -1;
	if (known < 0)
		return AP_VERDICT_ASK;
	if (policy & AP_PERMISSION_REJECT)
		return AP_VERDICT_REJECT;
	return policy & UINT32_C(1) << known ? AP_VERDICT_ALLOW : AP_VERDICT_ASK;
}
