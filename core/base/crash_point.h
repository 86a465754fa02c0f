/* Places at which a daemon that is built with them kills itself, as if by kill -9: between an
 * effect, its record and its answer. AGENTPOOL_CRASH_POINT names one, "NAME" or "NAME:N" for the
 * N-th time that the daemon reaches it. */
#pragma once

#ifdef AP_CRASH_POINTS
void crash_point(const char *name);
#else
static inline void crash_point(const char *name)
{
	(void)name;
}
#endif
