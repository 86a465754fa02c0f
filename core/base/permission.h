/* Which of a program's questions are answered by rule: a policy, as a word and as a number. Knows
 * the kinds of what a program may want to do, which are ACP's kinds of tools; nothing of sessions
 * or leases. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define AP_PERMISSION_N_KINDS 10

/* A policy: the kinds that are allowed, bit 1 << kind each; or REJECT alone. It fits 15 bits. */
#define AP_PERMISSION_ASK    UINT32_C(0)
#define AP_PERMISSION_ALLOW  ((UINT32_C(1) << AP_PERMISSION_N_KINDS) - 1)
#define AP_PERMISSION_REJECT (UINT32_C(1) << AP_PERMISSION_N_KINDS)

#define AP_PERMISSION_MAX 96 /* bytes of the longest word, with its NUL */

/* The names of all kinds, NULL behind the last; and in one text, a blank before each. */
extern const char *const ap_permission_kinds[AP_PERMISSION_N_KINDS + 1];
extern const char ap_permission_kind_words[];

/* The kind of that name, from 0; -1: there is none. */
int ap_permission_kind(const char *name);

/* Reads `ask`, `allow`, `reject` or `allow:KIND,KIND`. -EINVAL, with a sentence. */
int ap_permission_parse(const char *text, uint32_t *ret, struct ap_err *err);

/* Writes the word of a policy, which ap_permission_parse() reads as the same; AP_PERMISSION_MAX
 * bytes are enough for any. */
void ap_permission_format(uint32_t policy, char *ret, size_t size);

enum ap_verdict {
	AP_VERDICT_ASK, /* a human answers */
	AP_VERDICT_ALLOW,
	AP_VERDICT_REJECT,
};

/* What becomes of a question about something of that kind. NULL, or no kind's name: a human is
 * asked, whatever the policy. */
enum ap_verdict ap_permission_judge(uint32_t policy, const char *kind);
