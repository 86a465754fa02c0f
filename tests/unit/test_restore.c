/* Files put back, put away and removed, and mounts let go of, whatever stands there. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "layer.h"
#include "process.h"
#include "remove.h"
#include "restore.h"

static char top[PATH_MAX], upper[PATH_MAX + 16], tree[PATH_MAX + 16], template[PATH_MAX + 16],
	list[PATH_MAX + 16];

/* Runs a script in the test's directory; what it ends with. */
static int sh_code(const char *script, struct ap_buf *out)
{
	const char *argv[] = {"sh", "-euc", script, NULL};
	return process_run(
		&(struct process_run){
			.argv = argv, .dir = top, .out = out, .limit_ns = 60 * AP_SECOND},
		NULL);
}

static void sh(const char *script)
{
	if (sh_code(script, NULL) != 0)
		fail_msg("%s", script);
}

static int make_top(void **state)
{
	char name[] = "/tmp/agentpool-restore-XXXXXX";
	if (!mkdtemp(name) || !realpath(name, top))
		return -1;
	snprintf(upper, sizeof upper, "%s/upper", top);
	snprintf(tree, sizeof tree, "%s/tree", top);
	snprintf(template, sizeof template, "%s/template", top);
	snprintf(list, sizeof list, "%s/list", top);
	sh("mkdir upper tree work template");
	return 0;
}

static int remove_top(void **state)
{
	(void)sh_code("for at in $(tac /proc/self/mountinfo | cut -d' ' -f5 | grep \"^$PWD/\"); do "
		      "umount -l \"$(printf %b $at)\"; done; chattr -R -ia . 2>/dev/null",
		      NULL);
	(void)sh_code("chmod -R u+rwx .; rm -rf ./*", NULL);
	return rmdir(top);
}

static void mount_overlay(void)
{
	AP_CLEANUP_BUF struct ap_buf options = {0};
	ap_buf_printf(&options, "redirect_dir=on,lowerdir=%s,upperdir=%s,workdir=%s/work", template,
		      upper, top);
	if (mount("test", tree, "overlay", 0, ap_buf_text(&options)) < 0)
		fail_msg("mounting an overlay: %s", strerror(errno));
}

static const char make_template[] = "cd template; mkdir -p d/e gone/in moved/in opaque mode "
				    "deep/a/b; for f in a b d/f d/e/g gone/in/x "
				    "moved/in/y opaque/z mode/m deep/a/b/c run; do echo $f >$f; "
				    "done; ln -s a link; ln -s b dead; chmod "
				    "+x run; chmod 750 mode; touch -d '2001-02-03' a d/f "
				    "gone/in/x; mkdir tofile; echo 1 >tofile/1; echo "
				    "2 >todir";

/* Everything that an agent may do to it. */
static const char change_tree[] = "cd tree; echo more >>a; rm b d/f link; ln -s /etc dead2; ln "
				  "-sfn x dead; rm -r gone; mv moved "
				  "d/moved; echo n >d/moved/new; rm -r opaque; mkdir opaque; echo "
				  "o >opaque/o; chmod 700 mode; chmod "
				  "0 deep/a/b; mkfifo p; mkdir -p new/sub; echo s >new/sub/s; "
				  "chmod 0 new; chmod -x run; rm -r tofile; "
				  "echo f >tofile; rm todir; mkdir todir; echo t >todir/t; mkdir "
				  "-p d/e/.git; echo x >d/e/.git/HEAD; "
				  "echo link >.git";

static const char compare[] =
	"list() { cd $1; find . -mindepth 1 ! -path ./.git \\( -type f -printf '%p %m %s %T@\\n' "
	"-o -type l "
	"-printf '%p -> %l\\n' -o -printf '%p %y %m\\n' \\) | sort; cd ..; }; "
	"list template >1; list tree >2; diff 1 2; rm tree/.git; diff -r --no-dereference template "
	"tree";

