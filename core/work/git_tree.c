/* Trees in memory, and as git keeps them. */
#include <git2/sys/path.h>

#include "git_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void ap_git_tree_fini(struct ap_git_tree *tree)
{
	for (size_t i = 0; i < tree->n; i++)
		free(tree->entries[i].name);
	free(tree->entries);
	*tree = (struct ap_git_tree){0};
}

/* The character behind the `n` bytes that two names have in common. */
static int end_of(const char *name, size_t n, bool is_tree)
{
	unsigned char c = (unsigned char)name[n];
	return c == '\0' && is_tree ? '/' : c;
}

static int compare(const char *a, bool a_is_tree, const char *b, bool b_is_tree)
{
	size_t n = 0;
	while (a[n] && a[n] == b[n])
		n++;
	return end_of(a, n, a_is_tree) - end_of(b, n, b_is_tree);
}

int ap_git_compare_entries(const struct ap_git_entry *a, const struct ap_git_entry *b)
{
	return compare(a->name, S_ISDIR(a->mode), b->name, S_ISDIR(b->mode));
}

/* The index at which an entry is, or would be. */
static size_t place_of(const struct ap_git_tree *tree, const char *name, bool is_tree)
{
	size_t low = 0, high = tree->n;
	if (high > 0) { /* at the end, as entries often come in order */
		const struct ap_git_entry *last = &tree->entries[high - 1];
		if (compare(last->name, S_ISDIR(last->mode), name, is_tree) < 0)
			return high;
	}
	while (low < high) {
		size_t at = low + (high - low) / 2;
		const struct ap_git_entry *entry = &tree->entries[at];
		if (compare(entry->name, S_ISDIR(entry->mode), name, is_tree) < 0)
			low = at + 1;
		else
			high = at;
	}
	return low;
}

struct ap_git_entry *ap_git_tree_find(const struct ap_git_tree *tree, const char *name)
{
	for (int is_tree = 0; is_tree < 2; is_tree++) {
		size_t at = place_of(tree, name, is_tree);
		if (at < tree->n && strcmp(tree->entries[at].name, name) == 0)
			return &tree->entries[at];
	}
	return NULL;
}

/* Makes room for another entry: doubles the room when the number of entries is a power of two. */
static int grow(struct ap_git_tree *tree)
{
	size_t n = tree->n;
	if (n > 0 && (n & (n - 1)) != 0)
		return 0;
	struct ap_git_entry *entries =
		realloc(tree->entries, (n ? 2 * n : 1) * sizeof *tree->entries);
	if (!entries)
		return -ENOMEM;
	tree->entries = entries;
	return 0;
}

static int insert(struct ap_git_tree *tree, size_t at, char *name, unsigned mode, const char *oid)
{
	if (!name || grow(tree) < 0)
		return -ENOMEM;
	memmove(&tree->entries[at + 1], &tree->entries[at], (tree->n - at) * sizeof *tree->entries);
	tree->entries[at] = (struct ap_git_entry){.mode = mode, .name = name};
	strncpy(tree->entries[at].oid, oid, GIT_OID_MAX);
	tree->n++;
	return 0;
}

int ap_git_tree_set(struct ap_git_tree *tree, const char *name, unsigned mode, const char *oid)
{
	struct ap_git_entry *old = ap_git_tree_find(tree, name);
	if (old && S_ISDIR(old->mode) == S_ISDIR(mode)) {
		old->mode = mode;
		memset(old->oid, 0, sizeof old->oid);
		strncpy(old->oid, oid, GIT_OID_MAX);
		return 0;
	}
	char *copy = strdup(name);
	if (copy && old)
		ap_git_tree_remove(tree, name);
	int r = insert(tree, place_of(tree, copy ? copy : "", S_ISDIR(mode)), copy, mode, oid);
	if (r < 0)
		free(copy);
	return r;
}

void ap_git_tree_remove(struct ap_git_tree *tree, const char *name)
{
	struct ap_git_entry *entry = ap_git_tree_find(tree, name);
	if (!entry)
		return;
	free(entry->name);
	tree->n--;
	size_t behind = tree->n - (size_t)(entry - tree->entries);
	memmove(entry, entry + 1, behind * sizeof *entry);
}

/* One of the five modes that git writes today; old trees have others. */
static unsigned plain_mode(unsigned mode)
{
	return S_ISREG(mode) ? (mode & 0100 ? 0100755 : 0100644) : mode & S_IFMT;
}

/* Parses one entry: a mode in octal, a blank, a name, a NUL, the bytes of an object name. */
static int parse_entry(const char **at, const char *end, size_t oid_len, struct ap_git_tree *ret)
{
	char oid[GIT_OID_MAX + 1];
	unsigned mode = 0;
	const char *p = *at;
	for (; p < end && *p >= '0' && *p <= '7' && mode < 01000000; p++)
		mode = mode * 8 + (unsigned)(*p - '0');
	if (p == *at || p == end || *p++ != ' ')
		return -EIO;
	const char *nul = memchr(p, '\0', (size_t)(end - p));
	mode = plain_mode(mode);
	if (!nul || nul == p || (size_t)(end - nul) <= oid_len / 2 ||
	    memchr(p, '/', (size_t)(nul - p)) ||
	    !(S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || mode == 0160000))
		return -EIO;
	git_hex((const unsigned char *)nul + 1, oid_len / 2, oid);
	char *name = strdup(p);
	int r = insert(ret, ret->n, name, mode, oid);
	if (r < 0)
		free(name);
	*at = nul + 1 + oid_len / 2;
	return r;
}

int git_tree_parse(const void *data, size_t len, size_t oid_len, struct ap_git_tree *ret)
{
	const char *at = data, *end = at + len;
	struct ap_git_tree tree = {0};
	int r = 0;
	while (r == 0 && len > 0 && at < end) {
		r = parse_entry(&at, end, oid_len, &tree);
		/* the binary search needs entries in order */
		if (r == 0 && tree.n > 1 &&
		    ap_git_compare_entries(&tree.entries[tree.n - 2], &tree.entries[tree.n - 1]) >=
			    0)
			r = -EIO;
	}
	if (r < 0)
		ap_git_tree_fini(&tree);
	else
		*ret = tree;
	return r;
}

/* Whether NTFS takes a name for .git: in another case, by its short name, with blanks, dots or a
 * stream behind it. */
static bool is_ntfs_dot_git(const char *name)
{
	if (strncasecmp(name, ".git", 4) == 0)
		name += 4;
	else if (strncasecmp(name, "git~1", 5) == 0)
		name += 5;
	else
		return false;
	name += strspn(name, ". ");
	return *name == '\0' || *name == '\\' || *name == ':';
}

bool git_name_is_valid(const char *name, unsigned mode, bool protect_ntfs)
{
	if (*name == '\0' || strchr(name, '/') || strcmp(name, ".") == 0 ||
	    strcmp(name, "..") == 0 || strcasecmp(name, ".git") == 0 ||
	    (S_ISLNK(mode) && strcasecmp(name, ".gitmodules") == 0))
		return false;
	for (const char *part = name; part && protect_ntfs; part = strchr(part, '\\')) {
		part += part > name || *part == '\\';
		if (is_ntfs_dot_git(part) ||
		    (S_ISLNK(mode) &&
		     git_path_is_gitfile(part, strlen(part), GIT_PATH_GITFILE_GITMODULES,
					 GIT_PATH_FS_NTFS) > 0))
			return false;
	}
	return true;
}

bool ap_git_takes_name(const char *name, unsigned mode)
{
	return git_name_is_valid(name, mode, true);
}
