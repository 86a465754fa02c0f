/* A list has the same form in its file as in memory: a head, the nodes, the names with a NUL each.
 */
#include "layer_list.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "file.h"
#include "text.h"

#define MAGIC	 0x317473696c7061ULL /* "aplist1" */
#define FILE_MAX ((off_t)4 << 30)

struct head {
	uint64_t magic, hash;
	int64_t moment_ns;
	uint64_t nodes_len, names_len;
};

static uint64_t hash_of(const struct layer_list *list)
{
	uint64_t parts[] = {(uint64_t)list->moment_ns,
			    ap_hash_bytes(list->nodes.data, list->nodes.len),
			    ap_hash_bytes(list->names.data, list->names.len)};
	return ap_hash_bytes(parts, sizeof parts);
}

static int64_t ns_of(clockid_t clock, int (*get)(clockid_t, struct timespec *))
{
	struct timespec at = {.tv_sec = 0};
	get(clock, &at);
	return at.tv_sec * AP_SECOND + at.tv_nsec;
}

int64_t layer_tick_ns(void)
{
	return ns_of(CLOCK_REALTIME_COARSE, clock_getres);
}

static struct layer_node *nodes_of(const struct layer_list *list)
{
	return (struct layer_node *)(void *)list->nodes.data;
}

const struct layer_node *layer_list_node(const struct layer_list *list, uint32_t node)
{
	return nodes_of(list) + node;
}

const char *layer_list_name(const struct layer_list *list, uint32_t node)
{
	return list->names.data + nodes_of(list)[node].name;
}

uint32_t layer_list_count(const struct layer_list *list)
{
	return (uint32_t)(list->nodes.len / sizeof(struct layer_node));
}

/* --- making --- */

struct layer_list *layer_list_new(void)
{
	struct layer_list *list = calloc(1, sizeof *list);
	if (!list)
		return NULL;
	list->moment_ns = ns_of(CLOCK_REALTIME_COARSE, clock_gettime);
	if (layer_list_add(list, "", &(struct layer_stamp){.mode = S_IFDIR}) == 0)
		return list;
	layer_list_free(list);
	return NULL;
}

void layer_list_free(struct layer_list *list)
{
	if (!list)
		return;
	ap_buf_fini(&list->nodes);
	ap_buf_fini(&list->names);
	free(list);
}

int layer_list_add(struct layer_list *list, const char *name, const struct layer_stamp *stamp)
{
	const struct layer_node node = {
		.ino = stamp->ino,
		.size = stamp->size,
		.mtime_ns = stamp->mtime_ns,
		.ctime_ns = stamp->ctime_ns,
		.mode = stamp->mode,
		.name = (uint32_t)list->names.len,
	};
	if (list->names.len > UINT32_MAX - 512 || layer_list_count(list) == UINT32_MAX - 1)
		return -EFBIG;
	ap_buf_add(&list->nodes, &node, sizeof node);
	ap_buf_add(&list->names, name, strlen(name) + 1);
	return list->nodes.failed || list->names.failed ? -ENOMEM : 0;
}

static int compare(const void *a, const void *b, void *list)
{
	const char *names = ((const struct layer_list *)list)->names.data;
	return strcmp(names + ((const struct layer_node *)a)->name,
		      names + ((const struct layer_node *)b)->name);
}

void layer_list_end_dir(struct layer_list *list, uint32_t dir, uint32_t first)
{
	struct layer_node *nodes = nodes_of(list);
	nodes[dir].first = first;
	nodes[dir].n = layer_list_count(list) - first;
	qsort_r(nodes + first, nodes[dir].n, sizeof *nodes, compare, list);
}

/* --- looking --- */

uint32_t layer_list_find(const struct layer_list *list, uint32_t dir, const char *name)
{
	if (!list || dir == LAYER_NONE)
		return LAYER_NONE;
	uint32_t low = nodes_of(list)[dir].first, high = low + nodes_of(list)[dir].n;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		int order = strcmp(name, layer_list_name(list, middle));
		if (order == 0)
			return middle;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return LAYER_NONE;
}