static void assert_restored(void)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	if (sh_code(compare, &out) != 0)
		fail_msg("%s", ap_buf_text(&out));
}

static void restore(const struct layer_place *place)
{
	struct layer *layer;
	struct ap_err err = {""};
	assert_int_equal(layer_open(&layer, place, &err), 0);
	if (restore_from(layer, template, &err) < 0)
		fail_msg("%s", err.text);
	layer_close(layer);
}

static void puts_an_overlay_back(void **state)
{
	needs_root();
	const struct layer_place place = {.upper = upper, .path = tree};
	sh(make_template);
	mount_overlay();
	sh(change_tree);
	restore(&place);
	assert_restored();
	sh(change_tree); /* and again, over what was put back */
	restore(&place);
	assert_restored();
}

static void puts_a_copy_back(void **state)
{
	const struct layer_place place = {.path = tree, .manifest = list};
	struct ap_err err;
	sh(make_template);
	sh("cp -a template/. tree");
	assert_int_equal(layer_write_manifest(tree, list, &err), 0);
	sh(change_tree);
	restore(&place);
	assert_restored();
}

static void says_what_is_mounted(void **state)
{
	needs_root();
	struct layer *layer;
	struct ap_err err;
	const struct layer_place place = {.path = tree, .manifest = list};
	sh(make_template);
	sh("cp -a template/. tree; mkdir data; echo precious >data/file");
	assert_int_equal(layer_write_manifest(tree, list, &err), 0);
	sh("mkdir tree/mnt; mount --bind data tree/mnt; rm tree/a");
	assert_int_equal(layer_open(&layer, &place, &err), 0);
	assert_int_equal(restore_from(layer, template, &err), -EBUSY);
	assert_non_null(strstr(err.text, "mnt"));
	layer_close(layer);
	sh("test -s data/file; test -s tree/a; umount tree/mnt"); /* the rest is put back */
}

/* --- keeping --- */

static void keeps_an_upper_directory(void **state)
{
	needs_root();
	struct ap_err err;
	char kept[PATH_MAX + 16];
	const struct layer_place place = {.upper = upper, .path = tree};
	snprintf(kept, sizeof kept, "%s/kept", top);
	sh(make_template);
	mount_overlay();
	sh(change_tree);
	sh("cd tree; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'");
	if (restore_keep_links(upper, kept, &err) < 0)
		fail_msg("%s", err.text);
	sh("cp -a tree seen; rm seen/sock"); /* sockets are not kept */
	restore(&place);
	assert_restored();
	/* what was kept shows the same over the template as it did */
	assert_int_equal(umount2(tree, 0), 0);
	sh("rm -rf work; mkdir work");
	AP_CLEANUP_BUF struct ap_buf options = {0};
	ap_buf_printf(&options, "redirect_dir=on,lowerdir=%s,upperdir=%s,workdir=%s/work", template,
		      kept, top);
	assert_int_equal(mount("test", tree, "overlay", 0, ap_buf_text(&options)), 0);
	AP_CLEANUP_BUF struct ap_buf out = {0};
	if (sh_code("chmod 755 seen/new tree/new; list() { cd $1; find . -mindepth 1 \\( -type f "
		    "-printf '%p %m "
		    "%s %T@\\n' -o -printf '%p %y %m %l\\n' \\) | sort; cd ..; }; list seen >1; "
		    "list tree >2; "
		    "diff 1 2; mv seen/p .; rm tree/p; diff -r --no-dereference seen tree",
		    &out) != 0)
		fail_msg("%s", ap_buf_text(&out));
}

