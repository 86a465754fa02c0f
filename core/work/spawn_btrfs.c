/* Worktrees as btrfs snapshots of a template, which is a subvolume. A snapshot keeps inode numbers
 * and times: git's index needs no change. */
#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "spawn_backend.h"

/* Opens the directory that a path is in, and finds the path's name there. */
static int open_parent(const char *path, const char **ret_name, struct ap_err *err)
{
	const char *slash = strrchr(path, '/');
	AP_CLEANUP_FREE char *parent = strndup(path, (size_t)(slash - path));
	int fd = parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	*ret_name = slash + 1;
	return fd < 0 ? ap_err_errno(err, parent ? -errno : -ENOMEM, "%s", path) : fd;
}

static int btrfs_make_template_dir(const char *path, struct ap_err *err)
{
	struct btrfs_ioctl_vol_args args = {.fd = 0};
	const char *name;
	AP_CLEANUP_CLOSE int parent = open_parent(path, &name, err);
	if (parent < 0)
		return parent;
	snprintf(args.name, sizeof args.name, "%s", name);
	if (ioctl(parent, BTRFS_IOC_SUBVOL_CREATE, &args) < 0)
		return ap_err_errno(err, -errno, "a btrfs subvolume %s", path);
	return 0;
}

static int btrfs_populate(const struct spawn_place *place, struct ap_err *err)
{
	struct btrfs_ioctl_vol_args_v2 args = {.fd = 0};
	const char *name;
	AP_CLEANUP_CLOSE int parent = open_parent(place->path, &name, err);
	if (parent < 0)
		return parent;
	AP_CLEANUP_CLOSE int files =
		open(place->template_files, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	args.fd = files;
	snprintf(args.name, sizeof args.name, "%s", name);
	if (files < 0 || ioctl(parent, BTRFS_IOC_SNAP_CREATE_V2, &args) < 0)
		return ap_err_errno(err, -errno, "a btrfs snapshot at %s", place->path);
	return 0;
}

static int btrfs_probe(const char *dir, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf files = {0};
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&files, "%s/files", dir);
	ap_buf_printf(&path, "%s/path", dir);
	const struct spawn_place place = {.template_files = ap_buf_text(&files),
					  .path = ap_buf_text(&path)};
	int r = btrfs_make_template_dir(place.template_files, err);
	return r < 0 ? r : btrfs_populate(&place, err);
}

const struct spawn_backend spawn_btrfs = {
	.name = "btrfs",
	.is_instant = true,
	.probe = btrfs_probe,
	.make_template_dir = btrfs_make_template_dir,
	.populate = btrfs_populate,
};
