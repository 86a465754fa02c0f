/* What the files of an open file share: the table is below them all (open_table.c), open and close
 * above (open_file.c), and between them reading.c, following.c, polling.c, writing.c and holding.c.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "list.h"
#include "open_file.h"
#include "snapshot.h"

enum text_state {
	TEXT_NONE,   /* nothing was asked for yet */
	TEXT_COMING, /* readers wait */
	TEXT_READY,
	TEXT_FAILED, /* text_error */
};

/* A write whose lines are submitted one after the other, and parked meanwhile. */
struct writing {
	struct parked *parked; /* NULL: none is under way */
	struct ap_buf work;
	size_t work_from; /* bytes of it that earlier writes brought */
	size_t write_size;
	size_t done;	  /* bytes whose commands have had their effect */
	size_t line_len;  /* of the line under way */
	bool cut;	  /* the last write was not taken to its end */
	bool is_block;	  /* it is a program's full buffer, or what is left of one */
	bool submitting;  /* guarded by files->lock: submit() has not returned yet */
	bool answered;	  /* likewise: the answer came before it did */
	bool interrupted; /* likewise: the writer is to die */
	int answer;
	int refused_error;
	size_t refused_len; /* of the last write, when it was refused whole; 0: it was not */
	uint64_t refused_hash;
};

/* Where a reader of kept text is. Guarded by files->lock. */
struct place {
	off_t shift;	   /* what was dropped before the piece at next_offset */
	off_t next_offset; /* behind the last piece that was read */
	off_t end;	   /* where the text ended when the reader began */
	bool end_told;	   /* and he has been told so */
};

/* What ten thousand waiters each have: what is rare is allocated when it is needed. */
struct open_file {
	atomic_uint n_refs;	    /* the table's; of each request and parked request under way */
	enum text_state text_state; /* guarded by files->lock */
	struct open_files *files;
	const struct tree_row *row;
	uint64_t ino; /* of the node, packed */
	uint64_t fh;
	/* with the agent pinned, without a place for errors: file_call(); uid and tid are those of
	 * the last write */
	struct tree_call call;
	bool by_handle; /* it is a lease, or will be */
	bool stream;	/* offsets mean nothing: `cursor` counts */
	bool append;	/* opened with O_APPEND */
	bool direct;	/* reads and writes pass the kernel's page cache by */
	bool measures;	/* it is not open: its text is made for the one that will be */

	/* the FUSE thread's own */
	bool taking;	       /* the pool knows that a text is being written */
	bool broken;	       /* a piece of the text was refused: none of it is taken */
	bool looked;	       /* a value: it was read or polled, the next read may find another */
	struct ap_buf pending; /* written: a line that goes on, or the text so far */
	size_t block_left;     /* of a write that was taken in part: it is written again */

	/* guarded by files->lock */
	int text_error;
	bool is_first;		   /* it has `snapshot` open, and nobody else had when it came */
	bool renewed;		   /* `text` is a later one, for who does not use the page cache */
	bool granted;		   /* by_handle: it is held */
	bool closed;		   /* RELEASE has come */
	struct snapshot *snapshot; /* open; its text is what is read; NULL: `text` is */
	struct ap_buf text;
	size_t counted; /* of its bytes in files->text_bytes */
	size_t cursor;
	struct ap_list readers;	    /* struct reader */
	struct ap_request *request; /* under way, with our reference; at most one */
	struct ap_lease_key lease;  /* the last one granted through this file */

	struct place *place;	     /* owned; NULL: its text is not kept text */
	struct following *following; /* owned; NULL: it is no stream of events */
	struct polling *polling;     /* owned; set once; NULL: nobody has polled it yet */
	struct writing *writing;     /* owned; NULL: nothing was submitted by a write yet */
};

struct slot {
	struct open_file *file; /* NULL: it is free */
	uint32_t generation;
	uint32_t next_free; /* another free one, or n_slots: none */
};

/* What the table has done to a file: closed, or not opened after all; freed, when nothing of it is
 * under way any more. */
struct open_file_ops {
	void (*end)(struct open_file *file);
	void (*free)(struct open_file *file);
};

struct open_files {
	const struct open_file_ops *ops;
	struct ap_pool *pool;
	struct parked_set *parked;
	struct snapshots *snapshots;
	struct fuse_session *session; /* NULL: open_files_serve() was not called */
	/* the pool may be looked at under it, as none of its callbacks comes with a lock */
	pthread_mutex_t lock;
	struct ap_list followers;     /* struct following; guarded by lock */
	struct ap_list polled;	      /* struct polling of those to be told; likewise */
	struct slot *slots;	      /* likewise */
	uint32_t n_slots, first_free; /* n_slots: none; likewise */
	size_t taking_bytes;	      /* of texts being written; the FUSE thread's own */
	atomic_size_t text_bytes;     /* of texts that were made for one open file alone */
	atomic_size_t line_bytes;     /* of lines whose write is parked */
};

/* A parked read, or an open or a look at the size that waits for the text. Freed with its parked
 * request. */
struct reader {
	struct ap_list link; /* file->readers; files->lock */
	struct open_file *file;
	struct parked *parked;
	size_t size;
	off_t offset;
	bool opens;		      /* the request is the open */
	open_file_measured *measured; /* it is the look at the size; else NULL */
	bool interrupted;	      /* before it was in the list; files->lock */
};

