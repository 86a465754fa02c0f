#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
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

/* Whether a word of the table, in which the kernel writes blanks, newlines, backslashes and the
 * like as \ooo, stands for that text. */
static bool word_is(const char *word, size_t len, const char *text)
{
	const char *end = word + len;
	while (word < end) {
		char c = *word++;
		if (c == '\\' && end - word >= 3 && is_octal(word[0]) && is_octal(word[1]) &&
		    is_octal(word[2])) {
			c = (char)((word[0] - '0') << 6 | (word[1] - '0') << 3 | (word[2] - '0'));
			word += 3;
		}
		if (c != *text++)
			return false;
	}
	return *text == '\0';
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

/* ID PARENT MAJOR:MINOR ROOT PATH OPTIONS [FIELD...] - TYPE SOURCE OPTIONS */
bool mounts_type_at(const char *table, const char *path, char ret_type[MOUNTS_TYPE_MAX])
{
	bool found = false;
	for (const char *line = table, *next; *line; line = next) {
		size_t len;
		next = line + strcspn(line, "\n");
		next += *next == '\n';
		const char *at = word_at(line, 4, &len);
		if (!at || !word_is(at, len, path))
			continue;
		unsigned n = 6;
		while ((at = word_at(line, n, &len)) && !(len == 1 && *at == '-'))
			n++;
		at = at ? word_at(line, n + 1, &len) : NULL;
		if (!at)
			continue;
		snprintf(ret_type, MOUNTS_TYPE_MAX, "%.*s", (int)len, at);
		found = true;
	}
	return found;
}
