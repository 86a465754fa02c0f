#include "spawn_backend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "namespace.h"
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

struct probe {
	const struct spawn_backend *backend;
	const char *dir; /* empty */
};

static int probe_backend(void *data, struct ap_err *err)
{
	const struct probe *probe = data;
	return probe->backend->probe ? probe->backend->probe(probe->dir, err) : 0;
}

/* Tries the backend in a new directory in `dir`. */
static int try_backend(const struct spawn_backend *backend, const char *dir,
		       struct spawn_inside *inside, struct ap_err *err)
{
	AP_CLEANUP_FREE char *probe_dir = NULL;
	if (asprintf(&probe_dir, "%s/probe-XXXXXX", dir) < 0) {
		probe_dir = NULL;
		return ap_err_errno(err, -ENOMEM, "%s", dir);
	}
	if (!mkdtemp(probe_dir))
		return ap_err_errno(err, -errno, "%s", dir);
	struct probe probe = {.backend = backend, .dir = probe_dir};
	int r = inside->must ? -EPERM : probe_backend(&probe, err);
	if (r == -EPERM && inside->may) {
		(void)remove_tree(probe_dir, NULL, NULL);
		r = mkdir(probe_dir, 0700) < 0
			    ? ap_err_errno(err, -errno, "%s", probe_dir)
			    : namespace_try(inside->pidfd, probe_backend, &probe, err);
		inside->enters = inside->must || r == 0;
	}
	(void)remove_tree(probe_dir, NULL, NULL);
	return r;
}

int spawn_backend_choose(const struct spawn_backend **ret, const char *name, const char *dir,
			 struct spawn_inside *inside, struct ap_err *why_not, struct ap_err *err)
{
	bool any = strcmp(name, "auto") == 0;
	*ret = NULL;
	*why_not = (struct ap_err){""};
	inside->enters = inside->must;
	for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
		if (!any && strcmp(name, backends[i]->name) != 0)
			continue;
		int r = try_backend(backends[i], dir, inside, err);
		if (r < 0 && any && backends[i] == &spawn_overlay)
			*why_not = *err;
		if (r < 0 && any)
			continue;
		if (r < 0)
			return ap_err_wrap(err, r, "spawn_backend=%s", name);
		*ret = backends[i];
		break;
	}
	return 0;
}
