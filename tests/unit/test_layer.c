/* Layers read: what was changed in an overlay or since a manifest, whatever stands there. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "file.h"
#include "layer.h"
#include "layer_list.h"
#include "process.h"

static char top[PATH_MAX], upper[PATH_MAX + 8], tree[PATH_MAX + 8], list[PATH_MAX + 8];

/* Runs a script in the test's directory. */
static void sh(const char *script)
{
	const char *argv[] = {"sh", "-euc", script, NULL};
	struct ap_err err = {""};
	int r = process_run(
		&(struct process_run){.argv = argv, .dir = top, .limit_ns = 60 * AP_SECOND}, &err);
	if (r != 0)
		fail_msg("%s: %s", script, err.text);
}

static int make_top(void **state)
{
	char name[] = "/tmp/agentpool-layer-XXXXXX";
	if (!mkdtemp(name) || !realpath(name, top))
		return -1;
	snprintf(upper, sizeof upper, "%s/upper", top);
	snprintf(tree, sizeof tree, "%s/tree", top);
	snprintf(list, sizeof list, "%s/list", top);
	sh("mkdir upper tree work template");
	return 0;
}

static int remove_top(void **state)
{
	sh("while umount -l tree/mnt tree/file 2>/dev/null || umount -l tree 2>/dev/null; do :; "
	   "done; "
	   "chmod -R u+rwx .; rm -rf ./*");
	return rmdir(top);
}

static void mount_overlay(const char *more)
{
	AP_CLEANUP_BUF struct ap_buf options = {0};
	ap_buf_printf(&options,
		      "redirect_dir=on,lowerdir=%s/template,upperdir=%s,workdir=%s/work%s", top,
		      upper, top, more);
	if (mount("test", tree, "overlay", 0, ap_buf_text(&options)) < 0)
		fail_msg("mounting an overlay: %s", strerror(errno));
}

static void unmount_tree(void)
{
	assert_int_equal(umount2(tree, MNT_DETACH), 0);
}

/* --- a layer as text: kind, path, and what is to be said of it --- */

static void add_lines(const struct layer_dir *dir, const char *path, struct ap_buf *ret)
{
	for (size_t i = 0; i < dir->n; i++) {
		const struct layer_entry *entry = &dir->entries[i];
		AP_CLEANUP_BUF struct ap_buf below = {0};
		struct layer_dir inner;
		struct ap_err err;
		ap_buf_printf(&below, "%s%s%s", path, *path ? "/" : "", entry->name);
		ap_buf_printf(ret, "%c %s%s%s%s%s\n", "FLDGOM"[entry->kind], ap_buf_text(&below),
			      entry -> is_opaque ? " opaque" : "", entry->from ? " from " : "",
			      entry->from ? entry->from : "",
			      entry->is_baseline ? " baseline" : "");
		if (entry->kind != LAYER_DIR)
			continue;
		int r = layer_enter(dir, entry, ap_buf_text(&below), false, &inner, &err);
		if (r < 0) {
			ap_buf_printf(ret, "! %s %s\n", ap_buf_text(&below), strerror(-r));
			continue;
		}
		add_lines(&inner, ap_buf_text(&below), ret);
		layer_dir_fini(&inner);
	}
}

static int compare_lines(const void *a, const void *b)
{
	return strcmp(strchr(*(char *const *)a, ' '), strchr(*(char *const *)b, ' '));
}

/* Sorted by path. */
static char *text_of(struct layer *layer)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	AP_CLEANUP_BUF struct ap_buf sorted = {0};
	struct layer_dir dir;
	struct ap_err err;
	char *lines[4096];
	size_t n = 0;
	if (layer_top(layer, &dir, &err) < 0)
		fail_msg("%s", err.text);
	add_lines(&dir, "", &text);
	layer_dir_fini(&dir);
	for (char *at = text.data, *line; at && (line = strsep(&at, "\n")) && *line;)
		lines[n++] = line;
	qsort(lines, n, sizeof *lines, compare_lines);
	for (size_t i = 0; i < n; i++)
		ap_buf_printf(&sorted, "%s\n", lines[i]);
	return strdup(ap_buf_text(&sorted));
}

