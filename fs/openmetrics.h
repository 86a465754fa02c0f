/* The pool in text as Prometheus and others scrape it: the files `metrics` and `metrics.prom`. */
#pragma once

#include "metrics.h"

enum openmetrics_format {
	OPENMETRICS,	   /* 1.0 */
	OPENMETRICS_OLDER, /* the text format of Prometheus before it, 0.0.4 */
};

/* Appends the page: the families in the order of the table in openmetrics.c, and the end mark if
 * the format has one. */
void openmetrics_show(const struct ap_metrics *metrics, const struct ap_agent_metrics *agents,
		      enum openmetrics_format format, struct ap_buf *out);