bool layer_node_equals(const struct layer_node *node, const struct layer_stamp *stamp)
{
	return node->ino == stamp->ino && node->size == stamp->size &&
	       node->mtime_ns == stamp->mtime_ns && node->ctime_ns == stamp->ctime_ns &&
	       node->mode == stamp->mode;
}

/* A stamp of whole seconds may be from a file system that keeps no finer times. */
bool layer_node_is_racy(const struct layer_list *list, const struct layer_node *node)
{
	int64_t step = node->ctime_ns % AP_SECOND == 0 ? 2 * AP_SECOND : layer_tick_ns();
	return node->ctime_ns >= list->moment_ns - step;
}

/* --- on the disk --- */

int layer_list_write(const struct layer_list *list, const char *file, struct ap_err *err)
{
	const struct head head = {
		.magic = MAGIC,
		.hash = hash_of(list),
		.moment_ns = list->moment_ns,
		.nodes_len = list->nodes.len,
		.names_len = list->names.len,
	};
	AP_CLEANUP_FREE char *beside = NULL;
	if (asprintf(&beside, "%s.new", file) < 0) {
		beside = NULL;
		return ap_err_errno(err, -ENOMEM, "%s", file);
	}
	FILE *out = file_create(beside);
	if (!out)
		return ap_err_errno(err, -errno, "%s", beside);
	bool written = fwrite(&head, sizeof head, 1, out) == 1 &&
		       fwrite(list->nodes.data, list->nodes.len, 1, out) == 1 &&
		       fwrite(list->names.data, list->names.len, 1, out) == 1;
	int r = written ? 0 : -errno;
	if (fclose(out) != 0 && r == 0)
		r = -errno;
	if (r == 0 && rename(beside, file) < 0)
		r = -errno;
	if (r == 0)
		return 0;
	(void)unlink(beside);
	return ap_err_errno(err, r, "%s", file);
}

static int read_into(int fd, struct ap_buf *ret, uint64_t len)
{
	if (!ap_buf_reserve(ret, len))
		return -ENOMEM;
	while (ret->len < len) {
		ssize_t n = read(fd, ret->data + ret->len, len - ret->len);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return -EIO;
		ret->len += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* Checks a list. Children lie behind their directory, so a list has no cycles. */
static bool is_sound(const struct layer_list *list)
{
	uint32_t n = layer_list_count(list);
	if (n == 0 || list->names.len == 0 || list->names.data[list->names.len - 1] != '\0')
		return false;
	for (uint32_t i = 0; i < n; i++) {
		const struct layer_node *node = nodes_of(list) + i;
		if (node->name >= list->names.len ||
		    (node->n > 0 &&
		     (node->first <= i || node->first > n || node->n > n - node->first)))
			return false;
	}
	return true;
}

static int read_list(struct layer_list *list, const char *file)
{
	struct head head;
	struct stat st;
	AP_CLEANUP_CLOSE int fd = file_open(file, O_RDONLY | O_NOFOLLOW, 0);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size > FILE_MAX || read(fd, &head, sizeof head) != sizeof head ||
	    head.magic != MAGIC || head.nodes_len > (uint64_t)st.st_size ||
	    head.names_len > (uint64_t)st.st_size ||
	    head.nodes_len % sizeof(struct layer_node) != 0 ||
	    sizeof head + head.nodes_len + head.names_len != (uint64_t)st.st_size)
		return -EIO;
	list->moment_ns = head.moment_ns;
	int r = read_into(fd, &list->nodes, head.nodes_len);
	if (r == 0)
		r = read_into(fd, &list->names, head.names_len);
	if (r == 0 && (hash_of(list) != head.hash || !is_sound(list)))
		r = -EIO;
	return r;
}

int layer_list_read(struct layer_list **ret, const char *file, struct ap_err *err)
{
	struct layer_list *list = calloc(1, sizeof *list);
	int r = list ? read_list(list, file) : -ENOMEM;
	if (r == 0) {
		*ret = list;
		return 0;
	}
	layer_list_free(list);
	return r == -EIO ? ap_err_set(err, r, "%s is damaged", file)
			 : ap_err_errno(err, r, "%s", file);
}