static struct layer *open_layer(const struct layer_place *place)
{
	struct layer *layer;
	struct ap_err err;
	if (layer_open(&layer, place, &err) < 0)
		fail_msg("%s", err.text);
	return layer;
}

static void assert_layer(const struct layer_place *place, const char *expected)
{
	struct layer *layer = open_layer(place);
	AP_CLEANUP_FREE char *text = text_of(layer);
	assert_string_equal(text, expected);
	layer_close(layer);
}

static struct layer_place upper_place(void)
{
	return (struct layer_place){.upper = upper, .path = tree, .user_xattrs = geteuid() != 0};
}

static struct layer_place manifest_place(void)
{
	return (struct layer_place){.path = tree, .manifest = list};
}

/* Longer than a tick: what was made is told from what is made from now on. */
static void let_a_tick_pass(void)
{
	struct timespec begin, now, tick;
	clock_getres(CLOCK_REALTIME_COARSE, &tick);
	clock_gettime(CLOCK_REALTIME_COARSE, &begin);
	do
		clock_gettime(CLOCK_REALTIME_COARSE, &now);
	while ((now.tv_sec - begin.tv_sec) * AP_SECOND + now.tv_nsec - begin.tv_nsec <
	       3 * tick.tv_nsec);
}

static void write_manifest(void)
{
	struct ap_err err;
	let_a_tick_pass();
	if (layer_write_manifest(tree, list, &err) < 0)
		fail_msg("%s", err.text);
}

/* --- overlays --- */

static void reads_an_overlay(void **state)
{
	needs_root();
	sh("cd template; mkdir -p d/e gone moved/in opaque; for f in a d/f d/e/g gone/x moved/in/y "
	   "opaque/z same; do echo $f >$f; done");
	mount_overlay("");
	sh("cd tree; echo more >>a; rm d/f; ln -s a link; rm -r gone; mv moved d/to; echo new "
	   ">d/to/in/new; rm -r opaque; mkdir opaque; touch opaque/n; mkfifo p; mkdir -p "
	   "fresh/sub; "
	   "touch .git .gitx");
	const struct layer_place place = upper_place();
	assert_layer(&place,
		     "F .gitx\nF a\nD d\nG d/f\nD d/to from moved\nD d/to/in\nF d/to/in/new\n"
		     "D fresh opaque\nD fresh/sub\nG gone\nL link\nG moved\nD opaque opaque\n"
		     "F opaque/n\nO p\n");
	unmount_tree();
}

static void reads_moved_directories(void **state)
{
	needs_root();
	sh("cd template; mkdir -p a/b/c x; echo 1 >a/b/c/f; echo 2 >a/b/g; echo 3 >a/h; echo 4 "
	   ">x/i");
	mount_overlay("");
	/* one in another, each moved several times; one away and back */
	sh("cd tree; mv a a1; mv a1/b a1/b1; mv a1/b1/c a1/b1/c1; mv a1 a2; mv a2/b1/c1 c2; mv x "
	   "y; mv y "
	   "x; mkdir new; mv a2/b1 new/b");
	struct layer *layer = open_layer(&(struct layer_place){.upper = upper, .path = tree});
	AP_CLEANUP_FREE char *text = text_of(layer);
	assert_non_null(strstr(text, "D a2 from a\n"));
	assert_non_null(strstr(text, "D new/b from a/b\n"));
	assert_non_null(strstr(text, "D c2 from a/b/c\n"));
	assert_non_null(strstr(text, "D x\n"));
	layer_close(layer);
	unmount_tree();
}

