/* The pool in OpenMetrics text (1.0), as Prometheus and others scrape it: the file `metrics`. */
#pragma once

#include "metrics.h"

/* Appends the page: the families of the one table in openmetrics.c, in its order, and the mark of
 * the end. */
void openmetrics_show(const struct ap_metrics *metrics, const struct ap_agent_metrics *agents,
		      struct ap_buf *out);
