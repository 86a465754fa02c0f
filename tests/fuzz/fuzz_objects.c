/* What an agent can have written that git.h reads: trees, index files, rules; and what git prints
 * about objects. */
#include "fuzz.h"

#include "../../core/work/git_process.h"
#include "../../core/work/git_rules.h"

static void tree_holds(const void *data, size_t len)
{
	struct ap_git_tree tree;
	if (git_tree_parse(data, len, 40, &tree) < 0)
		return;
	for (size_t i = 0; i < tree.n; i++) {
		const struct ap_git_entry *entry = &tree.entries[i];
		HOLDS(*entry->name && !strchr(entry->name, '/'));
		HOLDS(strlen(entry->oid) == 40);
		HOLDS(i == 0 || ap_git_compare_entries(entry - 1, entry) < 0);
		HOLDS(ap_git_tree_find(&tree, entry->name));
	}
	ap_git_tree_fini(&tree);
}

static int note_path(void *data, const char *path, const char *oid)
{
	size_t *n = data;
	HOLDS(*path && strlen(oid) == 40);
	(*n)++;
	return 0;
}

static void index_holds(const void *data, size_t len)
{
	char *copy = fuzz_copy(data, len);
	struct ap_buf text = {.data = copy, .len = len, .cap = len + 1};
	size_t n = 0;
	HOLDS(git_index_parse(&text, 20, note_path, &n) == 0 || n == 0);
	HOLDS(n * 62 <= len);
	free(copy);
}

static void header_holds(const char *line)
{
	char oid[GIT_OID_MAX + 1];
	enum git_type type;
	size_t size;
	if (!git_parse_header(line, 40, oid, &type, &size))
		return;
	HOLDS(strlen(oid) == 40 && strspn(oid, "0123456789abcdef") == 40);
	HOLDS(type != GIT_TYPE_NONE);
}

/* The first piece is rules, the next ones paths. */
static void rules_hold(struct fuzz_input *input)
{
	static const char dir[] = "/dev/fd/none";
	char *text = fuzz_text(input);
	char path[40];
	snprintf(path, sizeof path, "/proc/self/fd/%s", fuzz_file(text, strlen(text)));
	struct git_rules *rules = git_rules_new(&(struct git_rules_place){
		.dir = dir, .info = dir, .excludes = path, .attributes = path});
	HOLDS(rules);
	while (input->left > 0) {
		char *name = fuzz_text(input);
		const char *values[N_GIT_ATTRS];
		if (*name) {
			HOLDS(git_rules_ignore(rules, name, false) >= 0);
			HOLDS(git_rules_ignore(rules, name, true) >= 0);
			HOLDS(git_rules_attributes(rules, name, values) == 0);
			for (size_t i = 0; i < N_GIT_ATTRS; i++)
				HOLDS(!values[i] || strlen(values[i]) <= strlen(text) + 4);
		}
		free(name);
	}
	git_rules_free(rules);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	tree_holds(data, size);
	index_holds(data, size);
	char *line = fuzz_copy(data, size);
	header_holds(line);
	free(line);
	rules_hold(&input);
	return 0;
}
