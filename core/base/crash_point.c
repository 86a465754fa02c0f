#include "crash_point.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef AP_CRASH_POINTS
void crash_point(const char *name)
{
	static atomic_int n_passed;
	const char *wanted = getenv("AGENTPOOL_CRASH_POINT");
	size_t len = strlen(name);
	if (!wanted || strncmp(wanted, name, len) != 0 || (wanted[len] && wanted[len] != ':'))
		return;
	int nth = wanted[len] ? atoi(wanted + len + 1) : 1;
	if (atomic_fetch_add(&n_passed, 1) + 1 == nth)
		kill(getpid(), SIGKILL);
}
#endif