static void set_mark(const char *dir, const char *mark, const char *value)
{
	char path[PATH_MAX + 64], key[64];
	snprintf(path, sizeof path, "%s/%s", upper, dir);
	snprintf(key, sizeof key, "%s.overlay.%s", geteuid() == 0 ? "trusted" : "user", mark);
	if (setxattr(path, key, value, strlen(value), 0) < 0)
		fail_msg("%s: %s", path, strerror(errno));
}

static void takes_marks_as_data(void **state)
{
	sh("cd upper; mkdir -p a/b/c/d up abs/rel empty slash dots odd mine shut o/p");
	set_mark("a", "redirect", "old");
	set_mark("a/b/c", "redirect", "other");
	set_mark("a/b/c/d", "redirect", "/x//y/./z/");
	set_mark("up", "redirect", "..");
	set_mark("dots", "redirect", "/a/../../etc");
	set_mark("slash", "redirect", "a/b");
	set_mark("empty", "redirect", "/");
	set_mark("mine", "redirect", "/mine");
	set_mark("odd", "opaque", "x");
	set_mark("shut", "opaque", "y");
	set_mark("o", "opaque", "y");
	set_mark("o/p", "redirect", "q");
	sh("chmod 0 upper/shut");
	const struct layer_place place = upper_place();
	char expected[1024];
	snprintf(expected, sizeof expected,
		 "D a from old\nD a/b\nD a/b/c from old/b/other\nD a/b/c/d from x/y/z\nD abs\n"
		 "D abs/rel\nD dots opaque\nD empty opaque\nD mine\nD o opaque\nD o/p opaque\n"
		 "D odd\n%sD shut opaque\nD slash opaque\nD up opaque\n",
		 geteuid() == 0 ? "" : "! shut Permission denied\n");
	assert_layer(&place, expected);
}

static void tells_what_setup_made(void **state)
{
	needs_root();
	struct layer_list *before;
	struct ap_err err;
	sh("cd template; mkdir d e m; echo 1 >a; echo 2 >b; echo 3 >d/c; echo 4 >e/x; echo 5 >m/y");
	mount_overlay("");
	sh("cd tree; echo work >kept; echo work >both; rm b");
	struct layer_place place = upper_place();
	struct layer *layer = open_layer(&place);
	assert_int_equal(layer_note(layer, &before, &err), 0);
	sh("cd tree; mkdir -p deps/in; echo s >deps/in/f; echo s >>a; echo s >>both; rm d/c; rm -r "
	   "e; mkdir "
	   "e; mv m n; echo s >once; echo s >deps/gone");
	assert_int_equal(layer_write_baseline(layer, before, list, &err), 0);
	layer_list_free(before);
	layer_close(layer);
	place.baseline = list;
	assert_layer(
		&place,
		"F a baseline\nG b\nF both baseline\nD d\nG d/c baseline\nD deps opaque baseline\n"
		"F deps/gone baseline\nD deps/in\nF deps/in/f baseline\nD e opaque "
		"baseline\nF kept\n"
		"G m baseline\nD n from m baseline\nF once baseline\n");
	/* whatever is changed afterwards is work */
	sh("cd tree; echo w >>deps/in/f; rm a; echo w >once.new; mv once.new once; rm deps/gone; "
	   "echo w "
	   ">d/c; rm -r e; mkdir e");
	assert_layer(&place,
		     "G a\nG b\nF both baseline\nD d\nF d/c\nD deps opaque baseline\nD "
		     "deps/in\nF deps/in/f\n"
		     "D e opaque baseline\nF kept\nG m baseline\nD n from m baseline\nF once\n");
	unmount_tree();
}

/* --- manifests --- */

