/* Worktrees as overlay mounts over a template: what an agent changes lies in an upper directory of
 * its own, so making a worktree, and cleaning it, costs the same whatever its size.
 *
 * Lower and upper directory lie on one file system: so the inode numbers and times by which git's
 * index knows files are those of the template. With redirect_dir an agent can rename a directory of
 * the template; without it, as inside a namespace of users, that is EXDEV, and mv copies. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "file.h"
#include "namespace.h"
#include "spawn_backend.h"

/* Appends a path to the mount's options, and escapes what has a meaning there. */
static void add_path(struct ap_buf *options, const char *key, const char *dir, const char *name)
{
	ap_buf_adds(options, key);
	for (const char *part = dir; *part; part++) {
		if (strchr(",:\\", *part))
			ap_buf_adds(options, "\\");
		ap_buf_add(options, part, 1);
	}
	ap_buf_adds(options, name);
}

static int overlay_attach(const struct spawn_place *place, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf options = {0};
	const char *marks =
		namespace_marks_as_user() ? "userxattr" : "redirect_dir=on,metacopy=off";
	ap_buf_adds(&options, marks);
	add_path(&options, ",lowerdir=", place->template_files, "");
	add_path(&options, ",upperdir=", place->layers, "/upper");
	add_path(&options, ",workdir=", place->layers, "/work");
	if (options.failed)
		return ap_err_errno(err, -ENOMEM, "%s", place->path);
	if (mount("agentpoolfs", place->path, "overlay", MS_NODEV, ap_buf_text(&options)) < 0)
		return ap_err_errno(err, -errno, "mounting an overlay at %s", place->path);
	return 0;
}

static int make_dir(const char *dir, const char *name, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s%s", dir, name);
	if (mkdir(ap_buf_text(&path), 0777) < 0 && errno != EEXIST)
		return ap_err_errno(err, -errno, "%s", ap_buf_text(&path));
	return 0;
}

static int overlay_populate(const struct spawn_place *place, struct ap_err *err)
{
	int r = make_dir(place->path, "", err);
	if (r == 0)
		r = file_make_dirs(place->layers, err);
	if (r == 0)
		r = make_dir(place->layers, "/upper", err);
	if (r == 0)
		r = make_dir(place->layers, "/work", err);
	return r < 0 ? r : overlay_attach(place, err);
}

/* Unmounts lazily, as somebody may still use it. When the last user of an overlay closes it, the
 * kernel writes out the whole file system that its upper directory is on: hence the descriptor. */
static int overlay_detach(const struct spawn_place *place)
{
	int held = open(place->path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (umount2(place->path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		return held;
	if (held >= 0) /* nothing was mounted */
		close(held);
	return -1;
}

/* Tries a mount, a rename of a lower directory where that is to work, and whether a file below it
 * keeps its inode number through the mount. */
static int overlay_probe(const char *dir, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf lower = {0};
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf layers = {0};
	AP_CLEANUP_BUF struct ap_buf name = {0};
	AP_CLEANUP_BUF struct ap_buf renamed = {0};
	struct stat below, through;
	ap_buf_printf(&lower, "%s/lower", dir);
	ap_buf_printf(&path, "%s/path", dir);
	ap_buf_printf(&layers, "%s/layers", dir);
	ap_buf_printf(&name, "%s/path/dir", dir);
	ap_buf_printf(&renamed, "%s/path/renamed", dir);
	const struct spawn_place place = {.template_files = ap_buf_text(&lower),
					  .path = ap_buf_text(&path),
					  .layers = ap_buf_text(&layers)};
	int r = make_dir(place.template_files, "", err);
	if (r == 0)
		r = make_dir(place.template_files, "/dir", err);
	if (r == 0)
		r = make_dir(place.template_files, "/dir/file", err);
	if (r == 0)
		r = overlay_populate(&place, err);
	if (r < 0)
		return r;
	ap_buf_adds(&lower, "/dir/file");
	bool moved = rename(ap_buf_text(&name), ap_buf_text(&renamed)) == 0;
	struct ap_buf *file = moved ? &renamed : &name;
	bool well = moved || (errno == EXDEV && namespace_marks_as_user());
	ap_buf_adds(file, "/file");
	if (!well || stat(ap_buf_text(&lower), &below) < 0 ||
	    stat(ap_buf_text(file), &through) < 0 || rmdir(ap_buf_text(file)) < 0)
		r = ap_err_errno(err, -errno, "an overlay in %s", dir);
	else if (through.st_ino != below.st_ino)
		r = ap_err_set(err, -EOPNOTSUPP, "an overlay in %s changes inode numbers", dir);
	int held = overlay_detach(&place);
	if (held >= 0)
		close(held);
	return r;
}

const struct spawn_backend spawn_overlay = {
	.name = "overlay",
	.is_instant = true,
	.probe = overlay_probe,
	.populate = overlay_populate,
	.attach = overlay_attach,
	.detach = overlay_detach,
};