/* --- open_table.c --- */

void file_ref(struct open_file *file);
void file_unref(void *file); /* fits as what frees the data of a parked request */

static inline struct node file_node(const struct open_file *file)
{
	return node_unpack(file->ino);
}

/* Who asks through this file, and where a refusal puts its sentence. */
static inline struct tree_call file_call(const struct open_file *file, struct ap_err *err)
{
	struct tree_call call = file->call;
	call.err = err;
	return call;
}

/* Replies to the open, which succeeds; the kernel may have been given the text already:
 * `keep_cache`. False: nobody is there any more, and no RELEASE will come. */
bool open_reply(struct open_file *file, fuse_req_t req, bool keep_cache);

/* The file is closed, or was not opened after all. Takes the table's reference. Any thread. */
void open_file_end(struct open_file *file);

/* Has what is asked for through it answered with -ECANCELED. */
void request_cancel(struct open_file *file);

/* Gives the file a handle; and takes it back. -ENOMEM, -ENFILE with its sentence. */
int table_add(struct open_files *files, struct open_file *file, struct ap_err *err);
void table_remove(struct open_files *files, uint64_t fh);

/* The open file of a handle, or NULL. */
struct open_file *open_file_find(struct open_files *files, uint64_t fh);

/* Takes the request that has been answered off the file and drops our reference. */
void request_over(struct open_file *file, struct ap_request *request);

/* --- reading.c --- */

/* The text that direct reads are given. files->lock held. */
const struct ap_buf *file_text_locked(const struct open_file *file);

/* The file reads the text that was made when it was looked up. -ESTALE: that is forgotten, and the
 * kernel looks again; -ENFILE: texts are too much already. */
int text_open(struct open_file *file);

/* Gives the text to the kernel's page cache, so that no read of it comes. False where it did not
 * take it, or may have it already. */
bool text_push(struct open_file *file);

/* The request is replied to when the text has been made, or cannot be: it is the open, or the look
 * at the size of a file that is not. */
void text_open_later(struct open_file *file, fuse_req_t req);
void text_measure(struct open_file *file, fuse_req_t req, open_file_measured *measured);

/* Moves a text to the file, to be read from it. files->lock held. */
void text_take_locked(struct open_file *file, struct ap_buf *text);

/* The text has come (0), or the reason why not: all who wait are answered. */
void text_complete(struct open_file *file, int result);

/* A parked request, not in a list yet; what it wants is the caller's to say. NULL on ENOMEM. */
struct reader *reader_new(struct open_file *file, fuse_req_t req, parked_interrupted *interrupted);

/* Interrupted: takes it out of its list and answers, unless it is in none. */
void reader_interrupted(struct parked *parked, void *reader);

/* Replies with an error, unless there was a reply, and drops the parked request. */
void parked_fail(struct parked *parked, int error);

/* --- following.c --- */

/* From here on. -ENOMEM. */
int follow_open(struct open_file *file);
void follow_close(struct open_file *file);

/* Replied to when there are events, or none to come; else, without `wait`, with EAGAIN. */
void follow_read(struct open_file *file, fuse_req_t req, size_t size, bool wait);

/* There are more events, or there will be none: answers who waits for them. */
void follow_grew(struct open_files *files);

/* What poll says; `ret_seen` is another when there is news. files->lock held. */
unsigned follow_poll_locked(const struct open_file *file, uint64_t *ret_seen);

/* --- polling.c --- */

/* A read from the start of a value: if it was read or polled before, the next snapshot begins.
 * -ENODEV, -ENOMEM. */
int value_renew(struct open_file *file);

/* Who polls the file and is to be told, for poll_notify(); or NULL. files->lock held. */
struct fuse_pollhandle *poll_take_locked(struct open_file *file);

/* Has who polls look again. `handle` is taken, and may be NULL. Call without locks. */
void poll_notify(struct fuse_pollhandle *handle);

/* Nobody polls any more. */
void poll_close(struct open_file *file);
void polling_free(struct polling *polling);

/* --- writing.c --- */

#define LINE_MAX_LEN 4096

/* The length of the line at the start of `text` with its newline; all of it if there is none. */
size_t line_length(const char *text, size_t len);

/* Copies the line without its newline. -EINVAL. */
int line_copy(const char *text, size_t len, char ret[LINE_MAX_LEN + 1], struct ap_err *err);

static inline bool line_is_comment(const char *line)
{
	return line[0] == '#';
}

/* Has last_error say why: the sentence in `err`, or that of the errno. */
void refused(const struct open_file *file, int error, const struct ap_err *err);

/* Re-checks permission when buffered data is consumed: the lease may have ended since the write. */
int may_still_write(struct open_file *file, struct ap_err *err);

/* Lines whose commands are done at once. Returns the bytes that had their effect, or the error of
 * the first line. */
ssize_t run_lines(struct open_file *file, const char *text, size_t len);

/* A value that came without a newline is taken when it is closed. */
void value_end(struct open_file *file, fuse_req_t req);

/* The last close of a file that takes a text whole. */
void take_end(struct open_file *file);

void writing_free(struct writing *writing);

/* --- holding.c --- */

/* A write through a handle that is to be a lease. Replies. */
void hold(struct open_file *file, fuse_req_t req, const char *text, size_t len);