static void finds_what_differs(void **state)
{
	const struct layer_place place = manifest_place();
	sh("cd tree; mkdir -p d/e gone/in swap; for f in a b d/f d/e/g gone/in/x swap/z same mode; "
	   "do echo "
	   "$f >$f; done; ln -s a link; ln -s a relink; touch .git; chmod 0 d/e/g");
	write_manifest();
	assert_layer(&place, "D d\nD d/e\nD gone\nD gone/in\nD swap\n");
	sh("cd tree; echo more >>a; touch -r b t; echo B >c; touch -r t c; mv c b; rm t; rm d/f; "
	   "rm -r gone; "
	   "rm -r swap; echo x >swap; ln -sfn b relink; mkfifo d/p; chmod +x mode; mkdir d/new; "
	   "touch "
	   "d/new/n; rm .git; chmod 600 d/e/g; chmod 0 d/e/g");
	assert_layer(&place,
		     "F a\nF b\nD d\nD d/e\nF d/e/g\nG d/f\nD d/new\nF d/new/n\nO d/p\nG gone\n"
		     "F mode\nL relink\nF swap\n");
}

static void takes_times_for_nothing(void **state)
{
	const struct layer_place place = manifest_place();
	sh("cd tree; echo one >a; touch -d '2001-01-01' a");
	write_manifest();
	sh("cd tree; echo two >a; touch -d '2001-01-01' a");
	assert_layer(&place, "F a\n");
}

static void doubts_what_was_just_changed(void **state)
{
	const struct layer_place place = manifest_place();
	struct ap_err err;
	struct layer_list *read;
	sh("echo one >tree/a");
	write_manifest();
	assert_layer(&place, "");
	/* as if the list had been begun in the tick in which the file was changed */
	assert_int_equal(layer_list_read(&read, list, &err), 0);
	read->moment_ns = layer_list_node(read, layer_list_find(read, LAYER_ROOT, "a"))->ctime_ns;
	assert_int_equal(layer_list_write(read, list, &err), 0);
	layer_list_free(read);
	assert_layer(&place, "F a\n");
}

static void refuses_a_damaged_list(void **state)
{
	struct layer_list *read = NULL;
	struct ap_err err;
	AP_CLEANUP_BUF struct ap_buf whole = {0};
	assert_int_equal(layer_list_read(&read, list, &err), -ENOENT);
	sh("mkdir tree/d; touch tree/a tree/d/b");
	write_manifest();
	assert_int_equal(file_read(list, 0, 1 << 20, &whole, &err), 0);
	for (size_t i = 0; i < whole.len; i++) { /* any byte; any length */
		whole.data[i] ^= 1;
		assert_int_equal(file_write(list, whole.data, whole.len, &err), 0);
		assert_int_equal(layer_list_read(&read, list, &err), -EIO);
		whole.data[i] ^= 1;
		assert_int_equal(file_write(list, whole.data, i, &err), 0);
		assert_int_equal(layer_list_read(&read, list, &err), -EIO);
	}
	struct layer *layer;
	const struct layer_place place = manifest_place();
	assert_int_equal(layer_open(&layer, &place, &err), -EIO);
	sh("rm list");
	assert_int_equal(layer_open(&layer, &place, &err), -ENOENT);
}

/* --- what may stand there --- */

