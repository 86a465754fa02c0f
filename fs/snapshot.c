#include "snapshot.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "list.h"

#define N_BUCKETS 1024 /* a power of two */

/* Limits of the texts that nobody has open. One system call lies between the lookup and the open;
 * for an open that comes too late the kernel repeats the lookup. */
#define WAITING_MAX   1024
#define WAITING_BYTES (4u << 20)

struct snapshot {
	struct ap_list chain;	/* set->buckets, the newest of a file first */
	struct ap_list waiting; /* set->waiting, the oldest first; in none while it is open */
	struct node file, node;
	bool published; /* other lookups may get it; else its last close frees it */
	uid_t uid;	/* who looked it up */
	unsigned n_open;
	struct ap_buf text; /* does not change while it is open: then read without the lock */
};

struct snapshots {
	pthread_mutex_t lock; /* of all that follows */
	struct ap_list buckets[N_BUCKETS];
	struct ap_list waiting;
	unsigned n_waiting;
	size_t waiting_bytes, open_bytes;
	uint64_t serial;
};

struct snapshots *snapshots_new(void)
{
	struct snapshots *set = calloc(1, sizeof *set);
	if (!set)
		return NULL;
	pthread_mutex_init(&set->lock, NULL);
	ap_list_init(&set->waiting);
	for (size_t i = 0; i < N_BUCKETS; i++)
		ap_list_init(&set->buckets[i]);
	return set;
}

static void snapshot_free(struct snapshot *snapshot)
{
	ap_list_remove(&snapshot->chain);
	ap_list_remove(&snapshot->waiting);
	ap_buf_fini(&snapshot->text);
	free(snapshot);
}

void snapshots_free(struct snapshots *set)
{
	if (!set)
		return;
	for (size_t i = 0; i < N_BUCKETS; i++) {
		while (!ap_list_empty(&set->buckets[i]))
			snapshot_free(
				ap_container_of(set->buckets[i].next, struct snapshot, chain));
	}
	pthread_mutex_destroy(&set->lock);
	free(set);
}

static struct ap_list *bucket_of(struct snapshots *set, struct node file)
{
	uint64_t hash = node_pack(file) * UINT64_C(0x9e3779b97f4a7c15);
	return &set->buckets[hash >> 32 & (N_BUCKETS - 1)];
}

static bool same_node(struct node a, struct node b)
{
	return a.dir == b.dir && a.row == b.row && a.id == b.id;
}

static struct snapshot *find_locked(struct snapshots *set, struct node node)
{
	const struct node file = node_file(node);
	struct ap_list *at, *bucket = bucket_of(set, file);
	ap_list_for_each (at, bucket) {
		struct snapshot *snapshot = ap_container_of(at, struct snapshot, chain);
		if (same_node(snapshot->node, node))
			return snapshot;
	}
	return NULL;
}

/* The newest snapshot of the file that this user looked up. */
static struct snapshot *newest_locked(struct snapshots *set, struct node file, uid_t uid)
{
	struct ap_list *at, *bucket = bucket_of(set, file);
	ap_list_for_each (at, bucket) {
		struct snapshot *snapshot = ap_container_of(at, struct snapshot, chain);
		if (same_node(snapshot->file, file) && snapshot->published && snapshot->uid == uid)
			return snapshot;
	}
	return NULL;
}

static struct node fresh_locked(struct snapshots *set, struct node file)
{
	struct node node;
	do {
		node = node_fresh(file, ++set->serial);
	} while (same_node(node, file) || find_locked(set, node)); /* serials wrap around */
	return node;
}

struct node snapshots_fresh(struct snapshots *set, struct node file)
{
	pthread_mutex_lock(&set->lock);
	struct node node = fresh_locked(set, file);
	pthread_mutex_unlock(&set->lock);
	return node;
}

/* --- what waits to be opened --- */

static void stop_waiting_locked(struct snapshots *set, struct snapshot *snapshot)
{
	ap_list_remove(&snapshot->waiting);
	set->n_waiting--;
	set->waiting_bytes -= snapshot->text.len;
}

/* Puts the snapshot last among those to forget, and forgets the oldest ones over the limits. */
static void wait_locked(struct snapshots *set, struct snapshot *snapshot)
{
	ap_list_append(&set->waiting, &snapshot->waiting);
	set->n_waiting++;
	set->waiting_bytes += snapshot->text.len;
	while (set->n_waiting > 1 &&
	       (set->n_waiting > WAITING_MAX || set->waiting_bytes > WAITING_BYTES)) {
		struct snapshot *oldest =
			ap_container_of(set->waiting.next, struct snapshot, waiting);
		stop_waiting_locked(set, oldest);
		snapshot_free(oldest);
	}
}

