#include "limit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "text.h"

/* An overload is tried again after these, and then left. */
static const int64_t retries_s[LIMIT_WORDS_MAX + 1] = {0, 60, 300, 0};

/* When it counts as over, in seconds from now. */
static int64_t lasts_s(const struct limit *limit, int64_t now_s)
{
	unsigned n = limit->n_words < LIMIT_WORDS_MAX ? limit->n_words : LIMIT_WORDS_MAX;
	if (limit->is_overload)
		return retries_s[n];
	if (limit->until_s == 0)
		return LIMIT_UNKNOWN_S;
	return limit->until_s > now_s ? limit->until_s - now_s : 0;
}

void limit_begin(struct limit *limit, const struct profile_limit *seen, int64_t wall_ns)
{
	int64_t now_s = wall_ns / AP_SECOND;
	limit->on = true;
	limit->is_overload = seen->is_overload;
	limit->until_s = seen->until_s > now_s + LIMIT_LONGEST_S ? 0 : seen->until_s;
	limit->hash = seen->hash;
	memcpy(limit->text, seen->text, sizeof limit->text);
	limit->ends_ns = limit->until_s > now_s ? limit->until_s * AP_SECOND
						: wall_ns + lasts_s(limit, now_s) * AP_SECOND;
}

void limit_end(struct limit *limit)
{
	limit->on = limit->broke = false;
	limit->until_s = limit->ends_ns = 0;
}

bool limit_is_over(const struct limit *limit, int64_t wall_ns)
{
	return limit->on && wall_ns >= limit->ends_ns;
}

/* --- the record --- */

void limit_record(const struct limit *limit, struct ap_buf *ret)
{
	ap_buf_printf(ret, "limit %d %d %d %" PRIu64 " %" PRId64 " %" PRId64 " %" PRIu64 " %u %s\n",
		      limit->on, limit->is_overload, limit->broke, limit->token, limit->until_s,
		      limit->ends_ns, limit->hash, limit->n_words, limit->text);
}

bool limit_read(const char *record, int64_t wall_ns, struct limit *ret)
{
	struct limit limit = {.on = false};
	int on, is_overload, broke, end = 0;
	if (sscanf(record,
		   "limit %1d %1d %1d %" SCNu64 " %" SCNd64 " %" SCNd64 " %" SCNu64 " %u %n", &on,
		   &is_overload, &broke, &limit.token, &limit.until_s, &limit.ends_ns, &limit.hash,
		   &limit.n_words, &end) < 8 ||
	    end == 0)
		return false;
	/* somebody may have changed it */
	if (limit.until_s < 0 || limit.until_s > wall_ns / AP_SECOND + LIMIT_LONGEST_S ||
	    limit.ends_ns < 0 || limit.ends_ns > wall_ns + LIMIT_LONGEST_S * AP_SECOND ||
	    limit.n_words > LIMIT_WORDS_MAX)
		return false;
	limit.on = on == 1;
	limit.is_overload = is_overload == 1;
	limit.broke = broke == 1;
	snprintf(limit.text, sizeof limit.text, "%.*s", (int)strcspn(record + end, "\n"),
		 record + end);
	ap_text_tame(limit.text);
	*ret = limit;
	return true;
}