static void goes_as_deep_as_it_may(void **state)
{
	const struct layer_place place = manifest_place();
	write_manifest();
	/* longer than any path: 20 bytes each */
	char name[] = "a-directory-in-one-";
	int at = open(tree, O_PATH | O_DIRECTORY);
	for (unsigned i = 0; i < LAYER_DEPTH_MAX + 1; i++) {
		assert_int_equal(mkdirat(at, name, 0700), 0);
		int below = openat(at, name, O_PATH | O_DIRECTORY);
		close(at);
		at = below;
	}
	close(at);
	struct layer *layer = open_layer(&place);
	struct layer_dir *dirs = calloc(LAYER_DEPTH_MAX + 2, sizeof *dirs);
	AP_CLEANUP_BUF struct ap_buf path = {0};
	struct ap_err err;
	unsigned n = 0;
	int r = layer_top(layer, &dirs[n++], &err);
	while (r == 0) {
		const struct layer_dir *dir = &dirs[n - 1];
		assert_int_equal(dir->n, 1);
		ap_buf_printf(&path, "%s%s", n > 1 ? "/" : "", name);
		if (n == LAYER_DEPTH_MAX + 1) {
			char *slash = strrchr(path.data, '/');
			path.len = (size_t)(slash - path.data);
			*slash = '\0';
			int fd = layer_merged_dir(layer, path.data, &err);
			assert_true(fd >= 0);
			assert_int_equal(faccessat(fd, name, F_OK, 0), 0);
			close(fd);
		}
		r = layer_enter(dir, &dir->entries[0], path.data, false, &dirs[n++], &err);
	}
	assert_int_equal(r, -ENAMETOOLONG);
	assert_int_equal(n, LAYER_DEPTH_MAX + 2);
	assert_non_null(strstr(err.text, "directories in one another"));
	while (--n > 0)
		layer_dir_fini(&dirs[n - 1]);
	free(dirs);
	layer_close(layer);
}

static void reads_what_is_what_it_was(void **state)
{
	const struct layer_place place = manifest_place();
	struct layer_dir dir;
	struct ap_err err;
	AP_CLEANUP_BUF struct ap_buf target = {0};
	write_manifest();
	sh("cd tree; echo text >f; ln -s /etc/passwd l");
	struct layer *layer = open_layer(&place);
	assert_int_equal(layer_top(layer, &dir, &err), 0);
	assert_int_equal(dir.n, 2);
	const struct layer_entry *file = &dir.entries[dir.entries[0].kind == LAYER_FILE ? 0 : 1],
				 *link = &dir.entries[dir.entries[0].kind == LAYER_FILE ? 1 : 0];
	int fd = layer_open_file(&dir, file, false, &err);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(layer_read_link(&dir, link, &target, &err), 0);
	assert_string_equal(ap_buf_text(&target), "/etc/passwd");
	sh("cd tree; rm f; mkfifo f; rm l; mkdir l");
	assert_int_equal(layer_open_file(&dir, file, true, &err), -ESTALE);
	assert_int_equal(layer_read_link(&dir, link, &target, &err), -ESTALE);
	sh("cd tree; rm f; ln -s /etc/passwd f");
	assert_int_equal(layer_open_file(&dir, file, true, &err), -ESTALE);
	layer_dir_fini(&dir);
	layer_close(layer);
}

static void makes_readable_what_is_ours(void **state)
{
	const struct layer_place place = manifest_place();
	struct layer_dir dir, below;
	struct ap_err err;
	struct stat st;
	char path[PATH_MAX + 32];
	write_manifest();
	sh("cd tree; mkdir d; echo x >d/f; chmod 200 d/f; chmod 20 d");
	struct layer *layer = open_layer(&place);
	assert_int_equal(layer_top(layer, &dir, &err), 0);
	if (geteuid() != 0)
		assert_int_equal(layer_enter(&dir, dir.entries, "d", false, &below, &err), -EACCES);
	assert_int_equal(layer_enter(&dir, dir.entries, "d", true, &below, &err), 0);
	int fd = layer_open_file(&below, below.entries, true, &err);
	assert_true(fd >= 0);
	close(fd);
	snprintf(path, sizeof path, "%s/d", tree);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, geteuid() == 0 ? 020 : 0520);
	layer_dir_fini(&below);
	layer_dir_fini(&dir);
	layer_close(layer);
}

/* A FUSE file system that nobody serves, at a directory and at a file; in a process of its own, as
 * it would hang with whoever touched it. */
static void mount_silent(const char *name, const char *mode)
{
	char path[PATH_MAX + 32], options[128];
	int fd = open("/dev/fuse", O_RDWR);
	assert_true(fd >= 0);
	snprintf(path, sizeof path, "%s/%s", tree, name);
	snprintf(options, sizeof options, "fd=%d,rootmode=%s,user_id=0,group_id=0", fd, mode);
	assert_int_equal(mount("silent", path, "fuse", 0, options), 0);
}