static struct snapshot *add_locked(struct snapshots *set, struct node node, struct ap_buf *text)
{
	struct snapshot *snapshot = calloc(1, sizeof *snapshot);
	if (!snapshot)
		return NULL;
	snapshot->file = node_file(node);
	snapshot->node = node;
	snapshot->text = *text;
	*text = (struct ap_buf){0};
	ap_list_init(&snapshot->waiting);
	ap_list_insert_after(bucket_of(set, snapshot->file), &snapshot->chain);
	return snapshot;
}

static bool same_text(const struct ap_buf *a, const struct ap_buf *b)
{
	return a->len == b->len && memcmp(ap_buf_text(a), ap_buf_text(b), a->len) == 0;
}

static int publish_locked(struct snapshots *set, struct node file, uid_t uid, bool alone,
			  struct ap_buf *text, struct node *ret)
{
	struct snapshot *newest = alone ? NULL : newest_locked(set, file, uid);
	if (newest && newest->n_open == 0 && newest->text.len == text->len) {
		ap_buf_fini(&newest->text);
		newest->text = *text;
		*text = (struct ap_buf){0};
		stop_waiting_locked(set, newest);
		wait_locked(set, newest);
	} else if (!newest || !same_text(&newest->text, text)) {
		newest = add_locked(set, fresh_locked(set, file), text);
		if (!newest)
			return -ENOMEM;
		newest->published = true;
		newest->uid = uid;
		wait_locked(set, newest);
	}
	*ret = newest->node;
	return 0;
}

int64_t snapshot_keep(struct snapshots *set, struct node node, struct ap_buf *text)
{
	pthread_mutex_lock(&set->lock);
	struct snapshot *snapshot = find_locked(set, node);
	if (!snapshot && (snapshot = add_locked(set, node, text)))
		wait_locked(set, snapshot);
	int64_t len = snapshot ? (int64_t)snapshot->text.len : -ENOMEM;
	pthread_mutex_unlock(&set->lock);
	return len;
}

int snapshot_publish(struct snapshots *set, struct node file, uid_t uid, bool alone,
		     struct ap_buf *text, struct node *ret)
{
	pthread_mutex_lock(&set->lock);
	int r = publish_locked(set, file, uid, alone, text, ret);
	pthread_mutex_unlock(&set->lock);
	return r;
}

/* --- open --- */

static struct snapshot *open_locked(struct snapshots *set, struct snapshot *snapshot,
				    bool *ret_first)
{
	if (!snapshot)
		return NULL;
	*ret_first = snapshot->n_open == 0;
	if (*ret_first) {
		if (!ap_list_empty(&snapshot->waiting))
			stop_waiting_locked(set, snapshot);
		set->open_bytes += snapshot->text.len;
	}
	snapshot->n_open++;
	return snapshot;
}

struct snapshot *snapshot_open(struct snapshots *set, struct node node, bool *ret_first)
{
	pthread_mutex_lock(&set->lock);
	struct snapshot *snapshot = open_locked(set, find_locked(set, node), ret_first);
	pthread_mutex_unlock(&set->lock);
	return snapshot;
}

struct snapshot *snapshot_enter(struct snapshots *set, struct node node, struct ap_buf *text,
				bool *ret_first)
{
	pthread_mutex_lock(&set->lock);
	struct snapshot *snapshot = find_locked(set, node);
	if (!snapshot)
		snapshot = add_locked(set, node, text);
	snapshot = open_locked(set, snapshot, ret_first);
	pthread_mutex_unlock(&set->lock);
	return snapshot;
}

void snapshot_close(struct snapshots *set, struct snapshot *snapshot)
{
	pthread_mutex_lock(&set->lock);
	if (--snapshot->n_open == 0) {
		set->open_bytes -= snapshot->text.len;
		if (snapshot->published)
			wait_locked(set, snapshot);
		else
			snapshot_free(snapshot);
	}
	pthread_mutex_unlock(&set->lock);
}

const struct ap_buf *snapshot_text(const struct snapshot *snapshot)
{
	return &snapshot->text;
}

int64_t snapshot_size(struct snapshots *set, struct node node)
{
	pthread_mutex_lock(&set->lock);
	const struct snapshot *snapshot = find_locked(set, node);
	int64_t size = snapshot ? (int64_t)snapshot->text.len : -1;
	pthread_mutex_unlock(&set->lock);
	return size;
}

size_t snapshots_open_bytes(struct snapshots *set)
{
	pthread_mutex_lock(&set->lock);
	size_t bytes = set->open_bytes;
	pthread_mutex_unlock(&set->lock);
	return bytes;
}
