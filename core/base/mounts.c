#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cleanup.h"

int mounts_read(pid_t pid, struct ap_buf *ret)
{
	char name[64] = "/proc/self/mountinfo";
	if (pid > 0)
		snprintf(name, sizeof name, "/proc/%d/mountinfo", (int)pid);
	AP_CLEANUP_CLOSE int fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	for (;;) {
		if (!ap_buf_reserve(ret, 16 << 10))
			return -ENOMEM;
		ssize_t n = read(fd, ret->data + ret->len, 16 << 10);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		ret->len += (size_t)n;
		ret->data[ret->len] = '\0';
	}
}

static bool is_octal(char c)
{
	return c >= '0' && c <= '7';
}

/* The text that a word of the table stands for, in which the kernel writes blanks, newlines,
 * backslashes and the like as \ooo. `ret` has room for the word and a NUL. */
static void read_word(const char *word, size_t len, char *ret)
{
	const char *end = word + len;
	while (word < end) {
		char c = *word++;
		if (c == '\\' && end - word >= 3 && is_octal(word[0]) && is_octal(word[1]) &&
		    is_octal(word[2])) {
			c = (char)((word[0] - '0') << 6 | (word[1] - '0') << 3 | (word[2] - '0'));
			word += 3;
		}
		*ret++ = c;
	}
	*ret = '\0';
}

/* The word behind `n` others of a line, with its length in *ret_len. NULL: there are not so many.
 */
static const char *word_at(const char *line, unsigned n, size_t *ret_len)
{
	for (; n > 0; n--) {
		line += strcspn(line, " \n");
		if (*line != ' ')
			return NULL;
		line++;
	}
	*ret_len = strcspn(line, " \n");
	return line;
}

static bool is_at_or_below(const char *at, const char *path)
{
	size_t len = strcmp(path, "/") == 0 ? 0 : strlen(path);
	return strncmp(at, path, len) == 0 && (at[len] == '\0' || at[len] == '/');
}

/* ID PARENT MAJOR:MINOR ROOT PATH OPTIONS [FIELD...] - TYPE SOURCE OPTIONS. 1: the row is at the
 * path or below it. */
static int read_row(const char *line, const char *path, struct mounts_row *ret)
{
	size_t len;
	unsigned n = 6;
	const char *at = word_at(line, 4, &len);
	if (!at)
		return 0;
	AP_CLEANUP_FREE char *place = malloc(len + 1);
	if (!place)
		return -ENOMEM;
	read_word(at, len, place);
	if (!is_at_or_below(place, path))
		return 0;
	while ((at = word_at(line, n, &len)) && !(len == 1 && *at == '-'))
		n++;
	at = at ? word_at(line, n + 1, &len) : NULL;
	if (!at)
		return 0;
	*ret = (struct mounts_row){.id = atoi(line), .path = ap_steal(place)};
	snprintf(ret->type, sizeof ret->type, "%.*s", (int)len, at);
	return 1;
}

int mounts_below(const char *table, const char *path, struct mounts_row **ret, size_t *ret_n)
{
	struct mounts_row *rows = NULL;
	size_t n = 0;
	for (const char *line = table; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		struct mounts_row row;
		int r = read_row(line, path, &row);
		if (r == 0)
			continue;
		struct mounts_row *more = r > 0 ? realloc(rows, (n + 1) * sizeof *rows) : NULL;
		if (!more) {
			if (r > 0)
				free(row.path);
			mounts_free(rows, n);
			return -ENOMEM;
		}
		rows = more;
		rows[n++] = row;
	}
	*ret = rows;
	*ret_n = n;
	return 0;
}

void mounts_free(struct mounts_row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(rows[i].path);
	free(rows);
}

bool mounts_type_at(const char *table, const char *path, char ret_type[MOUNTS_TYPE_MAX])
{
	struct mounts_row *rows;
	size_t n;
	bool found = false;
	if (mounts_below(table, path, &rows, &n) < 0)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (strcmp(rows[i].path, path) != 0)
			continue;
		memcpy(ret_type, rows[i].type, MOUNTS_TYPE_MAX);
		found = true;
	}
	mounts_free(rows, n);
	return found;
}

bool mounts_is_shared(const char *table, const char *path)
{
	size_t deepest = 0, len;
	bool shared = false;
	for (const char *line = table; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		const char *at = word_at(line, 4, &len);
		AP_CLEANUP_FREE char *place = at ? malloc(len + 1) : NULL;
		if (!place)
			continue;
		read_word(at, len, place);
		if (!is_at_or_below(path, place) || strlen(place) < deepest)
			continue;
		deepest = strlen(place); /* of several at one place the last counts */
		shared = false;
		for (unsigned n = 6; (at = word_at(line, n, &len)) && *at != '-'; n++)
			shared = shared || strncmp(at, "shared:", 7) == 0;
	}
	return shared;
}

bool mounts_has(FILE *table, dev_t device)
{
	AP_CLEANUP_FREE char *line = NULL;
	size_t size = 0;
	bool found = false;
	rewind(table);
	while (!found && getline(&line, &size, table) > 0) {
		unsigned at_major, at_minor;
		found = sscanf(line, "%*d %*d %u:%u", &at_major, &at_minor) == 2 &&
			makedev(at_major, at_minor) == device;
	}
	return found || ferror(table);
}
