#include "spawn_backend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "remove.h"

static const struct spawn_backend *const backends[] = {&spawn_overlay, &spawn_btrfs, &spawn_copy};

const char *spawn_backend_name(const struct spawn_backend *backend)
{
	return backend ? backend->name : "git";
}

int spawn_backend_make_dir(const struct spawn_backend *backend, const char *path,
			   struct ap_err *err)
{
	if (backend->make_template_dir)
		return backend->make_template_dir(path, err);
	return mkdir(path, 0777) < 0 ? ap_err_errno(err, -errno, "%s", path) : 0;
}

static int probe(const struct spawn_backend *backend, const char *dir, struct ap_err *err)
{
	AP_CLEANUP_FREE char *probe_dir = NULL;
	if (asprintf(&probe_dir, "%s/probe-XXXXXX", dir) < 0) {
		probe_dir = NULL;
		return ap_err_errno(err, -ENOMEM, "%s", dir);
	}
	if (!mkdtemp(probe_dir))
		return ap_err_errno(err, -errno, "%s", dir);
	int r = backend->probe ? backend->probe(probe_dir, err) : 0;
	(void)remove_tree(probe_dir, NULL, NULL);
	return r;
}

int spawn_backend_choose(const struct spawn_backend **ret, const char *name, const char *dir,
			 struct ap_err *err)
{
	bool any = strcmp(name, "auto") == 0;
	*ret = NULL;
	for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
		if (!any && strcmp(name, backends[i]->name) != 0)
			continue;
		int r = probe(backends[i], dir, err);
		if (r < 0 && any)
			continue;
		if (r < 0)
			return ap_err_wrap(err, r, "spawn_backend=%s", name);
		*ret = backends[i];
		return 0;
	}
	return 0;
}
