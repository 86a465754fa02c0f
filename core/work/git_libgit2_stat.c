/* Counts the difference of two trees by libgit2. Its own comparison of trees reads both as a whole;
 * so it gets two lists in memory of the paths that differ. */
#include <git2.h>

#include "git_stat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"

struct lists {
	git_index *old, *new;
	int error; /* of libgit2 */
};

static int add(git_index *index, const char *path, const struct ap_git_entry *entry)
{
	git_index_entry made = {.mode = entry->mode, .path = path};
	if (git_oid_fromstr(&made.id, entry->oid) < 0)
		return -1;
	int r = git_index_add(index, &made);
	/* git did not make this tree, and would not accept this path */
	return r == GIT_EINVALIDSPEC || r == -1 ? 0 : r;
}

static int add_change(void *data, const char *path, const struct ap_git_entry *old,
		      const struct ap_git_entry *new)
{
	struct lists *lists = data;
	if (old)
		lists->error = add(lists->old, path, old);
	if (new && lists->error == 0)
		lists->error = add(lists->new, path, new);
	return lists->error == 0 ? 0 : -EIO;
}

static int failed(struct ap_err *err)
{
	const git_error *last = git_error_last();
	return ap_err_set(err, -EIO, "diffstat: %s",
			  last && last->message ? last->message : "git failed without a word");
}

static uint64_t size_of(git_odb *odb, const git_diff_file *file)
{
	git_object_t type;
	size_t size;
	if (git_oid_is_zero(&file->id) || git_libgit2_header(odb, &file->id, &size, &type) < 0)
		return 0;
	return size;
}

/* Appends what git compares of one side. */
static int read_side(git_odb *odb, const git_diff_file *file, struct ap_buf *ret)
{
	git_odb_object *object = NULL;
	char oid[GIT_OID_HEXSZ + 1];
	if (file->mode == GIT_FILEMODE_COMMIT) {
		ap_buf_printf(ret, "Subproject commit %s\n",
			      git_oid_tostr(oid, sizeof oid, &file->id));
		return 0;
	}
	int r = git_odb_read(&object, odb, &file->id);
	if (r == 0)
		ap_buf_add(ret, git_odb_object_data(object), git_odb_object_size(object));
	git_odb_object_free(object);
	return r;
}

/* Makes a patch for a file that became a link, or the other way round: libgit2 makes none itself.
 */
static int patch_of_types(git_odb *odb, const git_diff_delta *delta, git_patch **ret)
{
	AP_CLEANUP_BUF struct ap_buf old = {0};
	AP_CLEANUP_BUF struct ap_buf new = {0};
	git_diff_options options;
	git_diff_options_init(&options, GIT_DIFF_OPTIONS_VERSION);
	options.max_size = GIT_STAT_MAX;
	int r = 0;
	if (size_of(odb, &delta->old_file) <= GIT_STAT_MAX)
		r = read_side(odb, &delta->old_file, &old);
	if (r == 0 && size_of(odb, &delta->new_file) <= GIT_STAT_MAX)
		r = read_side(odb, &delta->new_file, &new);
	return r < 0 ? r
		     : git_patch_from_buffers(ret, ap_buf_text(&old), old.len, delta->old_file.path,
					      ap_buf_text(&new), new.len, delta->new_file.path,
					      &options);
}

/* Fills the numbers of one file. */
static int count(git_diff *diff, size_t i, git_odb *odb, struct git_stat *ret)
{
	git_patch *patch = NULL;
	size_t added, deleted;
	const git_diff_delta *delta = git_diff_get_delta(diff, i);
	int r = delta->status == GIT_DELTA_TYPECHANGE ? patch_of_types(odb, delta, &patch)
						      : git_patch_from_diff(&patch, diff, i);
	if (r == 0 && patch)
		r = git_patch_line_stats(NULL, &added, &deleted, patch);
	if (r < 0)
		return r;
	bool same = git_oid_equal(&delta->old_file.id, &delta->new_file.id);
	ret->path =
		delta->status == GIT_DELTA_DELETED ? delta->old_file.path : delta->new_file.path;
	ret->old_path = delta->status == GIT_DELTA_RENAMED ? delta->old_file.path : NULL;
	ret->is_binary = patch && (git_patch_get_delta(patch)->flags & GIT_DIFF_FLAG_BINARY) != 0;
	if (ret->is_binary && !same) {
		ret->added = size_of(odb, &delta->new_file);
		ret->deleted = size_of(odb, &delta->old_file);
	} else if (!ret->is_binary && patch) {
		ret->added = added;
		ret->deleted = deleted;
	}
	git_patch_free(patch);
	return 0;
}

static int compare(const void *a, const void *b)
{
	return strcmp(((const struct git_stat *)a)->path, ((const struct git_stat *)b)->path);
}

static int count_all(git_diff *diff, git_odb *odb, struct ap_buf *ret, struct ap_err *err)
{
	size_t n = git_diff_num_deltas(diff);
	AP_CLEANUP_FREE struct git_stat *stats = calloc(n + 1, sizeof *stats);
	if (!stats)
		return ap_err_errno(err, -ENOMEM, "diffstat");
	for (size_t i = 0; i < n; i++) {
		if (count(diff, i, odb, &stats[i]) < 0)
			return failed(err);
	}
	qsort(stats, n, sizeof *stats, compare);
	git_stat_format(stats, n, ret);
	return ret->failed ? ap_err_errno(err, -ENOMEM, "diffstat") : 0;
}

static int diff_lists(git_repository *repo, const struct lists *lists, struct ap_buf *ret,
		      struct ap_err *err)
{
	git_diff_options options;
	git_diff_find_options find;
	git_diff *diff = NULL;
	git_odb *odb = NULL;
	git_diff_options_init(&options, GIT_DIFF_OPTIONS_VERSION);
	git_diff_find_options_init(&find, GIT_DIFF_FIND_OPTIONS_VERSION);
	options.flags = GIT_DIFF_INCLUDE_TYPECHANGE;
	options.max_size = GIT_STAT_MAX;
	find.flags = GIT_DIFF_FIND_RENAMES;
	int r = git_repository_odb(&odb, repo);
	if (r == 0)
		r = git_diff_index_to_index(&diff, repo, lists->old, lists->new, &options);
	if (r == 0)
		r = git_diff_find_similar(diff, &find);
	r = r == 0 ? count_all(diff, odb, ret, err) : failed(err);
	git_diff_free(diff);
	git_odb_free(odb);
	return r;
}

int git_libgit2_diffstat(struct ap_git *git, git_repository *repo, const char *old_tree,
			 const char *new_tree, struct ap_buf *ret, struct ap_err *err)
{
	struct lists lists = {NULL, NULL, 0};
	int r = git_index_new(&lists.old) < 0 || git_index_new(&lists.new) < 0 ? failed(err) : 0;
	if (r == 0)
		r = ap_git_diff_trees(git, old_tree, new_tree, add_change, &lists, err);
	if (lists.error)
		r = failed(err);
	if (r == 0)
		r = diff_lists(repo, &lists, ret, err);
	git_index_free(lists.old);
	git_index_free(lists.new);
	return r;
}
