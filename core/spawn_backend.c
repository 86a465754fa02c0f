#include "spawn_backend.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

static const struct spawn_backend *const backends[] = {&spawn_overlay, &spawn_btrfs, &spawn_copy};

const char *spawn_backend_name(const struct spawn_backend *backend)
{
	return backend ? backend->name : "git";
}

int spawn_backend_choose(const struct spawn_backend **ret, const char *name, const char *dir,
			 struct ap_err *err)
{
	bool any = strcmp(name, "auto") == 0;
	*ret = NULL;
	for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
		if (!any && strcmp(name, backends[i]->name) != 0)
			continue;
		int r = backends[i]->probe(dir, err);
		if (r < 0 && any)
			continue;
		if (r < 0)
			return ap_err_wrap(err, r, "spawn_backend=%s", name);
		*ret = backends[i];
		return 0;
	}
	return 0;
}