static void touches_no_mount(void **state)
{
	needs_root();
	const struct layer_place place = manifest_place();
	struct ap_err err;
	sh("mkdir tree/mnt tree/d; echo x >tree/file; echo y >tree/d/z");
	write_manifest();
	mount_silent("mnt", "40000");
	mount_silent("file", "100000");
	assert_layer(&place, "D d\nM file\nM mnt\n");
	struct layer *layer = open_layer(&place);
	assert_int_equal(layer_merged_dir(layer, "mnt", &err), -EXDEV);
	assert_int_equal(layer_merged_dir(layer, "mnt/below", &err), -EXDEV);
	layer_close(layer);
	/* and over the worktree itself */
	mount_silent(".", "40000");
	assert_int_equal(layer_open(&layer, &place, &err), -EXDEV);
	const struct layer_place over = {.upper = upper, .path = tree};
	layer = open_layer(&over);
	assert_int_equal(layer_merged_dir(layer, "", &err), -EXDEV);
	layer_close(layer);
	unmount_tree();
	sh("umount -l tree/file tree/mnt");
}

static void finds_directories_as_the_agent_sees_them(void **state)
{
	needs_root();
	struct ap_err err;
	sh("mkdir -p template/a/b; ln -s a template/link; touch template/a/b/f template/file");
	mount_overlay("");
	const struct layer_place place = upper_place();
	struct layer *layer = open_layer(&place);
	int fd = layer_merged_dir(layer, "a/b", &err);
	assert_true(fd >= 0);
	assert_int_equal(faccessat(fd, "f", F_OK, 0), 0);
	close(fd);
	assert_int_equal(layer_merged_dir(layer, "link/b", &err), -ELOOP);
	assert_int_equal(layer_merged_dir(layer, "file", &err), -ENOTDIR);
	assert_int_equal(layer_merged_dir(layer, "none", &err), -ENOENT);
	layer_close(layer);
	unmount_tree();
}

int main(void)
{
#define IT_IN_TOP(sentence, function)                                                              \
	{                                                                                          \
		.name = (sentence), .test_func = (function), .setup_func = make_top,               \
		.teardown_func = remove_top                                                        \
	}
	const struct CMUnitTest tests[] = {
		IT_IN_TOP(AS_ROOT "an overlay's layer is what its upper directory holds",
			  reads_an_overlay),
		IT_IN_TOP(AS_ROOT
			  "a directory that was moved says from where, whatever was moved with it",
			  reads_moved_directories),
		IT_IN_TOP("marks are taken as data: none leads out of the template",
			  takes_marks_as_data),
		IT_IN_TOP(AS_ROOT "what setup made is told from what is changed afterwards",
			  tells_what_setup_made),
		IT_IN_TOP("what differs from a manifest is found", finds_what_differs),
		IT_IN_TOP("times that were set hide no change", takes_times_for_nothing),
		IT_IN_TOP("what was changed in the tick of the manifest counts as changed",
			  doubts_what_was_just_changed),
		IT_IN_TOP("a damaged list is refused, whatever is damaged", refuses_a_damaged_list),
		IT_IN_TOP("directories are entered beyond the longest path, to a bound",
			  goes_as_deep_as_it_may),
		IT_IN_TOP("what has become something else is not opened",
			  reads_what_is_what_it_was),
		IT_IN_TOP("what is ours is made readable, and no more than that",
			  makes_readable_what_is_ours),
		IT_IN_TOP(AS_ROOT "what is mounted in a worktree, or over it, is not touched",
			  touches_no_mount),
		IT_IN_TOP(AS_ROOT "a directory is found as the agent sees it, through no link",
			  finds_directories_as_the_agent_sees_them),
	};
	return cmocka_run_group_tests_name("layer", tests, NULL, NULL);
}
