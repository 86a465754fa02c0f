#include "history.h"

#define INTERVAL_US (HISTORY_INTERVAL_NS / 1000)

static void next_interval(struct history *history)
{
	history->at = history->n > 0 ? (history->at + 1) % HISTORY_N : 0;
	history->ring[history->at] = (struct history_interval){.us = 0};
	if (history->n < HISTORY_N)
		history->n++;
	history->end_us += INTERVAL_US;
}

static void fill(struct history_interval *interval, struct history_sample sample, uint64_t us)
{
	interval->us += us;
	interval->agents_us += sample.n_agents * us;
	interval->active_us += sample.n_active * us;
	interval->able_us += sample.n_able * us;
	if (sample.n_waiting > interval->most_waiting)
		interval->most_waiting = sample.n_waiting;
}

void history_elapse(struct history *history, struct history_sample sample, int64_t now_ns)
{
	int64_t now_us = now_ns / 1000;
	if (history->now_us == 0) {
		history->now_us = history->end_us = now_us;
		next_interval(history);
	}
	int64_t kept_us = HISTORY_N * INTERVAL_US;
	if (now_us - history->end_us > kept_us) { /* all of it would be overwritten */
		int64_t skipped = (now_us - history->end_us - kept_us) / INTERVAL_US;
		history->end_us += skipped * INTERVAL_US;
		history->now_us = history->end_us;
	}
	while (history->now_us < now_us) {
		int64_t until = now_us < history->end_us ? now_us : history->end_us;
		fill(&history->ring[history->at], sample, (uint64_t)(until - history->now_us));
		history->now_us = until;
		if (until == history->end_us)
			next_interval(history);
	}
}

void history_granted(struct history *history, int64_t waited_ns)
{
	struct history_interval *interval = &history->ring[history->at];
	interval->n_grants++;
	if (waited_ns > interval->longest_wait_ns)
		interval->longest_wait_ns = waited_ns;
}

const struct history_interval *history_get(const struct history *history, unsigned i)
{
	return &history->ring[(history->at + HISTORY_N + 1 + i - history->n) % HISTORY_N];
}

int history_utilization(const struct history_interval *interval)
{
	return interval->able_us > 0 ? (int)(100 * interval->active_us / interval->able_us) : -1;
}

double history_mean(const struct history_interval *interval, uint64_t agents_us)
{
	return interval->us > 0 ? (double)agents_us / (double)interval->us : 0;
}