static void keeps_what_is_shut(void **state)
{
	struct ap_err err;
	char kept[PATH_MAX + 16];
	struct stat was, is;
	snprintf(kept, sizeof kept, "%s/kept", top);
	sh("cd tree; mkdir -p d/shut; echo x >d/shut/f; ln d/shut/f other; chmod 0 d/shut; chmod "
	   "500 d");
	if (restore_keep_links(tree, kept, &err) < 0)
		fail_msg("%s", err.text);
	sh("test $(stat -c %a kept/d/shut) = 0; test $(stat -c %a tree/d/shut) = 0; test $(stat -c "
	   "%a kept/d) "
	   "= 500; test kept/other -ef tree/other; chmod 700 kept/d kept/d/shut; test kept/other "
	   "-ef "
	   "kept/d/shut/f");
	assert_int_equal(stat(tree, &was), 0);
	assert_int_equal(stat(kept, &is), 0);
	assert_int_equal(was.st_mtim.tv_nsec, is.st_mtim.tv_nsec);
	assert_int_equal(restore_keep_links(tree, kept, &err), -EEXIST);
}

/* --- removing --- */

static void removes_what_is_in_the_way(void **state)
{
	struct ap_err err = {""};
	uint64_t left = 1;
	sh("cd tree; mkdir -p a/b/c ro; touch a/b/c/f ro/f; mkfifo p; ln -s / root; chmod 0 a/b/c; "
	   "chmod 0 "
	   "a/b; chmod 500 ro");
	if (remove_tree(tree, &left, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(left, 0);
	assert_int_equal(access(tree, F_OK), -1);
	assert_int_equal(remove_tree(tree, &left, &err), 0); /* it is not there */
	sh("touch one; ln -s template link");
	snprintf(list, sizeof list, "%s/link", top);
	assert_int_equal(remove_tree(list, NULL, &err), 0);
	sh("test -d template; test ! -L link");
}

/* However long it is, with few descriptors. */
static void removes_what_is_deep(void **state)
{
	struct rlimit files, few;
	struct ap_err err = {""};
	int at = open(tree, O_PATH | O_DIRECTORY);
	for (unsigned i = 0; i < 10000; i++) {
		assert_int_equal(mkdirat(at, i % 3 ? "removed-0" : "d", 0700), 0);
		int below = openat(at, i % 3 ? "removed-0" : "d", O_PATH | O_DIRECTORY);
		close(at);
		at = below;
	}
	close(at);
	getrlimit(RLIMIT_NOFILE, &files);
	few = (struct rlimit){.rlim_cur = 64, .rlim_max = files.rlim_max};
	setrlimit(RLIMIT_NOFILE, &few);
	int r = remove_tree(tree, NULL, &err);
	setrlimit(RLIMIT_NOFILE, &files);
	if (r < 0)
		fail_msg("%s", err.text);
	assert_int_equal(access(tree, F_OK), -1);
}

static void removes_what_is_immutable(void **state)
{
	needs_root();
	struct ap_err err = {""};
	sh("cd tree; mkdir -p i/d log; touch i/d/f log/f; chattr +i i/d/f i/d; chattr +a log/f "
	   "log");
	if (remove_tree(tree, NULL, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(access(tree, F_OK), -1);
}

static void leaves_what_is_mounted(void **state)
{
	needs_root();
	struct ap_err err;
	uint64_t left;
	sh("mkdir data; echo precious >data/file; cd tree; mkdir -p a/mnt a/b; touch a/f a/b/f "
	   "file; mount "
	   "--bind ../data a/mnt; mount --bind ../data/file file");
	assert_int_equal(remove_tree(tree, &left, &err), -EBUSY);
	assert_int_equal(left, 2);
	sh("test -s data/file; test ! -e tree/a/b; test ! -e tree/a/f; umount tree/a/mnt "
	   "tree/file");
	assert_int_equal(remove_tree(tree, &left, &err), 0);
}

/* --- mounts --- */

struct told {
	unsigned n;
	char text[1024];
};

static void tell(void *data, const char *place, const char *type)
{
	struct told *told = data;
	told->n++;
	snprintf(told->text + strlen(told->text), sizeof told->text - strlen(told->text), "%s %s\n",
		 place + strlen(tree), type);
}

static int mount_silent(const char *name)
{
	char path[PATH_MAX + 64], options[128];
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	snprintf(path, sizeof path, "%s%s", tree, name);
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
	assert_int_equal(mount("silent", path, "fuse", 0, options), 0);
	return fd;
}

static void lets_go_of_mounts(void **state)
{
	needs_root();
	struct told told = {.n = 0};
	struct ap_err err = {""};
	sh("mkdir data; echo precious >data/file; mkdir -p template/a template/b");
	mount_overlay();
	sh("cd tree; mkdir 'a b' \"$(printf 'new\\nline')\" m; for at in 'a b' \"$(printf "
	   "'new\\nline')\" m m "
	   "m; do mount --bind ../data \"$at\"; done; mkdir ../data/in; mount -t tmpfs t m/in");
	int silent = mount_silent("/a");
	sh("mkdir tree2; mount --bind data tree2"); /* its path begins alike */
	if (restore_unmount(tree, 1, tell, &told, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(told.n, 7);
	assert_non_null(strstr(told.text, "/a fuse\n"));
	assert_non_null(strstr(told.text, "/m/in tmpfs\n"));
	sh("test -s data/file; test -d tree/b; test -e tree2/file; ! grep \" $PWD/tree/\" "
	   "/proc/self/mountinfo; "
	   "umount tree2");
	/* and over the worktree itself: no look at it, and what lies below is let go of too */
	sh("mount --bind data tree/b");
	int over = mount_silent("");
	if (restore_unmount(tree, 1, tell, &told, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(told.n, 9);
	sh("test -d tree/b; test ! -e tree/b/file; test \"$(grep -c \" $PWD/tree\" "
	   "/proc/self/mountinfo)\" = 1");
	assert_int_equal(restore_unmount(tree, 0, NULL, NULL, &err), 0);
	sh("! grep \" $PWD/tree\" /proc/self/mountinfo");
	close(silent);
	close(over);
}

static void lets_go_of_a_mount_in_the_place_of_ours(void **state)
{
	needs_root();
	struct ap_err err = {""};
	struct told told = {.n = 0};
	int silent = mount_silent(""); /* the overlay is not there */
	if (restore_unmount(tree, 1, tell, &told, &err) < 0)
		fail_msg("%s", err.text);
	assert_string_equal(told.text, " fuse\n");
	close(silent);
}

#define IT_IN_TOP(sentence, function)                                                              \
	{                                                                                          \
		.name = (sentence), .test_func = (function), .setup_func = make_top,               \
		.teardown_func = remove_top                                                        \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT_IN_TOP(AS_ROOT "an overlay is as its template again, whatever was done to it",
			  puts_an_overlay_back),
		IT_IN_TOP("a copy is as its template again", puts_a_copy_back),
		IT_IN_TOP(AS_ROOT "what is mounted in a worktree is said, and the rest put back",
			  says_what_is_mounted),
		IT_IN_TOP(AS_ROOT "an upper directory that was kept shows what it showed",
			  keeps_an_upper_directory),
		IT_IN_TOP("what is shut is kept, and as shut", keeps_what_is_shut),
		IT_IN_TOP("modes are not in the way of a removal, and links not followed",
			  removes_what_is_in_the_way),
		IT_IN_TOP("ten thousand directories in one another are removed",
			  removes_what_is_deep),
		IT_IN_TOP(AS_ROOT "what is immutable or append-only is removed",
			  removes_what_is_immutable),
		IT_IN_TOP(AS_ROOT "what is mounted stays, is counted and named",
			  leaves_what_is_mounted),
		IT_IN_TOP(AS_ROOT "all mounts below a worktree are let go of, none is looked at",
			  lets_go_of_mounts),
		IT_IN_TOP(AS_ROOT "a mount in the place of the pool's own is let go of",
			  lets_go_of_a_mount_in_the_place_of_ours),
	};
	return cmocka_run_group_tests_name("restore", tests, NULL, NULL);
}
