/* The pool in text as Prometheus and others scrape it: the files `metrics` and `metrics.prom`. */
#pragma once

#include "metrics.h"

enum openmetrics_format {
	OPENMETRICS,	   /* 1.0 */
	OPENMETRICS_OLDER, /* the text format of Prometheus before it, 0.0.4 */
};

/* Appends the page: the families of the one table in openmetrics.c, in its order, and where the
 * format has one the mark of the end. */
void openmetrics_show(const struct ap_metrics *metrics, const struct ap_agent_metrics *agents,
		      enum openmetrics_format format, struct ap_buf *out);
