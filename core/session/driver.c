#include "driver.h"

const struct session_driver *session_driver(const struct profile *profile)
{
	static const struct session_driver *const drivers[] = {
		[PROFILE_TERMINAL] = &driver_terminal,
		[PROFILE_SHELL] = &driver_terminal,
		[PROFILE_STREAM] = &driver_stream,
		[PROFILE_ACP] = &driver_acp,
	};
	return drivers[profile_values(profile)->mode];
}

bool session_needs_terminal(const struct profile *profile)
{
	return session_driver(profile)->needs_terminal;
}
